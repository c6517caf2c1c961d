"""The diffusion model of the localization paper (Katsuoka et al., TMLR 2026); its modules need diffusers."""
