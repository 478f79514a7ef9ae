"""Inverting a set of images by an encoder, and the row of numbers that it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lsap.alignment import NormalizedStyleSpace
from lsap.evaluation.metrics import ImageMetric, code_values, image_values
from lsap.evaluation.rows import MEASURES, Row
from lsap.evaluation.set_metrics import SetMetrics
from lsap.stylegan2 import StyleGenerator


def evaluate(
    embed: Callable[[Tensor], Tensor],
    generator: StyleGenerator,
    view: Callable[[Tensor], Tensor],
    space: NormalizedStyleSpace,
    loader: Iterable[Mapping[str, Any]],
    metrics: Mapping[str, ImageMetric],
) -> Row:
    """Invert every image of a loader and fill one row of a table.

    Args:
        embed: images [N, 3, H, W] in [-1, 1] → codes [N, L, C]; a module is put into evaluation mode meanwhile.
        generator: draws the codes, with its fixed noise.
        view: generator output → the image that is compared with the input.
        space: the generator's normalised style space.
        loader: batches {"image": [N, 3, H, W]}; every image counts once. Under distributed training each process may
            bring its own share, unpadded.
        metrics: of pictures, as `image_metrics` gives them, their networks on the generator's device.

    Returns:
        mse, lpips, identity (None without its metric), nscd, nscd_raw, diversity, n (images) and nscd_layers (layer
        name → NSCD).

    Raises:
        BadValue: the loader is empty.
    """

    def invert(images: Tensor) -> tuple[Tensor, Tensor]:
        codes = embed(images)
        return codes, view(generator(codes))

    with _evaluating(embed):
        return _measure(invert, space, loader, metrics)


def evaluate_mean_latent(
    generator: StyleGenerator,
    view: Callable[[Tensor], Tensor],
    space: NormalizedStyleSpace,
    loader: Iterable[Mapping[str, Any]],
    metrics: Mapping[str, ImageMetric],
) -> Row:
    """The row of the mean latent as the code of every image: the baseline that any encoder must beat."""
    with torch.no_grad():
        code = generator.latent_avg[None]
        picture = view(generator(code))

    def invert(images: Tensor) -> tuple[Tensor, Tensor]:
        return code.expand(len(images), -1), picture.expand(len(images), -1, -1, -1)

    return _measure(invert, space, loader, metrics)


def _measure(
    invert: Callable[[Tensor], tuple[Tensor, Tensor]],
    space: NormalizedStyleSpace,
    loader: Iterable[Mapping[str, Any]],
    metrics: Mapping[str, ImageMetric],
) -> Row:
    found = SetMetrics(space, MEASURES)
    with torch.no_grad():
        for batch in loader:
            images = batch["image"].to(space.mean[0].device)
            codes, output = invert(images)
            styles = space.styles(codes)
            found.update(image_values(metrics, output, images) | code_values(styles, space.mean), styles)
    return found.compute()


@contextmanager
def _evaluating(embed: object) -> Iterator[None]:
    """Evaluation mode, where `embed` is a module; afterwards each of its submodules is in its own mode again."""
    if not isinstance(embed, nn.Module):
        yield
        return
    modes = {part: part.training for part in embed.modules()}
    embed.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
