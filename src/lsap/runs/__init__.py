"""Work that lasts: run folders, files that are whole or absent, and what a run ran on."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
