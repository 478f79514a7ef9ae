"""The StyleGAN2 generator (arXiv:1912.04958, skip architecture), addressed by layer names.

Codes become styles, styles become an image; both halves can be called alone, so that alignment can look at the styles
and an edit can change them. Features are read, added to or scaled through `taps`, by the name of their layer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from lsap.errors import BadValue, nearest
from lsap.stylegan2 import ops
from lsap.stylegan2.layers import EqualLinear, Modulated, Noise, StyledConv, StyledUp, Tap, ToRGB

PUBLISHED_CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}


@dataclass(frozen=True)
class StyledLayer:
    """What is known of one modulated layer.

    name: "conv4", "rgb4", "up8", "conv8", "rgb8", ... up to the generator's size.
    kind: "conv" and "up" (which doubles the resolution) are demodulated, "rgb" is not.
    resolution: pixels of its output.
    row: the row of W+ that it reads; a ToRGB shares its row with the up convolution that follows.
    width: length of its style, which is its number of input channels.
    channels: its number of output channels.
    demodulates: whether the length of its style is divided out (Property 1 of the LSAP paper).
    """

    name: str
    kind: Literal["conv", "up", "rgb"]
    resolution: int
    row: int
    width: int
    channels: int
    demodulates: bool


def styled_layers(size: int, channels: Mapping[int, int]) -> tuple[StyledLayer, ...]:
    """The modulated layers of a generator in the order in which they run."""
    layers = [
        StyledLayer("conv4", "conv", 4, 0, channels[4], channels[4], True),
        StyledLayer("rgb4", "rgb", 4, 1, channels[4], 3, False),
    ]
    for exponent in range(3, size.bit_length()):
        r, row = 2**exponent, 2 * exponent - 5
        layers += [
            StyledLayer(f"up{r}", "up", r, row, channels[r // 2], channels[r], True),
            StyledLayer(f"conv{r}", "conv", r, row + 1, channels[r], channels[r], True),
            StyledLayer(f"rgb{r}", "rgb", r, row + 2, channels[r], 3, False),
        ]
    return tuple(layers)


def latent_rows(size: int) -> int:
    """Rows of W+ of a StyleGAN2 of `size` pixels, for files that name only one of the two; else ask `n_latent`."""
    return 2 * size.bit_length() - 4


class MappingNetwork(nn.Module):
    """z [N, C] to w [N, C]: pixel norm, then fully connected layers with leaky ReLUs."""

    def __init__(self, style_dim: int, depth: int, lr: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EqualLinear(style_dim, style_dim, lr=lr, gain=ops.GAIN) for _ in range(depth))

    def forward(self, z: Tensor) -> Tensor:
        w = ops.pixel_norm(ops.full(z))
        for layer in self.layers:
            w = ops.leaky(layer(w))
        return w


class Generator(nn.Module):
    """StyleGAN2's generator: z -> w -> styles -> image [N, 3, size, size], about in [-1, 1] (not clamped).

    Args:
        size: pixels of the image, a power of two from 8 to 1024.
        style_dim: C, length of z and w.
        mapping_layers: depth of the mapping network.
        channels: features at each resolution; the published configuration f by default.
        mapping_lr: learning-rate multiplier of the mapping network.
        clamp: bound of every layer's output, 256 for networks trained by the ADA code; none by default.

    Attributes:
        layers: every modulated layer in order; its names key `styles` and `taps`.
        n_latent: L, rows of W+.
        latent_avg: mean of w [C], the centre of truncation.

    Raises:
        BadValue: a size that is no power of two in range, or a resolution without channels.
    """

    latent_avg: Tensor

    def __init__(
        self,
        size: int,
        style_dim: int = 512,
        mapping_layers: int = 8,
        channels: Mapping[int, int] | None = None,
        *,
        mapping_lr: float = 0.01,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        if size not in {2**e for e in range(3, 11)}:
            raise BadValue(f"a generator of {size} px cannot be built; its size must be a power of two from 8 to 1024")
        channels = dict(PUBLISHED_CHANNELS if channels is None else channels)
        absent = [r for r in PUBLISHED_CHANNELS if r <= size and r not in channels]
        if absent:
            raise BadValue(
                f"channels has no entry for {absent} px; a {size}-px generator needs every power of two from 4"
            )
        self.size, self.style_dim, self.clamp, self.mapping_lr = size, style_dim, clamp, mapping_lr
        self.layers = styled_layers(size, channels)
        self.n_latent = self.layers[-1].row + 1
        self.mapping = MappingNetwork(style_dim, mapping_layers, mapping_lr)
        self.constant = nn.Parameter(torch.randn(1, channels[4], 4, 4))
        self.blocks = nn.ModuleDict({layer.name: self._block(layer) for layer in self.layers})
        self.register_buffer("latent_avg", torch.zeros(style_dim))

    def _block(self, layer: StyledLayer) -> nn.Module:
        if layer.kind == "rgb":
            return ToRGB(layer.width, self.style_dim, clamp=self.clamp)
        kind = StyledUp if layer.kind == "up" else StyledConv
        return kind(layer.width, layer.channels, layer.resolution, self.style_dim, clamp=self.clamp)

    def use(self, form: ops.Form) -> Generator:
        """Choose the form of the modulated convolutions, `ops.shared` (default) or `ops.per_sample`; returns itself."""
        for block in self.blocks.values():
            if isinstance(block, StyledConv):
                block.form = form
        return self

    def sample_w(self, count: int, rng: torch.Generator | None = None, psi: float = 1.0) -> Tensor:
        """w [count, C] of random z, truncated by psi; the same on every device if `rng` lives on the CPU."""
        device = self.latent_avg.device if rng is None else rng.device
        z = torch.randn(count, self.style_dim, generator=rng, device=device)
        return self.truncate(self.mapping(z.to(self.latent_avg.device)), psi)

    def truncate(self, w: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
        """Move codes [..., C] towards the mean: psi 1 leaves them, 0 gives the mean itself.

        Args:
            w: w [N, C] or w_plus [N, L, C].
            psi: share of the way from the mean that is kept.
            cutoff: rows from this one on stay as they are, and the result is w_plus [N, L, C]; None moves all.
        """
        moved = w if psi == 1 else self.latent_avg.lerp(w, psi)
        if cutoff is None:
            return moved
        rows, still = (code if code.ndim == 3 else code[:, None].expand(-1, self.n_latent, -1) for code in (moved, w))
        return torch.cat([rows[:, :cutoff], still[:, cutoff:]], 1)

    def styles(self, codes: Tensor, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """The raw style [N, width] of every modulated layer, by name and in order.

        Args:
            codes: w [N, C] for all rows alike, or w_plus [N, L, C].
            names: the layers that are wanted; all by default.

        Raises:
            BadValue: codes of another shape.
        """
        self._check(codes)
        rows = codes.unbind(1) if codes.ndim == 3 else [codes] * self.n_latent
        wanted = [layer for layer in self.layers if names is None or layer.name in names]
        return {layer.name: self._affine(layer.name)(rows[layer.row]) for layer in wanted}

    def modulation(self, name: str) -> Tensor:
        """The weight [width, C] of the affine map that turns a code into the style of a layer.

        Up to the constant factor of equalised learning rates, which all layers share.
        """
        return self._affine(name).weight

    def _affine(self, name: str) -> EqualLinear:
        block = self.blocks[name]
        assert isinstance(block, Modulated)
        return block.affine

    def synthesis(
        self,
        styles: Mapping[str, Tensor],
        *,
        noise: Noise | Sequence[Tensor] = "fixed",
        taps: Mapping[str, Tap] | None = None,
    ) -> Tensor:
        """The image [N, 3, size, size] of given styles.

        Args:
            styles: raw style [N, width] of every layer, as `styles` returns them.
            noise: "fixed" (the stored maps), "random" (drawn from torch's global stream), "none", or one map
                [N or 1, 1, r, r] per convolution in order.
            taps: layer name -> function, called with what the layer made (features after the activation [N, O, r, r];
                for a ToRGB the image so far [N, 3, r, r]); what it returns goes on in its place. "after<r>", up to half
                the size, is called with the features that leave a resolution, behind its ToRGB.

        Raises:
            BadValue: missing or unknown names, noise maps of other number or shape, an unknown noise mode.
        """
        taps = taps or {}
        self._check_names(styles, taps)
        maps = self._noise(noise)
        x = self.constant.expand(len(styles["conv4"]), -1, -1, -1)
        image: Tensor | None = None
        for layer in self.layers:
            block, style = self.blocks[layer.name], styles[layer.name]
            tap = taps.get(layer.name, _pass)
            if layer.kind == "rgb":
                image = tap(block(x, style, image))
                x = taps.get(f"after{layer.resolution}", _pass)(x)
            else:
                x = tap(block(x, style, maps[layer.name]))
        assert image is not None
        return image

    def forward(
        self,
        codes: Tensor,
        *,
        noise: Noise | Sequence[Tensor] = "fixed",
        taps: Mapping[str, Tap] | None = None,
    ) -> Tensor:
        """The image [N, 3, size, size] of w [N, C] or w_plus [N, L, C]; arguments as for `synthesis`."""
        return self.synthesis(self.styles(codes), noise=noise, taps=taps)

    def _check(self, codes: Tensor) -> None:
        if codes.ndim not in (2, 3) or codes.shape[-1] != self.style_dim:
            raise BadValue(
                f"codes have shape {list(codes.shape)}; this generator takes w [N, {self.style_dim}] "
                f"or w_plus [N, {self.n_latent}, {self.style_dim}]"
            )
        rows = codes.shape[1]
        if codes.ndim == 3 and rows != self.n_latent:
            raise BadValue(
                f"codes have {rows} rows, but this generator ({self.size} px) takes {self.n_latent}. "
                f"{_resolution_of(rows)}: use the generator that they were made for, or embed again."
            )

    def _check_names(self, styles: Mapping[str, Tensor], taps: Mapping[str, Tap]) -> None:
        known = [layer.name for layer in self.layers]
        leaving = [f"after{layer.resolution}" for layer in self.layers[:-1] if layer.kind == "rgb"]
        for what, names, extra in (("styles", styles, []), ("taps", taps, leaving)):
            for name in names:
                if name not in (*known, *extra):
                    raise BadValue(f"{what} name a layer {name!r} that this generator lacks; {nearest(name, known)}")
        for layer in self.layers:
            if layer.name not in styles:
                raise BadValue(f"styles lack layer {layer.name!r}; all of {', '.join(known)} are needed")
            width = styles[layer.name].shape[-1]
            if width != layer.width:
                raise BadValue(f"the style of {layer.name} has {width} channels; this generator takes {layer.width}")

    def _noise(self, noise: Noise | Sequence[Tensor]) -> dict[str, Tensor | Noise]:
        """What each convolution adds, by name."""
        convolutions = [layer for layer in self.layers if layer.demodulates]
        if isinstance(noise, str):
            if noise not in ("fixed", "random", "none"):
                raise BadValue(f"noise={noise!r}: use 'fixed', 'random', 'none' or a list of maps")
            return {layer.name: noise for layer in convolutions}
        if len(noise) != len(convolutions):
            raise BadValue(
                f"{len(noise)} noise maps were given; this generator takes {len(convolutions)}, one per convolution"
            )
        for layer, given in zip(convolutions, noise, strict=True):
            if given.ndim != 4 or given.shape[1:] != (1, layer.resolution, layer.resolution):
                raise BadValue(
                    f"the noise map of {layer.name} has shape {list(given.shape)}; "
                    f"it takes [N or 1, 1, {layer.resolution}, {layer.resolution}]"
                )
        return {layer.name: given for layer, given in zip(convolutions, noise, strict=True)}


Module = TypeVar("Module", bound=nn.Module)


def freeze(module: Module) -> Module:
    """The module itself, in eval mode, its parameters without gradients."""
    return module.eval().requires_grad_(False)


def _pass(x: Tensor) -> Tensor:
    return x


def _resolution_of(rows: int) -> str:
    """Which generator takes that many rows of W+."""
    size = 2 ** (rows // 2 + 1)
    if rows % 2 or not 8 <= size <= 1024:
        return "No StyleGAN2 has that many"
    return f"{rows} rows belong to {size} px"
