"""What is minimised: terms over a `LossInputs`, and their weighted composition (Eq. 16)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
