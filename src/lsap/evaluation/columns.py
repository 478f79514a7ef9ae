"""Columns of tables: their headings, and numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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


def measures(labels: Mapping[str, str], edits: Sequence[str] = ()) -> list[Measure]:
    """The columns of a table of inversions, and of their edits.

    Args:
        labels: key of the column → label, for columns that a metric network gives its name; see `fidelity.labels`.
        edits: names of the edits.
    """
    named = {key: capitalized(label) for key, label in labels.items()}
    columns = [
        Measure("mse", "MSE", "on [−1, 1]", "lower"),
        Measure("psnr", "PSNR", "dB, peak² 4", "higher"),
        Measure("lpips", named.get("lpips", "LPIPS"), "distance", "lower"),
        Measure("identity", named.get("identity", "Identity"), "cosine", "higher"),
        Measure("fid", named.get("fid", "FID"), "distance", "lower"),
        Measure("nscd", "NSCD", "1 − cosine", "lower"),
        Measure("nscd_raw", "Raw NSCD", "Eq. 12", "lower"),
        Measure("diversity", "Code diversity", "1 − ‖mean‖²"),
        Measure("factor_error", "Factor error", "σ of factors", "lower"),
        Measure("seconds", "Time", "s per image, as run", "lower"),
    ]
    for edit in edits:
        columns += [
            Measure(f"strength/{edit}", f"{edit}: strength", "of the direction"),
            Measure(f"effect/{edit}", f"{edit}: effect", "of the reader"),
            Measure(f"leakage/{edit}", f"{edit}: leakage", "of the reader", "lower"),
            Measure(f"excess/{edit}", f"{edit}: excess", "σ of factors", "lower"),
            Measure(f"distance/{edit}", f"{edit}: error", "MSE to the true edit", "lower"),
            Measure(f"identity/{edit}", f"{edit}: identity", "cosine to the image", "higher"),
            Measure(f"lec/{edit}", f"{edit}: LEC (published rule)", "in W+", "lower"),
            Measure(f"lec_mean/{edit}", f"{edit}: LEC (plain mean)", "in W+", "lower"),
        ]
    return columns


def capitalized(text: str) -> str:
    """The text with its first letter in upper case, the others unchanged."""
    return text[:1].upper() + text[1:]


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
