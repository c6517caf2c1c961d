"""Networks: architectures, weights, features of images, diffusion models."""
