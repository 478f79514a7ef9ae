"""Numerical comparisons that hold on every processor, and a table of their margins.

Sums are taken in another order where vector units or thread counts differ, so numbers are compared by relative L2. A
tolerance is about ten times the largest error seen with `ATEN_CPU_CAPABILITY` avx2 and default, `ONEDNN_MAX_CPU_ISA`
AVX2 and SSE41, and one and two threads (`OMP_NUM_THREADS`). To measure again, and to tabulate what was measured:

    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 LSAP_TEST_ERRORS=avx2.tsv python -m pytest -n 2
    python tests/comparison.py avx2.tsv ...
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from golden import fill


def assert_close_l2(actual: object, expected: object, tolerance: float, *, floor: float = 1e-8, name: str = "") -> None:
    """Assert that two arrays of one shape agree in relative L2.

    The error is the root mean square of `actual - expected` over that of `expected`, or over `floor` where `expected`
    is smaller. Both are tensors, arrays, numbers or lists of numbers, compared in double precision.

    Raises:
        AssertionError: the shapes differ, or the error is above `tolerance` or not a number.
    """
    ours, theirs = (torch.as_tensor(value).detach().cpu().double() for value in (actual, expected))
    assert ours.shape == theirs.shape, f"{name}: shape {list(ours.shape)}, expected {list(theirs.shape)}"
    distance, size = ((x.square().mean().sqrt().item() if x.numel() else 0.0) for x in (ours - theirs, theirs))
    _check(name, distance / max(size, floor), tolerance)


def assert_published(case: str | Path | fill.Spec, name: str, value: object, tolerance: float) -> None:
    """Assert that `value` agrees with an output of a golden case in relative L2; see `golden.fill.check`.

    Raises:
        AssertionError: the error is above `tolerance` or not a number.
        ValueError: the shape is not that of the output.
    """
    spec = fill.load(case)
    _check(f"{spec['case']}: {name}", fill.check(spec, name, value, show=False).rel_l2, tolerance)


def _check(name: str, error: float, tolerance: float) -> None:
    if path := os.environ.get("LSAP_TEST_ERRORS"):
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rsplit(" ", 1)[0]
        with open(path, "a") as file:  # one short write per line, so that several workers can share a file
            file.write(f"{test}\t{name}\t{error:.3e}\t{tolerance:.0e}\n")
    assert error <= tolerance, f"{name or 'values'}: relative L2 error {error:.2e}, tolerance {tolerance:.0e}"


def table(paths: list[Path]) -> str:
    """Markdown: the comparison with the smallest margin of every test file, over all recordings given."""
    worst: dict[str, tuple[float, str]] = {}
    counts: dict[str, int] = {}
    for line in (line for path in paths for line in path.read_text().splitlines()):
        test, name, error, tolerance = line.split("\t")
        file, _, function = test.removeprefix("tests/").partition("::")
        counts[file] = counts.get(file, 0) + 1
        row = f"{counts[file]} | {error} | {tolerance} | {float(tolerance) / max(float(error), 1e-16):.3g}"
        share = float(error) / float(tolerance)
        if file not in worst or share > worst[file][0]:
            worst[file] = (share, f"{row.split(' | ', 1)[1]} | {function} {name}".rstrip())
    head = "| file | comparisons | worst error | tolerance | margin | where |\n|---|---|---|---|---|---|"
    ordered = sorted(worst, key=lambda file: -worst[file][0])
    return "\n".join([head, *(f"| {file} | {counts[file]} | {worst[file][1]} |" for file in ordered)])


if __name__ == "__main__":
    print(table([Path(name) for name in sys.argv[1:]]))
