"""lsap: latent space alignment for StyleGAN2 inversion.

`lsap.load("demo")` is the way in from Python; `python -m lsap.<verb>` from a shell. What is named here is imported when
it is first asked for, so that `import lsap` by itself loads neither PyTorch nor anything else.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsap.api.image_inputs import Pictures
    from lsap.api.inverter import Inverter
    from lsap.api.loading import load

__version__ = "0.2.0"
__all__ = ["Inverter", "Pictures", "load"]

_PLACES = {
    "Inverter": "lsap.api.inverter:Inverter",
    "Pictures": "lsap.api.image_inputs:Pictures",
    "load": "lsap.api.loading:load",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'lsap' has no attribute {name!r}")
    return resolve_name(_PLACES[name])


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
