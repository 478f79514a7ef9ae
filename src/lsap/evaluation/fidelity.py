"""How good inversions are, in numbers: one metric per question, and one function that fills a row of a table.

Every metric keeps sums only, in double precision, so its value does not depend on how the images were cut into batches
or spread over processes. Judges are borrowed: a metric neither saves nor moves them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection, SumMetric

from lsap.alignment import NSCD, NormalizedStyleSpace, nscd
from lsap.errors import BadValue
from lsap.features import Embedder
from lsap.generator import Generator

Distance = Callable[[Tensor, Tensor], Tensor]
Row = dict[str, Any]


class ImageMean(Metric):
    """Mean over images of one value per image; the base of the metrics that compare pictures.

    Attributes:
        label: what reports call it.
        unit: of its values.
        higher_is_better: the direction that reports mark.
    """

    full_state_update = False
    label = ""
    unit = ""
    total: Tensor
    count: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

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
        self.total += values.detach().double().sum()
        self.count += len(images)

    def compute(self) -> Tensor:
        """The mean, a scalar; NaN before any image has come."""
        return (self.total / self.count).float()


class MSE(ImageMean):
    """Mean squared error between images in [-1, 1], as the paper's tables give it (section 5.1).

    On this range the largest possible value is 4; a PSNR from it takes 4 as the squared peak.

    update(output, images): [N, 3, H, W] each, in [-1, 1].
    compute(): scalar in [0, 4], lower is better.

    Raises:
        BadValue: the two differ in shape.

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

    def update(self, output: Tensor, images: Tensor) -> None:
        _same_shape(output, images)
        self.add((output.double() - images.double()).square().flatten(1).mean(1), images)


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

    def update(self, output: Tensor, images: Tensor) -> None:
        _same_shape(output, images)
        self.add(self._borrowed[0](output, images), images)


class Identity(ImageMean):
    """Mean cosine between the embeddings of output and image: do both show the same person (or car, or church)?

    Args:
        embedder: the judge, e.g. ArcFace for faces, MoCo elsewhere; its `label`, if it has one, names it.

    update(output, images): [N, 3, H, W] each, in [-1, 1].
    compute(): scalar in [-1, 1], higher is better; 1 for identical embeddings.
    """

    label = "identity"
    unit = "cosine"
    higher_is_better = True

    def __init__(self, embedder: Embedder, **options: Any) -> None:
        super().__init__(**options)
        self._borrowed = (embedder,)
        self.label = getattr(embedder, "label", self.label)

    def update(self, output: Tensor, images: Tensor) -> None:
        _same_shape(output, images)
        embed = self._borrowed[0].embed
        self.add(F.cosine_similarity(embed(output).double(), embed(images).double(), dim=1), images)


class LayerNSCD(Metric):
    """NSCD of every layer apart (Eq. 12); its mean over layers is the score `NSCD`.

    Worth a look because layers differ: the last ToRGB spreads widest and outweighs the convolutions in the mean.

    Args:
        mean: raw mean normalised style per layer, [C_l] each; see `NormalizedStyleSpace.mean`.

    update(styles): raw styles, one [N, C_l] tensor per layer.
    compute(): [layers], each in [0, 2], lower is nearer to the mean.
    """

    full_state_update = False
    higher_is_better = False
    label = "NSCD by layer"
    unit = "1 − cosine"
    total: Tensor
    count: Tensor

    def __init__(self, mean: Sequence[Tensor], **options: Any) -> None:
        super().__init__(**options)
        self.mean = tuple(mean)
        self.add_state("total", torch.zeros(len(self.mean), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, styles: Sequence[Tensor]) -> None:
        mean = [m.to(styles[0].device) for m in self.mean]
        values = nscd(styles, mean, reduction="none")
        self.total += values.detach().double().sum(0)
        self.count += len(values)

    def compute(self) -> Tensor:
        return (self.total / self.count).float()


class CodeDiversity(Metric):
    """How varied a set of codes is: the spread of their unit styles, averaged over layers.

    Per layer, the mean squared distance of the unit styles to their own mean, which is 1 − ‖mean‖². A set that has
    collapsed to one code gives 0; styles in all directions give 1. Read it beside the generator's own samples: a low
    NSCD is collapse only if the diversity has fallen with it. For the samples it equals their raw NSCD, by definition.
    A small set is expected (n − 1)/n of a large one's value.

    Args:
        widths: C_l of every layer of the style space, in order.

    update(styles): raw styles, one [N, C_l] tensor per layer; they are normalised here.
    compute(): scalar in [0, 1], unitless; neither direction is better, the samples' own value is the reference.

    Raises:
        BadValue: layer widths differ from `widths`.

    Example:
        >>> metric = CodeDiversity([2])
        >>> metric.update([torch.tensor([[1.0, 0.0], [0.0, 3.0]])])           # at a right angle; length is no matter
        >>> metric.compute()
        tensor(0.5000)
    """

    full_state_update = False
    higher_is_better = None
    label = "code diversity"
    unit = "1 − ‖mean‖²"
    count: Tensor

    def __init__(self, widths: Sequence[int], **options: Any) -> None:
        super().__init__(**options)
        self.widths = tuple(widths)
        for layer, width in enumerate(self.widths):
            self.add_state(f"sum_{layer}", torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, styles: Sequence[Tensor]) -> None:
        widths = tuple(s.shape[-1] for s in styles)
        if widths != self.widths:
            raise BadValue(f"styles have the widths {list(widths)}, but this style space has {list(self.widths)}")
        for layer, style in enumerate(styles):
            getattr(self, f"sum_{layer}").add_(F.normalize(style.detach().double(), dim=1).sum(0))
        self.count += len(styles[0])

    def compute(self) -> Tensor:
        sums = [getattr(self, f"sum_{layer}") for layer in range(len(self.widths))]
        spread = torch.stack([1 - (s / self.count).square().sum() for s in sums])
        return spread.clamp(min=0).mean().float()  # a single code may round below 0


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


def synthetic_row(space: NormalizedStyleSpace) -> Row:
    """The row of the generator's own samples, from the lengths of the mean styles alone; they reconstruct nothing.

    Unit NSCD 1 − ‖μ_l‖ and raw NSCD 1 − ‖μ_l‖² (Eq. 12, averaged over layers); their diversity is the latter.
    """
    lengths = torch.stack([m.double().norm() for m in space.mean])
    raw = seven_digits((1 - lengths.square()).mean())
    return {
        "mse": None,
        "lpips": None,
        "identity": None,
        "nscd": seven_digits((1 - lengths).mean()),
        "nscd_raw": raw,
        "diversity": raw,
        "n": space.samples,
        "nscd_layers": _by_layer(space, 1 - lengths),
    }


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
    row["nscd_layers"] = _by_layer(space, layers.compute())
    row["n"] = count
    return row


def _by_layer(space: NormalizedStyleSpace, values: Tensor) -> dict[str, float]:
    return {name: seven_digits(value) for name, value in zip(space.names, values, strict=True)}


def seven_digits(value: Tensor | float) -> float:
    """A number for a results file: seven digits, all that single precision holds."""
    return float(f"{float(value):.7g}")


def _same_shape(output: Tensor, images: Tensor) -> None:
    if output.shape != images.shape:
        raise BadValue(
            f"outputs are {'×'.join(map(str, output.shape[1:]))} ({len(output)} of them) and images "
            f"{'×'.join(map(str, images.shape[1:]))} ({len(images)}); view and data must have one size"
        )


@contextmanager
def _evaluating(embed: object) -> Iterator[None]:
    """Evaluation mode for the while, where `embed` is a module in training."""
    if not (isinstance(embed, nn.Module) and embed.training):
        yield
        return
    embed.eval()
    try:
        yield
    finally:
        embed.train()
