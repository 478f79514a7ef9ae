"""The paper's own part: the normalised style space, the mean of the generator's own codes in it, and NSCD."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
