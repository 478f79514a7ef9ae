"""lsap: latent space alignment for StyleGAN2 inversion."""

__version__ = "0.1.0"
