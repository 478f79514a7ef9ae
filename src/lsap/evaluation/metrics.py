"""Metrics of single images: of pictures by a mapping of metrics, of codes by their normalised styles.

Imports torch alone, so that scoring a file of codes starts quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from lsap.alignment import nscd
from lsap.errors import BadValue

if TYPE_CHECKING:
    from lsap.pretrained import Embedder

ImageMetric = Callable[[Tensor, Tensor], Tensor]  # (output, images), [N, 3, H, W] each in [-1, 1] → [N]
Faces = Callable[[Tensor], Tensor]  # images [N, 3, H, W] in [-1, 1] → [N], true where there is a face


def mse(output: Tensor, images: Tensor) -> Tensor:
    """Mean squared error [N] of images in [-1, 1], as the paper's tables give it (section 5.1).

    Range: [0, 4], lower is better.

    Example:
        >>> mse(torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2))
        tensor([1.], dtype=torch.float64)
    """
    return (output.double() - images.double()).square().flatten(1).mean(1)


def psnr(output: Tensor, images: Tensor) -> Tensor:
    """Peak signal-to-noise ratio [N] in dB of images in [-1, 1], whose squared peak is 4; higher is better.

    The published script takes 2 as the squared peak; its values are 3.01 dB below these. Equal images have no finite
    ratio and get NaN. A mean over images is the mean of their ratios, not the ratio of their mean error.

    Example:
        >>> psnr(torch.full((1, 3, 2, 2), 0.8), torch.ones(1, 3, 2, 2)).round()      # an error of 0.04
        tensor([20.], dtype=torch.float64)
    """
    ratio = 10 * torch.log10(4 / mse(output, images))
    return torch.where(ratio.isinf(), torch.nan, ratio)


class Identity:
    """Cosine between the embeddings of output and image, in [-1, 1]; higher is better.

    Args:
        embedder: the network, e.g. ArcFace for faces, MoCo elsewhere; its `label`, if it has one, names the metric.
        faces: detects faces; where image or output has none, the value is NaN. None: every image has a value.
    """

    def __init__(self, embedder: Embedder, faces: Faces | None = None) -> None:
        self.embedder, self.faces = embedder, faces
        self.label = str(getattr(embedder, "label", "identity"))

    def __call__(self, output: Tensor, images: Tensor) -> Tensor:
        embed = self.embedder.embed
        cosine = F.cosine_similarity(embed(output).double(), embed(images).double(), dim=1)
        if self.faces is None:
            return cosine
        shown = (self.faces(images) & self.faces(output)).to(cosine.device)
        return torch.where(shown, cosine, torch.nan)


def image_metrics(
    distance: ImageMetric | None = None, embedder: Embedder | None = None, faces: Faces | None = None
) -> dict[str, ImageMetric]:
    """The metrics of pictures by the name of their column: `mse`, `lpips` with a distance, `identity` with an embedder.

    Args:
        distance: perceptual distance (output, images) → [N], at least 0. Its `label` names the trunk: values of
            different trunks cannot be compared.
        embedder, faces: see `Identity`.
    """
    found: dict[str, ImageMetric] = {"mse": mse}
    if distance is not None:
        found["lpips"] = distance
    if embedder is not None:
        found["identity"] = Identity(embedder, faces)
    return found


def labels(metrics: Mapping[str, ImageMetric]) -> dict[str, str]:
    """Titles of the columns that depend on a network: {"lpips": "LPIPS, demo trunk", …}."""
    usual = {"lpips": "LPIPS", "identity": "identity"}
    return {name: str(getattr(metrics[name], "label", usual[name])) for name in usual if name in metrics}


def image_values(metrics: Mapping[str, ImageMetric], output: Tensor, images: Tensor) -> dict[str, Tensor]:
    """Values [N] of every metric in double precision; NaN where an image has none.

    Args:
        metrics: name → (output, images) → [N]; see `image_metrics`.
        output, images: [N, 3, H, W] each, in [-1, 1], on one device.

    Raises:
        BadValue: output and images differ in shape, or a metric returns anything but one value per image.
    """
    if output.shape != images.shape:
        raise BadValue(
            f"outputs are {'×'.join(map(str, output.shape[1:]))} ({len(output)} of them) and images "
            f"{'×'.join(map(str, images.shape[1:]))} ({len(images)}); view and data must have one size"
        )
    values = {name: metric(output, images).detach().double() for name, metric in metrics.items()}
    for name, found in values.items():
        if found.shape != (len(images),):
            raise BadValue(
                f"{name}: the metric returned a tensor of shape {list(found.shape)} for {len(images)} images; "
                f"one value per image is needed, shape [{len(images)}]"
            )
    return values


def code_values(styles: Sequence[Tensor], mean: Sequence[Tensor]) -> dict[str, Tensor]:
    """`nscd` (unit anchor) and `nscd_raw` (Eq. 12) of every code, [N] each; see `lsap.alignment.nscd`.

    Args:
        styles: raw styles, one [N, C_l] per layer.
        mean: `NormalizedStyleSpace.mean`, on their device.
    """
    return {"nscd": nscd(styles, mean), "nscd_raw": nscd(styles, mean, anchor="raw")}
