"""How good inversions are, in numbers: one metric per question, and one function that fills a row of a table.

Every metric keeps sums only, in double precision, so its value does not depend on how the images were cut into batches
or spread over processes. Judges are borrowed: a metric neither saves nor moves them.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection, SumMetric

from lsap.alignment import NSCD, NormalizedStyleSpace
from lsap.errors import BadValue
from lsap.evaluation.codes import CodeDiversity, LayerNSCD
from lsap.evaluation.rows import Row, by_layer, seven_digits
from lsap.pretrained import Embedder
from lsap.stylegan2 import Generator

Distance = Callable[[Tensor, Tensor], Tensor]


class ImageMean(Metric, abc.ABC):
    """Mean over images of one value per image; the base of the metrics that compare pictures.

    Attributes:
        label: what reports call it.
        unit: of its values.
        higher_is_better: the direction that reports mark.
        skipped: images so far that have no value, such as those without a face.

    update(output, images): [N, 3, H, W] each, in [-1, 1].
    compute(): the mean over images that have a value, a scalar; NaN where none has.

    Raises:
        BadValue: the two differ in shape, or a judge has already averaged over the batch.
    """

    full_state_update = False
    label = ""
    unit = ""
    total: Tensor
    count: Tensor
    skipped: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("skipped", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @abc.abstractmethod
    def each(self, output: Tensor, images: Tensor) -> Tensor:
        """The value of every image [N], as `update` counts it; NaN where an image has none."""

    def update(self, output: Tensor, images: Tensor) -> None:
        _same_shape(output, images)
        self.add(self.each(output, images), images)

    def add(self, values: Tensor, images: Tensor) -> None:
        """Take one value per image.

        Raises:
            BadValue: `values` is not [N], as when a judge has already averaged over the batch.
        """
        if values.shape != (len(images),):
            raise BadValue(
                f"{self.label}: the judge returned a tensor of shape {list(values.shape)} for {len(images)} images; "
                f"one value per image is needed, shape [{len(images)}]"
            )
        known = values.detach().double()
        known = known[~known.isnan()]
        self.total += known.sum()
        self.count += len(known)
        self.skipped += len(values) - len(known)

    def compute(self) -> Tensor:
        return (self.total / self.count).float()


class MSE(ImageMean):
    """Mean squared error between images in [-1, 1], as the paper's tables give it (section 5.1).

    On this range the largest possible value is 4.

    update(output, images): [N, 3, H, W] each, in [-1, 1].
    compute(): scalar in [0, 4], lower is better.

    Example:
        >>> metric = MSE()
        >>> metric.update(torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2))
        >>> metric.update(torch.zeros(3, 3, 2, 2), torch.zeros(3, 3, 2, 2))
        >>> metric.compute()
        tensor(0.2500)
    """

    label = "MSE"
    unit = "on [−1, 1]"
    higher_is_better = False

    def each(self, output: Tensor, images: Tensor) -> Tensor:
        return (output.double() - images.double()).square().flatten(1).mean(1)


class PSNR(ImageMean):
    """Mean peak signal-to-noise ratio of images in [-1, 1], whose squared peak is 4.

    The published script takes 2 as the squared peak; its values are 3.01 dB below these. Equal images have no finite
    ratio: they are left out and counted as skipped.

    update(output, images): [N, 3, H, W] each, in [-1, 1].
    compute(): scalar in dB, higher is better; the mean of the images' ratios, not the ratio of their mean error.

    Example:
        >>> metric = PSNR()
        >>> metric.update(torch.ones(1, 3, 2, 2), torch.ones(1, 3, 2, 2) - 0.2)      # an error of 0.04
        >>> metric.compute()
        tensor(20.)
    """

    label = "PSNR"
    unit = "dB"
    higher_is_better = True

    def each(self, output: Tensor, images: Tensor) -> Tensor:
        ratio = 10 * torch.log10(4 / (output.double() - images.double()).square().flatten(1).mean(1))
        return torch.where(ratio.isinf(), torch.nan, ratio)


class LPIPS(ImageMean):
    """Mean learned perceptual distance (Zhang et al. 2018), by whichever trunk is handed in.

    Args:
        distance: (output, images) → [N]. Its `label`, if it has one, names the trunk: values of different trunks
            cannot be compared.

    update(output, images): [N, 3, H, W] each, in [-1, 1].
    compute(): scalar, at least 0, lower is better.
    """

    label = "LPIPS"
    unit = "distance"
    higher_is_better = False

    def __init__(self, distance: Distance, **options: Any) -> None:
        super().__init__(**options)
        self._borrowed = (distance,)  # inside a tuple, a module is neither registered nor saved with the metric
        self.label = getattr(distance, "label", self.label)

    def each(self, output: Tensor, images: Tensor) -> Tensor:
        return self._borrowed[0](output, images)


class Identity(ImageMean):
    """Mean cosine between the embeddings of output and image: do both show the same person (or car, or church)?

    Args:
        embedder: the judge, e.g. ArcFace for faces, MoCo elsewhere; its `label`, if it has one, names it.
        faces: tells where there is a face, images [N, 3, H, W] → [N]; an image without one, or whose output has none,
            is skipped and counted as such. None skips nothing.

    update(output, images): [N, 3, H, W] each, in [-1, 1].
    compute(): scalar in [-1, 1], higher is better; 1 for identical embeddings.
    """

    label = "identity"
    unit = "cosine"
    higher_is_better = True

    def __init__(self, embedder: Embedder, faces: Callable[[Tensor], Tensor] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._borrowed = (embedder, faces)
        self.label = getattr(embedder, "label", self.label)

    def each(self, output: Tensor, images: Tensor) -> Tensor:
        embedder, faces = self._borrowed
        cosine = F.cosine_similarity(embedder.embed(output).double(), embedder.embed(images).double(), dim=1)
        if faces is None:
            return cosine
        shown = (faces(images) & faces(output)).to(cosine.device)
        return torch.where(shown, cosine, torch.nan)


def measures(
    mean: Sequence[Tensor], *, distance: Distance | None = None, embedder: Embedder | None = None
) -> MetricCollection:
    """The scalars of one row, to be fed together: `update(output=…, images=…, styles=…)`.

    Args:
        mean: `NormalizedStyleSpace.mean`, on the device of the styles.
        distance: perceptual distance; without it there is no `lpips`.
        embedder: identity judge; without it there is no `identity`.

    Returns:
        Metrics named mse, lpips, identity, nscd, nscd_raw, diversity. None of them shares state with another.
    """
    metrics: dict[str, Metric] = {"mse": MSE()}
    if distance is not None:
        metrics["lpips"] = LPIPS(distance)
    if embedder is not None:
        metrics["identity"] = Identity(embedder)
    metrics["nscd"] = NSCD(mean)
    metrics["nscd_raw"] = NSCD(mean, anchor="raw")
    metrics["diversity"] = CodeDiversity([len(m) for m in mean])
    return MetricCollection(dict(metrics), compute_groups=False)


def evaluate(
    embed: Callable[[Tensor], Tensor],
    generator: Generator,
    view: Callable[[Tensor], Tensor],
    space: NormalizedStyleSpace,
    loader: Iterable[Mapping[str, Any]],
    *,
    distance: Distance | None = None,
    embedder: Embedder | None = None,
) -> Row:
    """Invert every image of a loader and fill one row of a table.

    Args:
        embed: images [N, 3, H, W] in [-1, 1] → codes [N, L, C]; a module is put into evaluation mode meanwhile.
        generator: draws the codes, with its fixed noise.
        view: generator output → the image that is compared with the input.
        space: the generator's normalised style space.
        loader: batches {"image": [N, 3, H, W]}; every image counts once. Under distributed training each process may
            bring its own share, unpadded.
        distance, embedder: the judges, on the generator's device.

    Returns:
        mse, lpips, identity, nscd, nscd_raw, diversity (None where there is no judge), n (images) and nscd_layers
        (layer name → NSCD).

    Raises:
        BadValue: the loader is empty.
    """

    def invert(images: Tensor) -> tuple[Tensor, Tensor]:
        codes = embed(images)
        return codes, view(generator(codes))

    with _evaluating(embed):
        return _measure(invert, space, loader, generator.latent_avg.device, distance, embedder)


def evaluate_mean_latent(
    generator: Generator,
    view: Callable[[Tensor], Tensor],
    space: NormalizedStyleSpace,
    loader: Iterable[Mapping[str, Any]],
    *,
    distance: Distance | None = None,
    embedder: Embedder | None = None,
) -> Row:
    """The row of an inversion that never looks at the image: every code is `latent_avg`. What any encoder must beat."""
    with torch.no_grad():
        code = generator.latent_avg[None]
        picture = view(generator(code))

    def invert(images: Tensor) -> tuple[Tensor, Tensor]:
        return code.expand(len(images), -1), picture.expand(len(images), -1, -1, -1)

    return _measure(invert, space, loader, generator.latent_avg.device, distance, embedder)


def labels(*, distance: Distance | None = None, embedder: Embedder | None = None) -> dict[str, str]:
    """What reports call the judges' columns: {"lpips": "LPIPS, demo trunk", …}."""
    judged: dict[str, ImageMean] = {}
    if distance is not None:
        judged["lpips"] = LPIPS(distance)
    if embedder is not None:
        judged["identity"] = Identity(embedder)
    return {name: metric.label for name, metric in judged.items()}


def _measure(
    invert: Callable[[Tensor], tuple[Tensor, Tensor]],
    space: NormalizedStyleSpace,
    loader: Iterable[Mapping[str, Any]],
    device: torch.device,
    distance: Distance | None,
    embedder: Embedder | None,
) -> Row:
    mean = [m.to(device) for m in space.mean]
    scalars = measures(mean, distance=distance, embedder=embedder).to(device)
    layers = LayerNSCD(mean).to(device)
    counter = SumMetric().to(device)
    counter.update(0)  # a process may have no share of the images
    with torch.no_grad():
        for batch in loader:
            images = batch["image"].to(device)
            codes, output = invert(images)
            styles = space.styles(codes)
            scalars.update(output=output, images=images, styles=styles)
            layers.update(styles)
            counter.update(len(images))
    count = int(counter.compute())
    if not count:
        raise BadValue("there is no image to evaluate; give a folder with images, or a larger held-out share")
    row: Row = dict.fromkeys(("mse", "lpips", "identity", "nscd", "nscd_raw", "diversity"))
    row |= {name: seven_digits(value) for name, value in scalars.compute().items()}
    row["nscd_layers"] = by_layer(space, layers.compute())
    row["n"] = count
    return row


def _same_shape(output: Tensor, images: Tensor) -> None:
    if output.shape != images.shape:
        raise BadValue(
            f"outputs are {'×'.join(map(str, output.shape[1:]))} ({len(output)} of them) and images "
            f"{'×'.join(map(str, images.shape[1:]))} ({len(images)}); view and data must have one size"
        )


@contextmanager
def _evaluating(embed: object) -> Iterator[None]:
    """Evaluation mode for the while, where `embed` is a module; each part of it then goes back to its own."""
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
