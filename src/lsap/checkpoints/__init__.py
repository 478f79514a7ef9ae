"""Files that other programs made, and our own: read safely, checked, named as the rest of lsap names things."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
