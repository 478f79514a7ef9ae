"""Published judges from their files: ArcFace, CurricularFace, MoCo, the trunks of LPIPS, and the face parser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lsap.checkpoints.states import read_state
from lsap.errors import BadValue
from lsap.pretrained import LPIPS, ArcFace, CurricularFace, FaceParser, MoCo


def load_arcface(checkpoint: str | Path) -> ArcFace:
    """ArcFace IR-SE-50 (`model_ir_se50.pth`), frozen: the identity judge of faces.

    Raises:
        MissingFile, BadValue: no such file, or other weights; the message names the file.
    """
    with _naming(checkpoint):
        return ArcFace.from_state(read_state(checkpoint))


def load_curricularface(checkpoint: str | Path) -> CurricularFace:
    """CurricularFace IR-101 (`CurricularFace_Backbone.pth`), frozen: the identity judge of the published tables.

    Raises:
        MissingFile, BadValue: no such file, or other weights; the message names the file.
    """
    with _naming(checkpoint):
        return CurricularFace.from_state(read_state(checkpoint))


def load_moco(checkpoint: str | Path) -> MoCo:
    """MoCo v2 ResNet-50 (`moco_v2_800ep_pretrain.pth.tar`), frozen: the similarity judge of everything but faces.

    Raises:
        MissingFile, BadValue: no such file, or other weights; the message names the file.
    """
    with _naming(checkpoint):
        return MoCo.from_state(read_state(checkpoint))


def load_lpips(net: str, checkpoint: str | Path) -> LPIPS:
    """LPIPS over an ImageNet trunk in torchvision's layout; the linear heads come with the lpips package.

    Args:
        net: "alex" (as in encoder training) or "vgg" (as in projection).
        checkpoint: e.g. `alexnet-owt-7be5be79.pth`; where it is missing, torch hub's copy is taken (see `located`).

    Raises:
        MissingFile, BadValue: no such file, or other weights; the message names the file.
    """
    with _naming(checkpoint):
        return LPIPS.from_state(net, read_state(checkpoint))


def load_bisenet(checkpoint: str | Path) -> FaceParser:
    """BiSeNet (`79999_iter.pth`), frozen: which part of a face each pixel shows.

    Raises:
        MissingFile, BadValue: no such file, or other weights; the message names the file.
    """
    with _naming(checkpoint):
        return FaceParser.from_state(read_state(checkpoint))


@contextmanager
def _naming(checkpoint: str | Path) -> Iterator[None]:
    """What is wrong with weights is said with the file that they came from."""
    try:
        yield
    except BadValue as error:
        if str(checkpoint) in str(error):
            raise
        raise BadValue(f"{checkpoint}: {error}") from error
