"""Whether an image is probably outside the domain of a generator, by the error of its inversion.

The error is compared with a reference that the generator gives by itself: the error of the mean latent's image on
samples of the generator. An inversion with an error near that has not found the image. The mean image's error on the
same input is not used: it is large for an image of another domain, so that the ratio of the two stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lsap.stylegan2 import StyleGenerator

SAMPLES = 32  # other samples change the reference by 7 % (MSE) and 2 % (LPIPS), one standard deviation, demo generator
RATIO = 0.6  # docs/app.md has the rates of false and missed warnings on the demo
NAMED = 3  # images that a message names


@torch.no_grad()
def errors(output: Tensor, images: Tensor, distance: Callable[[Tensor, Tensor], Tensor] | None) -> dict[str, Tensor]:
    """Errors of every image, [N] each: `mse`, and `lpips` where there is a perceptual distance.

    Args:
        output, images: [N, 3, H, W] each, in [-1, 1], on the device of the distance.
        distance: (output, images) → [N].
    """
    found = {"mse": (output - images).square().mean((1, 2, 3))}
    return found if distance is None else found | {"lpips": distance(output, images)}


@torch.no_grad()
def reference_errors(
    generator: StyleGenerator,
    view: Callable[[Tensor], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor] | None,
    seed: int = 0,
) -> dict[str, float]:
    """Mean `errors` of the mean latent's image on 32 samples of the generator, drawn by `seed`.

    Args:
        generator: with its fixed noise.
        view: generator output → image as it is compared.
        distance: as in `errors`.
    """
    mean = view(generator(generator.latent_avg[None]))
    codes = generator.sample_w(SAMPLES, torch.Generator().manual_seed(seed))
    found = [errors(mean, view(generator(code[None])), distance) for code in codes]  # one at a time: 1024 px are large
    return {name: torch.cat([each[name] for each in found]).mean().item() for name in found[0]}


def error_ratio(row: Mapping[str, Any], reference: Mapping[str, float]) -> float:
    """The error of an inversion over the reference: the mean of the ratios of MSE and, where both have it, LPIPS.

    Args:
        row: `mse` and `lpips` of an image; None or absent where it was not measured.
        reference: as `reference_errors` returns it.
    """
    ratios = [row[name] / max(value, 1e-12) for name, value in reference.items() if row.get(name) is not None]
    return float(sum(ratios) / len(ratios)) if ratios else 0.0


def outside(rows: Mapping[str, Mapping[str, Any]], reference: Mapping[str, float], domain: str) -> str | None:
    """One line that names the images probably outside the domain; None where there are none.

    Args:
        rows: image name → its `mse` and `lpips`.
        reference: as `reference_errors` returns it.
        domain: its name, for the line.

    Example:
        >>> reference = {"mse": 0.16, "lpips": 1.0}
        >>> print(outside({"photo.jpg": {"mse": 0.15, "lpips": 0.92}}, reference, "demo"))
        photo.jpg: the error of its inversion is near or above that of the mean image (error ratio 0.93). The \
picture is probably outside domain=demo
        >>> print(outside({"portrait.png": {"mse": 0.03, "lpips": 0.4}}, reference, "demo"))
        None
    """
    ratios = {name: error_ratio(row, reference) for name, row in rows.items()}
    found = sorted((name for name in ratios if ratios[name] > RATIO), key=lambda name: -ratios[name])
    if not found:
        return None
    if len(found) == 1:
        (name,) = found
        return (
            f"{name}: the error of its inversion is near or above that of the mean image (error ratio "
            f"{ratios[name]:.2f}). The picture is probably outside domain={domain}"
        )
    listed = ", ".join(f"{name} {ratios[name]:.2f}" for name in found[:NAMED]) + (", …" if len(found) > NAMED else "")
    return (
        f"{len(found)} of {len(rows)} images are probably outside domain={domain}: the errors of their inversions are "
        f"near or above that of the mean image (error ratios: {listed})"
    )
