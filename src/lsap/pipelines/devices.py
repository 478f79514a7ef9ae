"""Devices and processes of a run, as Lightning, torchrun and SLURM hand them on."""

from __future__ import annotations

import os

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lsap.config.containers import plain
from lsap.errors import BadValue


def refuse_nested_launch(config: DictConfig) -> None:
    """Lightning starts its processes by repeating the command line; in a multirun each would start the sweep anew."""
    swept = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if swept and process_count(config.trainer) > 1 and "RANK" not in os.environ:
        raise BadValue(
            f"trainer.devices={config.trainer.devices} within a multirun: every process would start the whole sweep "
            "again; set trainer.devices=1, or start every member by a command of its own, without -m"
        )


def global_rank() -> int:
    """This process's number before any Trainer exists, as Lightning, torchrun and SLURM hand it on."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def process_count(trainer: DictConfig) -> int:
    """How many training processes the `trainer` settings ask for, all nodes together."""
    devices = trainer.devices
    if devices in ("auto", -1, "-1"):
        found = torch.cuda.device_count() if device_of(trainer.accelerator).type == "cuda" else 1
    elif isinstance(devices, str):
        found = int(devices) if devices.isdigit() else len([part for part in devices.split(",") if part.strip()])
    else:
        found = devices if isinstance(devices, int) else len(devices)
    return int(found * trainer.num_nodes)


def own_device(trainer: DictConfig) -> torch.device:
    """The device that this process has under a Trainer of these settings, before there is one.

    Of several GPUs it is the one that Lightning will give it: the place of its local number among `devices`. It becomes
    PyTorch's current one, so that nothing of this process lands on another.
    """
    device = device_of(trainer.accelerator)
    if device.type != "cuda":
        return device
    from pytorch_lightning.accelerators import CUDAAccelerator  # importing Lightning takes seconds

    numbers = CUDAAccelerator.parse_devices(-1 if trainer.devices == "auto" else plain(trainer.devices)) or [0]
    device = torch.device("cuda", numbers[local_rank() % len(numbers)])
    torch.cuda.set_device(device)
    return device


def local_rank() -> int:
    """This process's number on its machine, as Lightning, torchrun and SLURM hand it on."""
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def device_of(accelerator: str) -> torch.device:
    """The kind of device that an `accelerator` setting means: a GPU of CUDA where there is one, else the processor.

    Lightning is given its `type`; by itself it would take other accelerators as well, which nothing here knows.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")
