"""What all frozen judges share: they never train, they have a name for tables, and they load weights by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, Self

from torch import Tensor, nn

from lsap.errors import BadValue


class Embedder(Protocol):
    """Anything that turns images into directions: the identity judges, and those of other domains.

    `label` names it in tables; `embed` maps images [N, 3, H, W] in [-1, 1] to unit vectors [N, D].
    """

    label: str

    def embed(self, images: Tensor) -> Tensor: ...


class FrozenNetwork(nn.Module):
    """A network that judges images and is itself never trained.

    Its parameters take no gradient and it stays in evaluation mode even when a module that holds it is put into
    training mode, so batch statistics never reach a verdict. Gradients still pass through to the images.
    """

    label: str = ""

    def freeze(self) -> Self:
        """Stop training for good; the last line of every judge's constructor."""
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever the surrounding module does."""
        return super().train(False)


def load_weights(
    module: nn.Module,
    state: Mapping[str, Tensor],
    what: str,
    *,
    filed_as: Callable[[str], str] = str,
    optional: tuple[str, ...] = (),
) -> None:
    """Fill every tensor of a module by name; tensors of the state that the module does not know are left aside.

    Args:
        module: the network to fill.
        state: name → tensor, as read from a file.
        what: the network in the user's words, for the message ("an ArcFace IR-SE-50").
        filed_as: the file's name for the module's tensor of a given name; the same name where not given.
        optional: beginnings of the module's names that may be missing; batch counters always may.

    Raises:
        BadValue: tensors are missing or have other shapes; the message names the first few.
    """
    wanted = module.state_dict()
    found = {name: state[filed_as(name)] for name in wanted if filed_as(name) in state}
    missing = [
        filed_as(name)
        for name in wanted
        if name not in found and not name.endswith("num_batches_tracked") and not name.startswith(optional)
    ]
    if missing:
        raise BadValue(
            f"these weights are not those of {what}: {len(missing)} of {len(wanted)} tensors are missing "
            f"({_first(missing)}); the file begins with {_first(list(state)) or 'nothing'}. Name the right file."
        )
    misshapen = [
        f"{filed_as(name)} is {list(tensor.shape)} instead of {list(wanted[name].shape)}"
        for name, tensor in found.items()
        if tensor.shape != wanted[name].shape
    ]
    if misshapen:
        raise BadValue(f"these weights are not those of {what}: {_first(misshapen)}. Name the right file.")
    module.load_state_dict(found, strict=False)


def _first(words: list[str], count: int = 3) -> str:
    return ", ".join(words[:count]) + (", …" if len(words) > count else "")
