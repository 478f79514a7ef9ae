"""StyleGAN2 in plain PyTorch: layers addressed by name, styles open to view, no compiled extension."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
