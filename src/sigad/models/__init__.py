"""Networks: architectures, weights and feature maps of images, and the diffusion model (``models.diffusion``)."""
