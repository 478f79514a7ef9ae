"""HFGI, high-fidelity inversion (Wang et al. 2022): what a reconstruction lost is told to one layer of the generator.

The residual, photograph minus reconstruction, is kept. Whenever codes are drawn, edited or not, it is aligned to the
plain image of these codes, and the consultation encoder makes gates and additions of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lsap.errors import BadValue, MissingFile
from lsap.inversion import Embedded, Inversion, halved, registered
from lsap.refinement.consultation import Consultation, consulted_channels, consulted_layer, load_consultation
from lsap.refinement.stage import Refinement
from lsap.refinement.tuned import NOISE, own_noise
from lsap.stylegan2 import Noise, StyleGenerator, View

RESIDUAL = "residual"  # its name in a state


def seen(image: Tensor, view: View) -> Tensor:
    """A generator's image [N, 3, S, S] as HFGI compares it with photographs, [N, 3, h, w] in [-1, 1].

    Clamped and resized without antialiasing, as published, where losses pool.
    """
    resized = F.interpolate(image.clamp(-1, 1), (view.size, view.size), mode="bilinear")
    return resized.narrow(-2, view.first, view.height)


def aligned(network: Consultation, residual: Tensor, image: Tensor, view: View) -> Tensor:
    """The residual [N, 3, h, w] as it belongs to an image [N, 3, h, w]; `square` around the network."""
    moved = network.align(square(residual, view), square(image, view))
    return moved.narrow(-2, view.first, view.height)


def consulted(
    generator: StyleGenerator,
    network: Consultation,
    residual: Tensor,
    codes: Tensor,
    view: View,
    noise: Noise | Sequence[Tensor] = "fixed",
) -> Tensor:
    """The image [N, 3, S, S] of codes [N, L, C], one layer told of an aligned residual [N, 3, h, w]."""
    gates, additions = network.conditions(square(residual, view))

    def tell(x: Tensor) -> Tensor:
        scale, shift = (F.interpolate(each, x.shape[-2:], mode="bilinear").to(x) for each in (gates, additions))
        return x * (1 + scale) + shift

    return generator(codes, noise=noise, taps={consulted_layer(generator): tell})


def square(x: Tensor, view: View) -> Tensor:
    """Pictures [N, 3, h, w] of a band of rows in the square that the generator draws, zero elsewhere."""
    return F.pad(x, (0, 0, view.first, view.size - view.first - view.height))


@registered("hfgi")
class Consulted:
    """The generator, consulted: it draws plain images of the codes first, and aligns the residual to these.

    In the state: `residual` [N, 3, h, w], photograph minus reconstruction.

    Args:
        generator: what draws.
        file: of HFGI's networks, which are too large to lie beside every image.
        network: their fingerprint.
        size, rows: of the view at which the networks see images; see `View`.
        own_noise: whether the state holds noise maps, too.

    Raises:
        MissingFile, BadValue: the file is not there any more, or holds other networks.
    """

    key: str

    def __init__(
        self,
        generator: StyleGenerator,
        file: str,
        network: str,
        size: int,
        rows: Sequence[int],
        own_noise: bool = False,
    ) -> None:
        self.generator, self.file, self.own_noise = generator, file, own_noise
        self.view = View(size, (rows[0], rows[1]))
        if not Path(file).is_file():
            raise MissingFile(
                f"{file} is not there; these images are drawn by HFGI's networks in it: put it back, or invert again"
            )
        self.network = load_consultation(file, consulted_channels(generator))
        self.mark = self.network.mark
        if self.mark != network:
            raise BadValue(
                f"{file} holds other networks of HFGI ({self.mark[:12]}) than those that these inversions are drawn by "
                f"({network[:12]}); put those back, or invert again"
            )
        self.layers = [layer.name for layer in generator.layers if layer.demodulates]

    @property
    def settings(self) -> Mapping[str, Any]:
        view = self.view
        rows = [view.first, view.first + view.height]
        return {
            "file": self.file, "network": self.mark, "size": view.size, "rows": rows, "own_noise": self.own_noise,
        }  # fmt: skip

    def __call__(self, codes: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        noise: Noise | list[Tensor] = "fixed"
        if self.own_noise:
            noise = [state[NOISE + name].to(codes) for name in self.layers]
        network = self.network.to(codes.device)
        image = seen(self.generator(codes, noise=noise), self.view).float()
        residual = aligned(network, state[RESIDUAL].to(image), image, self.view)
        return consulted(self.generator, network, residual, codes, self.view, noise)


class DistortionConsultation(Refinement):
    """Keep what the embedding lost of every image, and draw it by a consulted generator. The codes stay.

    Args:
        generator, fingerprint, name: as for `Refinement`.
        view: the generator's image → the image that photographs are compared with.
        network: HFGI's networks, frozen.
        file: that they came from; inversions name it.
    """

    def __init__(
        self,
        generator: StyleGenerator,
        fingerprint: str,
        name: str = "hfgi",
        *,
        view: View,
        network: Consultation,
        file: Path,
    ) -> None:
        super().__init__(generator, fingerprint, name)
        self.view, self.network, self.file = view, network, file.resolve()

    def refine(self, inversion: Inversion, images: Tensor) -> Embedded:
        noisy = own_noise(inversion, f"refinement={self.name}")
        view, path = self.view, str(self.file)
        rows = (view.first, view.first + view.height)
        drawn = Consulted(self.generator, path, self.network.mark, view.size, rows, noisy)
        with torch.no_grad():
            residual = images - seen(inversion.render(), view)
        state = {RESIDUAL: halved(residual)}
        return Embedded(inversion.with_stage(self.name, renderer=drawn, state=state))
