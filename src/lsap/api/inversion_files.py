"""Inversions in a folder: what `Inverter.save` writes and `Inverter.load` reads, in the store of `lsap.invert`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from lsap.checkpoints import Codes, code_files, read_codes, write_codes
from lsap.evaluation.rows import seven_digits
from lsap.inversion import FixedNoise, Inversion, cat
from lsap.runs import Store
from lsap.stylegan2 import StyleGenerator
from lsap.values import expanded


def write(
    folder: str | Path,
    inversion: Inversion,
    settings: Mapping[str, Any],
    batch_size: int,
    score: Callable[[Inversion], Tensor],
    draw: Callable[[Inversion], Tensor],
) -> Path:
    """Write an inversion whole: a store, its pictures, its codes.

    Args:
        folder: made if need be; one that holds an equal inversion is left as it is.
        inversion: what to keep.
        settings: of the store.
        batch_size: images per batch.
        score: NSCD of every image.
        draw: its pictures [N, 3, H, W] in [-1, 1].

    Returns:
        The folder.

    Raises:
        BadValue: the folder holds another inversion, or cannot be written to.
        StoppedRun: no room on the disk.
    """
    inversion = inversion.to("cpu")
    described = {**settings, "history": list(inversion.history), "content": digest(inversion)}
    store = Store.open(expanded(folder), inversion.names, batch_size, described)
    try:
        for batch in store.pending():
            part = inversion.select([inversion.names.index(name) for name in batch.names])
            scores = zip(part.names, score(part), strict=True)
            rows = [{"name": name, "nscd": seven_digits(value)} for name, value in scores]
            store.write(batch, rows, part, draw(part))
    finally:
        store.let_go()
    write_codes(store.path / "codes.safetensors", Codes(inversion.codes, inversion.names), inversion.generator)
    return store.path


def read(path: str | Path, generator: StyleGenerator, fingerprint: str, codes_in: str | None = None) -> Inversion:
    """An inversion of a folder, or codes of a file or of a file per image, drawn by the generator as it is.

    Raises:
        MissingFile: there is none.
        BadValue: it belongs to another generator, or is damaged.
    """
    path = expanded(path)
    if (path / "plan.json").is_file() or (path.is_dir() and not code_files(path)):
        found = cat(list(Store.read(path).inversions(generator)))
        found.check_generator(fingerprint)
        return found
    rows = generator.n_latent
    held = read_codes(path, n_latent=rows, style_dim=generator.style_dim, generator=fingerprint, codes_in=codes_in)
    codes = held.rows(rows).contiguous()
    names = held.names or tuple(f"{place:04d}" for place in range(len(codes)))
    return Inversion(names, codes, fingerprint, FixedNoise(generator), history=(path.name,))


def digest(inversion: Inversion) -> str:
    """A short mark of all numbers of an inversion."""
    tensors = {name: tensor.contiguous() for name, tensor in inversion.tensors().items()}
    return hashlib.sha256(safetensors.torch.save(tensors)).hexdigest()[:12]
