"""Encoders and whole checkpoints of pSp, e4e, ReStyle, HFGI and the LSAP authors' toolbox, and those of our own runs.

The published networks keep their tensor names here, since lsap's encoders use the same; only the wrapping differs:

    pSp, e4e, ReStyle, HFGI   `state_dict` with `encoder.`, `decoder.`, HFGI's also `residue.` and `grid_align.`;
                              `latent_avg`; `opts`
    toolbox                   `encoder` with `encoder.` or `encoder.module.` and `latent_avg`; `decoder`; `opts`
    lsap                      safetensors of the bare names, with a card
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsap.checkpoints import rosinality
from lsap.checkpoints.foreign import known_network
from lsap.checkpoints.pickles import Record
from lsap.checkpoints.states import check_finite, read_card, read_state
from lsap.errors import BadValue, nearest
from lsap.stylegan2 import latent_rows

KIND = "lsap encoder"
OF_A_TRAINING = (
    "this is what a training goes on from: take encoder.safetensors, which lies beside its folder checkpoints/ when "
    "training has ended"
)
EXTRA = ("residue.", "grid_align.")  # HFGI's own networks; after these beginnings of names in our files too
# What stands before the networks' own names where a tool wraps them in modules of its own.
WRAPPING = re.compile(r"(?:\w+\.)*?(?=(?:encoder|decoder|residue|grid_align)\.)")
WRAPPED_ENCODER = re.compile(r"(?:\w+\.)*?encoder\.(?:module\.)?(?:input_layer\.0|conv1)\.weight")

# What the published options call their encoders.
TYPES = {
    "GradualStyleEncoder": "psp",
    "Encoder4Editing": "e4e",
    "BackboneEncoderUsingLastLayerIntoW": "w",
    "SingleStyleCodeEncoder": "w",
    "WEncoder": "w",
    "BackboneEncoder": "restyle_psp",
    "ResNetBackboneEncoder": "restyle_psp",
    "ProgressiveBackboneEncoder": "restyle_e4e",
    "ResNetProgressiveBackboneEncoder": "restyle_e4e",
}
CHANNELS = {1: "sketches", 19: "segmentation maps"}  # what pSp's encoders of other inputs take
KINDS = tuple(dict.fromkeys(TYPES.values()))
SAME = {"lsap_e": "e4e"}  # kinds that are one network under two names


@dataclass(frozen=True)
class PublishedEncoder:
    """An encoder of a file.

    kind: "psp", "e4e" (LSAP's own too: one network), "w", "restyle_psp" or "restyle_e4e"; of an encoder of the user's
        own whatever its class is called by. It is compared with the kind of a class and names nothing to import.
    state: its tensors, by the names that the published network and `PyramidEncoder` give them.
    latent_avg: [C] or [L, C], what is added to the codes; None where the file has none.
    opts: the options of its training, plain values.
    generator_state: the decoder beside it, by the names of `Generator`; None where there is none.
    extra: tensors of further networks in the file, by their full names (HFGI's).
    generator: fingerprint of its generator, where the file says it.
    embedding: what its training was called, where the file says it.
    rows: rows of W+ that it answers, where the file says it.
    """

    kind: str
    state: dict[str, Tensor]
    latent_avg: Tensor | None
    opts: dict[str, Any]
    generator_state: dict[str, Tensor] | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    generator: str | None = None
    embedding: str | None = None
    rows: int | None = None

    @property
    def n_latent(self) -> int:
        """Rows of W+ that it answers; where the file does not say it, the number of its heads, or 1 if it has none."""
        if self.rows is not None:
            return self.rows
        heads = {found[1] for name in self.state if (found := re.match(r"(?:styles|heads)\.(\d+)\.", name))}
        return len(heads) or 1

    def loadable(self, n_latent: int | None = None) -> dict[str, Tensor]:
        """`state` and the mean latent as the buffer [L, C] that our encoders have: for `load_state_dict`.

        Args:
            n_latent: L; the number of heads by default. A single code, which has none, needs it.

        Raises:
            BadValue: the file has no mean latent.
        """
        if self.latent_avg is None:
            raise BadValue("this encoder came without latent_avg; its codes cannot be placed without the generator's")
        count = self.n_latent if n_latent is None else n_latent
        rows = self.latent_avg.reshape(-1, self.latent_avg.shape[-1])
        return self.state | {"latent_avg": (rows if len(rows) == count else rows[:1].expand(count, -1)).clone()}


def read_encoder(path: str | Path, *, kind: str | None = None, size: int | None = None) -> PublishedEncoder:
    """The encoder of a published checkpoint, or of a file that lsap wrote.

    Args:
        path: the file.
        kind: the encoder that is wanted, one of `KINDS` for published files; needed only where a file does not say what
            it holds, else checked against it.
        size: pixels of the generator whose codes are wanted; checked against rows and options.

    Raises:
        MissingFile: there is no such file.
        BadValue: no encoder, another one than was asked for, or options that contradict the tensors.
    """
    content, card = read_state(path), read_card(path)
    own = "embedding" in card or card.get("kind") == KIND
    if not own and kind is not None and kind not in (*KINDS, *SAME):
        raise BadValue(f"{path}: there is no published encoder {kind!r}; {nearest(kind, (*KINDS, *SAME))}")
    try:
        found = _own(content, card) if own else _published(content, kind)
        _check(found, None if kind is None else SAME.get(kind, kind), size)
        check_finite("its encoder", found.state)
    except BadValue as error:
        mend = f"; {OF_A_TRAINING}" if "pytorch-lightning_version" in content else ""
        raise BadValue(f"{path}: {error}{mend}") from error
    return found


def holds_encoder(content: Mapping[str, Any]) -> bool:
    """Whether a checkpoint holds an encoder, alone or with its decoder."""
    return bool(split(content)["encoder"])


def split(content: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """The networks of a checkpoint: `encoder` and `decoder` without prefix, `extra` with theirs.

    Parts that are not there are empty; the decoder has rosinality's names.
    """
    named = {WRAPPING.sub("", str(k)): v for k, v in _states(content).items() if isinstance(v, Tensor)}
    encoder = {k.removeprefix("encoder.").removeprefix("module."): v for k, v in named.items() if k[:8] == "encoder."}
    decoder = {k.removeprefix("decoder.").removeprefix("module."): v for k, v in named.items() if k[:8] == "decoder."}
    return {"encoder": encoder, "decoder": decoder, "extra": {k: v for k, v in named.items() if k.startswith(EXTRA)}}


def _states(content: Mapping[str, Any]) -> Mapping[Any, Any]:
    """The tensors of all networks of a checkpoint, an encoder's behind `encoder.`, whatever key they lie under."""
    if isinstance(own := content.get("encoder"), Mapping):  # the toolbox's
        decoder = {f"decoder.{k}": v for k, v in _mapping(content.get("decoder")).items()}
        named = any(WRAPPING.match(str(k)) for k in own)
        return decoder | (dict(own) if named else _alone(own))
    for box in (content.get("state_dict"), *content.values(), content):
        if isinstance(box, Mapping):
            form = WRAPPING if box is content.get("state_dict") else WRAPPED_ENCODER
            if any(form.match(str(k)) for k in box):
                return box
            if "styles.0.linear.weight" in box or {"input_layer.0.weight", "linear.weight"} <= box.keys():
                return _alone(box)
    return {}


def _alone(state: Mapping[Any, Any]) -> dict[str, Any]:
    return {f"encoder.{name}": value for name, value in state.items() if name != "latent_avg"}


def mean_latent(content: Mapping[str, Any]) -> Tensor | None:
    """The mean latent of a checkpoint, [C] or [L, C]."""
    for place in (content, _mapping(content.get("encoder"))):
        if isinstance(mean := place.get("latent_avg"), Tensor):
            return mean.detach().float().squeeze(0) if mean.ndim == 3 else mean.detach().float()
    return None


def _published(content: Mapping[str, Any], kind: str | None) -> PublishedEncoder:
    networks, opts = split(content), _options(content.get("opts"))
    state = networks["encoder"]
    if not state and (known := known_network(content)) is not None:
        raise BadValue(f"holds no encoder but {known}; expected a checkpoint of pSp, e4e, ReStyle, HFGI or lsap")
    if not state:
        held = ", ".join(sorted(map(str, content))[:4])
        raise BadValue(f"holds no encoder (it has {held}, …); expected a checkpoint of pSp, e4e, ReStyle, HFGI or lsap")
    found = _kind(state, opts, kind)
    mean = mean_latent(content)
    if mean is not None and opts.get("start_from_latent_avg") is False and not found.startswith("restyle"):
        mean = torch.zeros_like(mean)  # its codes are meant as they come
    decoder = rosinality.rename(networks["decoder"]) if networks["decoder"] else None
    return PublishedEncoder(found, state, mean, opts, decoder, networks["extra"])


def _own(content: Mapping[str, Any], card: Mapping[str, str]) -> PublishedEncoder:
    """What a run of lsap or `lsap.convert` wrote; only the latter keeps further networks beside the encoder."""
    tensors = dict(content)
    mean = tensors.pop("latent_avg", None)
    converted = card.get("kind") == KIND
    extra = {name: tensors.pop(name) for name in list(tensors) if converted and name.startswith(EXTRA)}
    kind = card.get("encoder") or card.get("embedding", "")
    try:
        opts = _options(json.loads(card.get("opts", "{}")))
    except ValueError as error:
        raise BadValue(f"its options cannot be read ({error}); convert or train it again") from error
    rows = _rows(card)
    if rows is None and not converted and mean is not None and mean.ndim == 2:
        rows = len(mean)  # version 0.1 recorded no rows; the mean latent of a trained encoder has all of them
    return PublishedEncoder(
        SAME.get(kind, kind), tensors, mean, opts, None, extra, card.get("generator"), card.get("embedding"), rows
    )


def encoder_card(kind: str, rows: int) -> dict[str, str]:
    """What a file of ours says of its encoder, as `read_encoder` takes it back: its kind and its rows of W+."""
    return {"encoder": kind, "rows": str(rows)}


def _rows(card: Mapping[str, str]) -> int | None:
    """The rows of W+ that a card names; None for files of version 0.1, which name none."""
    rows = card.get("rows")
    if rows is not None and not re.fullmatch(r"[1-9]\d{0,3}", rows):
        raise BadValue(f"its card says rows={rows[:20]!r}, which is no number of rows of W+; train or convert it again")
    return None if rows is None else int(rows)


def _kind(state: Mapping[str, Tensor], opts: Mapping[str, Any], asked: str | None) -> str:
    """Which encoder this is: the options say it, the tensors have to agree."""
    kernels = (state.get(name) for name in ("input_layer.0.weight", "conv1.weight"))
    channels = next((kernel.shape[1] for kernel in kernels if kernel is not None and kernel.ndim == 4), 3)
    if channels not in (3, 6):
        what = CHANNELS.get(channels, "images of another kind")
        raise BadValue(
            f"its encoder takes {what} ({channels} channel{'s' * (channels > 1)}), not photographs (3); name the "
            "checkpoint of an encoder for inversion"
        )
    written = opts.get("encoder_type")
    if written is not None and written not in TYPES:
        known = ", ".join(TYPES)
        raise BadValue(f"its options name the encoder {written!r}, which lsap does not read; it reads {known}")
    shaped: tuple[str, ...]
    if channels == 6:
        shaped = ("restyle_psp", "restyle_e4e")
    elif "latlayer1.weight" in state:
        shaped = ("psp", "e4e")
    elif "linear.weight" in state and "output_layer_2.3.weight" not in state:  # which makes all rows of W+ at once
        shaped = ("w",)
    else:
        raise BadValue(f"its encoder is of no known kind (it begins with {', '.join(list(state)[:3])}, …)")
    if written is not None:
        if TYPES[written] not in shaped:
            raise BadValue(f"its options name {written}, but its tensors are those of {' or '.join(shaped)}")
        return TYPES[written]
    asked = SAME.get(asked or "", asked)
    if len(shaped) == 1:
        return shaped[0]
    if asked in shaped:
        return str(asked)
    raise BadValue(
        f"its options do not say whether it is {' or '.join(shaped)}, whose tensors are alike; name the one that it is"
    )


def _check(found: PublishedEncoder, kind: str | None, size: int | None) -> None:
    """Hold what the file says of itself against what was asked for."""
    if kind is not None and found.kind != kind:
        written = found.embedding or found.opts.get("encoder_type", found.kind)
        raise BadValue(f"holds the encoder {found.kind!r} ({written}), but {kind!r} was asked for; name its own file")
    rows = found.n_latent
    said = found.opts.get("output_size", found.opts.get("resolution", found.opts.get("stylegan_size")))
    for pixels, whose in ((said, "its options say"), (size, "you ask for")):
        if isinstance(pixels, int) and pixels >= 8 and found.kind != "w" and rows != (wanted := latent_rows(pixels)):
            raise BadValue(f"its encoder answers {rows} rows of W+, but {whose} a {pixels}-px generator: {wanted}")
    mean = found.latent_avg
    if mean is not None and mean.ndim == 2 and len(mean) not in (1, rows) and found.kind != "w":
        raise BadValue(f"its latent_avg has {len(mean)} rows, its encoder answers {rows}; it is damaged or mixed up")


def _options(opts: object) -> dict[str, Any]:
    """Options of a training as plain values, whatever kept them; what is not plain is left out."""
    if isinstance(opts, argparse.Namespace):
        opts = vars(opts)
    if isinstance(opts, Record):
        opts = opts.state
    plain = (str, int, float, bool, type(None), list, tuple)
    return {str(k): v for k, v in _mapping(opts).items() if isinstance(v, plain)}


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
