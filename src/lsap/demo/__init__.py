"""The demo domain: portraits that the project renders itself, and the generator and judges that it makes of them."""

from lsap.demo.factors import FACTORS, Factor
from lsap.demo.portraits import render
from lsap.demo.source import Portraits

__all__ = ["FACTORS", "Factor", "Portraits", "render"]
