"""Frozen judges: how alike two images look, and whether they show the same person or thing.

Every judge takes images [N, 3, H, W] in [-1, 1], has a `label` for tables, and never trains.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
