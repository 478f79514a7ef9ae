"""The style space S, its normalisation S^N and where in it the generator's own codes lie (LSAP, 4.1 and 4.2)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from lsap.checkpoints import fingerprint, read_card, read_state, write_state
from lsap.errors import BadValue, LsapError
from lsap.stylegan2 import StyleGenerator
from lsap.values import COUNT, require

log = logging.getLogger(__name__)

Layers = Literal["published", "convolutions"]

BLOCK = 4096  # codes drawn at once; fixed, so that the stream of codes does not depend on the chunk


@overload
def normalize(styles: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
@overload
def normalize(styles: Sequence[Tensor]) -> list[Tensor]: ...
def normalize(styles: Mapping[str, Tensor] | Sequence[Tensor]) -> dict[str, Tensor] | list[Tensor]:
    """From S to S^N: every layer's style divided by its own length (Eq. 6).

    Args:
        styles: raw styles [N, C_l] per layer, by name or in a list.

    Returns:
        The same container with rows of unit length.
    """
    if isinstance(styles, Mapping):
        return {name: F.normalize(style, dim=1) for name, style in styles.items()}
    return [F.normalize(style, dim=1) for style in styles]


def style_layers(generator: StyleGenerator, which: Layers = "published") -> tuple[str, ...]:
    """The layers that span the style space, in order.

    Args:
        generator: the network whose layers they are.
        which: "published" takes every convolution and the last ToRGB, L layers, of which layer i reads row i of W+ (the
            released code); "convolutions" leaves that ToRGB out, whose style's length does reach the image.

    Raises:
        BadValue: another choice.
    """
    if which not in ("published", "convolutions"):
        raise BadValue(f"layers={which!r}; accepted: 'published', 'convolutions'")
    last = None if which == "convolutions" else generator.layers[-1]
    return tuple(layer.name for layer in generator.layers if layer.demodulates or layer is last)


class NormalizedStyleSpace:
    """A generator's style space and the mean of its own normalised styles, mu_syn (Eq. 12).

    Args:
        generator: the generator; its device is where means and styles live.
        samples: random codes that the mean is taken over (k = 50 000 in the paper, 100 000 in the released code).
        seed: of those codes.
        layers: which layers span the space; see `style_layers`.
        chunk: codes mapped at once, at most 4096. A matter of memory: the mean does not depend on it.
        cache: folder for means that were measured before; None measures anew. A file serves only the generator whose
            fingerprint it carries, and a damaged one is measured again.

    Attributes:
        names: the layers in order.
        norms: |mu_l| of every layer, in [0, 1]: how closely the generator's own codes gather around their mean.

    Raises:
        BadValue: samples or chunk below 1, or an unknown choice of layers.
    """

    def __init__(
        self,
        generator: StyleGenerator,
        *,
        samples: int = 50_000,
        seed: int = 0,
        layers: Layers = "published",
        chunk: int = 512,
        cache: str | Path | None = None,
    ) -> None:
        require(COUNT, {"samples": samples, "chunk": chunk}, "space.")
        self.generator = generator
        self.names = style_layers(generator, layers)
        self.samples, self.seed, self.layers = samples, seed, layers
        means = self._measure(chunk) if cache is None else self._cached(Path(cache), chunk)
        self.norms = [mean.norm().item() for mean in means]
        self._means = {torch.device("cpu"): means}

    @property
    def mean(self) -> list[Tensor]:
        """mu_l [C_l] of every layer: the mean of unit styles, not normalised again, on the generator's device."""
        device = self.generator.latent_avg.device
        if device not in self._means:
            self._means[device] = [mean.to(device) for mean in self._means[torch.device("cpu")]]
        return self._means[device]

    @property
    def synthetic(self) -> dict[str, float]:
        """NSCD of the generator's own samples, by anchor: the row that every score should be read against.

        Averaged over samples, <s, mu> is |mu|^2. So per layer 1 - |mu| ("unit") and 1 - |mu|^2 ("raw"), then the mean
        over layers; no sample is drawn.
        """
        norms = torch.tensor(self.norms, dtype=torch.float64)
        return {"unit": (1 - norms).mean().item(), "raw": (1 - norms.square()).mean().item()}

    def styles(self, codes: Tensor) -> list[Tensor]:
        """Raw styles [N, C_l] of the space's layers, in order, of w [N, C] or w_plus [N, L, C]."""
        styles = self.generator.styles(codes, self.names)
        return [styles[name] for name in self.names]

    @torch.no_grad()
    def _measure(self, chunk: int) -> list[Tensor]:
        """The mean unit style of every layer, on the CPU in float32; summed in float64."""
        rng = torch.Generator().manual_seed(self.seed)
        device = self.generator.latent_avg.device
        totals: list[Tensor] | None = None
        for first in range(0, self.samples, BLOCK):
            z = torch.randn(min(BLOCK, self.samples - first), self.generator.style_dim, generator=rng)
            for part in z.split(chunk):
                units = normalize(self.styles(self.generator.mapping(part.to(device))))
                sums = [unit.double().sum(0).cpu() for unit in units]
                totals = sums if totals is None else [a + b for a, b in zip(totals, sums, strict=True)]
        assert totals is not None
        return [(total / self.samples).float() for total in totals]

    def _cached(self, folder: Path, chunk: int) -> list[Tensor]:
        """The means of an earlier run with the same generator and settings, else measured now and kept."""
        stamp = fingerprint(self.generator)
        card = {"generator": stamp, "samples": str(self.samples), "seed": str(self.seed), "layers": self.layers}
        path = folder / f"{stamp[:16]}-{self.layers}-{self.samples}-{self.seed}.safetensors"
        if path.is_file():
            try:
                if read_card(path) == card:
                    state = read_state(path)
                    return [state[name] for name in self.names]
                log.warning("%s belongs to another generator or other settings; the mean style is measured again", path)
            except (LsapError, KeyError) as error:
                log.warning("%s; the mean style is measured again", error)
        means = self._measure(chunk)
        try:
            write_state(path, dict(zip(self.names, means, strict=True)), card)
        except LsapError as error:  # a cache saves time; it is no reason to stop
            log.warning("the mean style is not kept for the next run: %s", error)
        return means
