"""Files in the layouts of other programs, written without those programs: stand-ins carry their classes' names."""

from __future__ import annotations

import pickle
import re
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lsap.checkpoints import rosinality
from lsap.stylegan2 import Generator, freeze

KINDS = {"up": "conv0", "conv": "conv1", "rgb": "torgb"}


class EasyDict(dict[str, Any]):
    """NVIDIA's dict with attributes; it comes out under their name."""


class Network:
    """NVIDIA's TensorFlow network: only what its `__getstate__` saved."""


def nvidia_names(generator: Generator) -> dict[str, Tensor]:
    """A generator's tensors under the names and shapes of NVIDIA's PyTorch code, with the filters it also stores."""
    state: dict[str, Tensor] = {}
    for name, tensor in generator.state_dict().items():
        if name == "latent_avg":
            state["mapping.w_avg"] = tensor
        elif name == "constant":
            state["synthesis.b4.const"] = tensor[0]
        elif name.startswith("mapping."):
            state[name.replace("mapping.layers.", "mapping.fc")] = tensor
        else:
            _, layer, inner = name.split(".", 2)
            kind = layer.rstrip("0123456789")
            theirs = f"synthesis.b{layer[len(kind) :]}.{KINDS[kind]}"
            state[f"{theirs}.{'noise_const' if inner == 'noise' else inner}"] = (
                tensor[0, 0] if inner == "noise" else tensor
            )
    kernel = generator.blocks["rgb8"].kernel[0, 0] / 4  # type: ignore[index]
    return state | {"synthesis.b8.resample_filter": kernel, "synthesis.b8.conv0.resample_filter": kernel}


def write_nvidia(
    path: Path, state: Mapping[str, Tensor], patch: pytest.MonkeyPatch, *, clamp: float | None = 256, lr: float = 0.01
) -> Path:
    """A pickle of G, D and G_ema as the ADA and StyleGAN3 repositories write it."""
    path.write_bytes(pickle.dumps(nvidia_objects(state, patch, clamp=clamp, lr=lr)))
    return path


def nvidia_objects(
    state: Mapping[str, Tensor], patch: pytest.MonkeyPatch, *, clamp: float | None = 256, lr: float = 0.01
) -> dict[str, Any]:
    """G, D and G_ema as modules that carry their own source, for whatever writes objects."""
    persistence, util = _stand_in(patch, "torch_utils.persistence"), _stand_in(patch, "dnnlib.util")

    def _reconstruct_persistent_obj(meta: object) -> None:
        raise AssertionError("the source text in the file was executed")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    patch.setattr(EasyDict, "__module__", "dnnlib.util")
    util.EasyDict = EasyDict  # type: ignore[attr-defined]

    class Persistent(nn.Module):
        def __reduce__(self) -> tuple[Any, ...]:
            meta = EasyDict(type="class", version=6, module_src="raise SystemExit", class_name=self._name)
            meta["state"] = {k: v for k, v in self.__dict__.items() if k != "_name"}
            return _reconstruct_persistent_obj, (meta,), None

        __reduce_ex__ = lambda self, _: self.__reduce__()  # noqa: E731

        def __init__(self, name: str) -> None:
            super().__init__()
            self._name = name

    root = Persistent("Generator")
    root._init_kwargs = EasyDict(z_dim=512)  # type: ignore[assignment]
    for name, tensor in state.items():
        *path_to, last = name.split(".")
        module: nn.Module = root
        for part in path_to:
            if part not in module._modules:
                module.add_module(part, Persistent("Module"))
            module = module.get_submodule(part)
        if last in ("weight", "bias", "const", "noise_strength"):
            module.register_parameter(last, nn.Parameter(tensor.clone(), requires_grad=False))
        else:
            module.register_buffer(last, tensor.clone())
    for name, module in root.named_modules():
        if re.fullmatch(r"synthesis\.b\d+\.(conv0|conv1|torgb)", name):
            module.conv_clamp = clamp  # type: ignore[assignment]
        if re.fullmatch(r"mapping\.fc\d+", name):
            module.bias_gain = lr  # type: ignore[assignment]
    return {
        "G": root,
        "D": Persistent("Discriminator"),
        "G_ema": root,
        "training_set_kwargs": EasyDict(path="x.zip"),
    }


def write_tensorflow(
    path: Path, generator: Generator, patch: pytest.MonkeyPatch, *, protocol: int = 4, **settings: Any
) -> Path:
    """A pickle of G, D and Gs as NVIDIA's TensorFlow code wrote it: arrays, inputs first, styles without their 1."""
    module = _stand_in(patch, "dnnlib.tflib.network")
    patch.setattr(Network, "__module__", "dnnlib.tflib.network")
    module.Network = Network  # type: ignore[attr-defined]
    state = {name: tensor.numpy() for name, tensor in generator.state_dict().items()}
    mapping = [
        (f"Dense{name.split('.')[2]}/{name.split('.')[3]}", value.T.copy())
        for name, value in state.items()
        if name.startswith("mapping.")
    ]
    synthesis = [("lod", np.float32(0)), ("4x4/Const/const", state["constant"])]
    convolutions = [layer.name for layer in generator.layers if layer.demodulates]
    for layer in generator.layers:
        block, side = f"blocks.{layer.name}", layer.resolution
        theirs = {"up": "Conv0_up", "conv": "Conv" if side == 4 else "Conv1", "rgb": "ToRGB"}[layer.kind]
        kernel = state[f"{block}.weight"].transpose(2, 3, 1, 0)
        synthesis += [
            (f"{side}x{side}/{theirs}/weight", (kernel[::-1, ::-1] if layer.kind == "up" else kernel).copy()),
            (f"{side}x{side}/{theirs}/mod_weight", state[f"{block}.affine.weight"].T.copy()),
            (f"{side}x{side}/{theirs}/mod_bias", state[f"{block}.affine.bias"] - 1),
            (f"{side}x{side}/{theirs}/bias", state[f"{block}.bias"]),
        ]
        if layer.demodulates:
            synthesis.append((f"{side}x{side}/{theirs}/noise_strength", state[f"{block}.noise_strength"][()]))
            synthesis.append((f"noise{convolutions.index(layer.name)}", state[f"{block}.noise"]))
    parts = {"mapping": _network("mapping", mapping), "synthesis": _network("synthesis", synthesis, **settings)}
    whole = _network("Gs", [("dlatent_avg", state["latent_avg"])], components=parts)
    path.write_bytes(pickle.dumps((whole, _network("D", []), whole), protocol=protocol))
    return path


def _stand_in(patch: pytest.MonkeyPatch, name: str) -> types.ModuleType:
    """An empty module of that name, importable for the while."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        patch.setitem(sys.modules, ".".join(parts[:count]), types.ModuleType(".".join(parts[:count])))
    return sys.modules[name]


def _network(
    name: str, variables: list[tuple[str, Any]], components: dict[str, Network] | None = None, **settings: Any
) -> Network:
    network = Network()
    network.__dict__ = {
        "version": 4, "name": name, "static_kwargs": settings, "components": components or {},
        "build_module_src": "raise SystemExit", "build_func_name": "G_main", "variables": variables,
    }  # fmt: skip
    return network


ROWS = 6  # of a 16-px generator


def pyramid(rows: int = ROWS) -> dict[str, Tensor]:
    """A few of the tensors that tell a pyramid encoder, each of its own values."""
    heads = {f"styles.{row}.linear.weight": torch.randn(2, 2) for row in range(rows)}
    return {"input_layer.0.weight": torch.randn(64, 3, 3, 3), **heads, "latlayer1.weight": torch.randn(2, 2)}


def prefixed(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def published(tmp_path: Path, state: Mapping[str, Tensor], generator: Generator, **opts: Any) -> Path:
    """The layout of pSp, e4e, ReStyle and HFGI."""
    content = {
        "state_dict": prefixed(state, "encoder.") | prefixed(rosinality.publish(generator), "decoder."),
        "latent_avg": generator.latent_avg.repeat(ROWS, 1),
        "opts": opts,
    }
    torch.save(content, tmp_path / "published.pt")
    return tmp_path / "published.pt"


def sixteen_pixels() -> Generator:
    """A frozen generator of 16 px, all of whose tensors are random."""
    made = Generator(16, 8, 2, {4: 6, 8: 5, 16: 4})
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    nn.init.normal_(made.latent_avg)
    return freeze(made)
