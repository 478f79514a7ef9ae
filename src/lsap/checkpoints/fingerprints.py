"""One short text that two modules share exactly when all their tensors are the same."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import torch


class Stateful(Protocol):
    """Whatever has tensors by name, as every `torch.nn.Module`."""

    def state_dict(self) -> dict[str, Any]: ...


def fingerprint(module: Stateful) -> str:
    """SHA-256 (64 hex digits) over the module's state: names in sorted order, types, shapes and bytes.

    Covers parameters and persistent buffers, so a generator's noise maps and latent_avg count; device and memory layout
    do not. Style means, directions and run folders carry it, so that none is used with another generator.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()
