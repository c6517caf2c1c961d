"""The diffusion model of the localization paper (Katsuoka et al., TMLR 2026): ``sigad[diffusion]``."""
