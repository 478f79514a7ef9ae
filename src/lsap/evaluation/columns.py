"""Columns of tables: their headings, and numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lsap.values import is_number

NOTHING = "–"
MINUS = "−"


@dataclass(frozen=True)
class Measure:
    """A column of a table.

    Attributes:
        key: of the values in the rows.
        label, unit: its heading.
        better: which direction is better, None where neither is.
    """

    key: str
    label: str
    unit: str = ""
    better: Literal["lower", "higher"] | None = None


def column(values: Sequence[Any], deciding: Sequence[Any] | None = None) -> list[str]:
    """The texts of a table's column: as many decimals everywhere as give its smallest number three digits.

    Args:
        values: numbers, None or text.
        deciding: the values that decide about the decimals; all by default.

    >>> column([0.1085, 0.0237, None])
    ['0.1085', '0.0237', '–']
    """
    sizes = [abs(v) for v in (values if deciding is None else deciding) if isinstance(v, float) and is_number(v) and v]
    if not sizes or min(sizes) < 1e-4 or max(sizes) >= 1e4:
        return [number(value) for value in values]
    decimals = max(0, 2 - math.floor(math.log10(min(sizes))))
    return [
        f"{value:.{decimals}f}".replace("-", MINUS) if isinstance(value, float) and is_number(value) else number(value)
        for value in values
    ]


def number(value: Any, digits: int = 3) -> str:
    """A number with so many significant digits, whole numbers in full, a dash for None.

    >>> number(0.02374), number(128), number(3.2e-6), number(None)
    ('0.0237', '128', '3.20 × 10⁻⁶', '–')
    """
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else f"{MINUS}∞")
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f").replace("-", MINUS)
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if power < -4 or power > 6:
        scaled = f"{value / 10.0**power:.{digits - 1}f}"
        exponent = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{scaled} × 10{exponent}".replace("-", MINUS)
    return f"{value:,.{max(0, digits - 1 - power)}f}".replace(",", "\u202f").replace("-", MINUS)
