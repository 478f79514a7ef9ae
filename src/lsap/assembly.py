"""From a composed configuration to the parts of a run: the only place where files, judges and networks meet.

Everything that can be wrong is looked for before anything is built, and all missing files are named at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.accelerators import CUDAAccelerator
from torch import Tensor, nn

from lsap.alignment import NormalizedStyleSpace
from lsap.cli import positive
from lsap.data import ImageDataModule, UnreadableImage
from lsap.embedding import Adversary, Iterated, LatentDiscriminator, RowEncoder, Stages
from lsap.errors import BadValue, MissingFile
from lsap.features import load_weights
from lsap.formats import PublishedEncoder, located, read_encoder, read_state
from lsap.generator import Generator, View
from lsap.objective import Objective
from lsap.runs.content import cache_folder
from lsap.seeds import derive
from lsap.values import is_number

RANDOM = "random"  # backbone.checkpoint=random: an explicit start from random weights


def check_trainable(config: DictConfig) -> None:
    """Refuse an embedding that is not trained, or a weight that it has no term for; raises BadValue."""
    name = config.embedding.name
    if "_target_" not in config.embedding:
        raise BadValue(f"embedding={name} is not trained; it embeds every image by itself: python -m lsap.invert")
    unknown = [key for key in lambdas(config) if key.removeprefix("lambda_") not in config.objective]
    if unknown:
        raise BadValue(
            f"{unknown[0]}={config[unknown[0]]}: embedding={name} has no such term (it has "
            f"{', '.join(map(str, config.objective))}); presets other than paper are LSAP_E's"
        )


def check(config: DictConfig) -> None:
    """Refuse a configuration that cannot run, before anything is loaded or written.

    Raises:
        BadValue: a count below one, a negative weight, a learning rate that is not positive, what the optimiser does
            not take, photographs for a domain that draws its own.
        MissingFile: weights or images are not there; *all* of them are listed, with their source and override.
    """
    for name in ("max_steps", "batch_size"):
        positive(name, config[name])
    check_seed(config.seed)
    check_weights(config, ["lr", *lambdas(config)])
    if config.lr == 0:
        raise BadValue("lr=0: nothing would be learned; lr is a number above 0")
    check_optimizer("optimizer", config.optimizer)
    positive("space.samples", config.space.samples)
    check_root(config)
    if config.get("lambda_adv", 1) == 0:
        raise BadValue(
            "lambda_adv=0: an encoder without its adversary is trained as embedding=lsap_e; give that lambda_nscd="
            f"{config.lambda_nscd:g} lambda_delta={config.lambda_delta:g} lr={config.lr:g}"
        )
    if config.batch_size % (processes := process_count(config.trainer)):
        raise BadValue(
            f"batch_size={config.batch_size} cannot be shared equally by {processes} processes; it counts the images "
            f"of all of them together: take a multiple of {processes}"
        )
    needs = [need for need in config.domain.needs if needed(config, need.key)]
    refuse_missing(f"domain={config.domain.name}", config, needs)


def check_seed(seed: object) -> None:
    """Refuse what cannot be a seed; raises BadValue."""
    if not isinstance(seed, int) or seed < 0:
        raise BadValue(f"seed={seed}: seed is a whole number from 0 upwards")


def check_weights(config: DictConfig, names: Sequence[str]) -> None:
    """Refuse settings of these names that are no finite numbers from 0 upwards; raises BadValue."""
    for name in names:
        value = config[name]
        if not is_number(value) or value < 0:
            raise BadValue(f"{name}={value}: {name} is a number from 0 upwards")


def check_optimizer(key: str, node: DictConfig) -> None:
    """Refuse settings that an optimiser does not take, by making one for a single number; raises BadValue."""
    if "lr" in node and not (is_number(node.lr) and node.lr > 0):
        raise BadValue(f"{key}.lr={node.lr}: lr is a number above 0")
    made = instantiate(node)
    try:
        made([nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError) as error:
        raise BadValue(f"{key} ({node._target_}) does not take these settings: {error}") from error


def check_root(config: DictConfig) -> None:
    """Refuse photographs where the domain draws its own and would not look at them; raises BadValue."""
    root = config.data.get("root")
    if root is None or any(need.key == "data.root" for need in config.domain.needs):
        return
    elsewhere = config.copy()
    elsewhere.data.root = f"{root}/elsewhere"
    if all(plain(elsewhere.data.get(name)) == plain(config.data.get(name)) for name in ("train", "test", "tests")):
        raise BadValue(
            f"data.root={root}: domain={config.domain.name} draws its own portraits; give domain=church (or another) "
            "for photographs"
        )


def refuse_missing(whose: str, config: DictConfig, needs: Sequence[DictConfig]) -> None:
    """Name all files at once that are needed and not there, each with its source; raises MissingFile.

    Args:
        whose: who needs them, for the message.
        config: whose settings say where the files are looked for.
        needs: key of the setting, what it is, where it officially comes from.
    """
    missing = [need for need in needs if not present(config, need.key)]
    if missing:
        lines = [f"{need.key}={OmegaConf.select(config, need.key)} ({need.what}; {need.source})" for need in missing]
        raise MissingFile(
            f"{whose} needs {len(missing)} {'file' if len(missing) == 1 else 'files'} that "
            f"{'is' if len(missing) == 1 else 'are'} not there:\n  "
            + "\n  ".join(lines)
            + f"\nput them there, or name where they lie, e.g. {missing[0].key}=/path/to/file"
        )


def lambdas(config: DictConfig) -> list[str]:
    """The weights of a configuration, which stand at its root: `lambda_l2`, …."""
    return sorted(str(name) for name in config if str(name).startswith("lambda_"))


def needed(config: DictConfig, key: str) -> bool:
    """Whether a file of the domain takes part in this run: a judge whose every use has weight 0 does not."""
    if key == "similarity.checkpoint":
        return bool(config.lambda_id > 0)
    if key == "perceptual.checkpoint":
        return bool(config.lambda_lpips > 0)
    if key == "backbone.checkpoint":
        return bool(config.backbone.checkpoint != RANDOM)
    return True


def present(config: DictConfig, key: str) -> bool:
    """Whether the file or folder that a setting names is there."""
    path = OmegaConf.select(config, key)
    return path is not None and located(path) is not None


@dataclass
class Parts:
    """The parts of a run, each built when first asked for and only once."""

    config: DictConfig
    device: torch.device

    @cached_property
    def generator(self) -> Generator:
        generator: Generator = instantiate(self.config.generator)
        return generator.to(self.device)

    @cached_property
    def view(self) -> View:
        view: View = instantiate(self.config.view)
        return view

    @cached_property
    def perceptual(self) -> nn.Module | None:
        """The perceptual distance, or None where its weight is 0 and it would need a file."""
        return self._judge("perceptual")

    @cached_property
    def similarity(self) -> nn.Module | None:
        """The identity judge, or None where its weight is 0 and it would need a file."""
        return self._judge("similarity")

    @cached_property
    def judges(self) -> dict[str, Any]:
        """What tables look through: {"distance": …, "embedder": …}, None where its file is not there.

        Where they are the networks of the losses, those are shared, not loaded again.
        """
        found: dict[str, Any] = {}
        for role, name in (("distance", "perceptual"), ("embedder", "similarity")):
            node = self.config.judges[role]
            own = getattr(self, name) if plain(node) == plain(self.config[name]) else None
            there = "checkpoint" not in node or present(self.config, f"judges.{role}.checkpoint")
            found[role] = own if own is not None else instantiate(node).to(self.device) if there else None
        return found

    def _judge(self, name: str) -> nn.Module | None:
        if not needed(self.config, f"{name}.checkpoint") and not self._shipped(name):
            return None
        judge: nn.Module = instantiate(self.config[name])
        return judge.to(self.device)

    def _shipped(self, name: str) -> bool:
        return "checkpoint" not in self.config[name]

    @cached_property
    def space(self) -> NormalizedStyleSpace:
        return NormalizedStyleSpace(self.generator, **self.config.space, cache=cache_folder())

    @property
    def latent_avg(self) -> Tensor:
        """The generator's mean latent [C], which codes start from."""
        return self.generator.latent_avg

    @cached_property
    def adversary(self) -> Adversary:
        """The latent discriminator of the run and how it learns."""
        torch.manual_seed(derive(self.config.seed, "adversary"))
        adversary: Adversary = instantiate(self.config.adversary, style_dim=self.generator.style_dim)
        return adversary.to(self.device)

    @property
    def discriminator(self) -> LatentDiscriminator:
        """What an adversarial term looks through."""
        return self.adversary.discriminator

    def objective(self) -> Objective:
        """One term per lambda; a term of weight 0 is not built and asks for no network."""
        terms = {}
        for name, node in self.config.objective.items():
            if node.weight == 0:
                continue
            borrowed = [getattr(self, node.borrows)] if "borrows" in node else []
            terms[str(name)] = (float(node.weight), instantiate(node.term, *borrowed))
        return Objective(terms).to(self.device)

    def encoder(self) -> RowEncoder:
        """A new encoder for the generator, its backbone started as asked, its codes started at the mean latent."""
        torch.manual_seed(self.config.seed)
        generator = self.generator
        encoder: RowEncoder = instantiate(
            self.config.encoder,
            n_latent=generator.n_latent,
            style_dim=generator.style_dim,
            latent_avg=generator.latent_avg.cpu().clone(),
        )
        start = self.config.backbone.checkpoint
        if start != RANDOM:
            try:
                encoder.start_backbone(read_state(start))
            except BadValue as error:
                text = str(error)
                raise error if start in text else BadValue(f"backbone.checkpoint={start}: {text}") from error
        return encoder.to(self.device)

    def inverter(self, encoder: RowEncoder) -> nn.Module:
        """An encoder as it is used, images → w_plus [N, L, C]: as it is, or in several passes (ReStyle)."""
        if "iterations" not in self.config:
            return encoder
        return Iterated(encoder, self.generator, self.view, iterations=self.config.iterations)

    def stages(self) -> Stages:
        stages: Stages = instantiate(
            self.config.stages, n_latent=self.generator.n_latent, max_steps=self.config.max_steps
        )
        return stages

    def optimizer(self) -> Callable[..., torch.optim.Optimizer]:
        made: Callable[..., torch.optim.Optimizer] = instantiate(self.config.optimizer)
        return made

    def data(self) -> ImageDataModule:
        data = self.config.data
        tests = {str(name): instantiate(node) for name, node in data.tests.items()}
        test = instantiate(data.test, _convert_="all") if "test" in data else None
        if test is not None:
            tests["test"] = test
        return ImageDataModule(
            instantiate(data.train, _convert_="all"), tests, batch_size=self.config.batch_size, seed=self.config.seed,
            val_images=data.val_images, num_workers=data.num_workers, eval_batch_size=data.get("eval_batch_size"),
        )  # fmt: skip


def checked_file(key: str, path: str) -> Path:
    """The file that a setting names; raises MissingFile or BadValue, with the setting, where there is none."""
    found = located(path)
    if found is None:
        raise MissingFile(f"{key}={path}: there is no such file; name one that is there")
    if not found.is_file():
        raise BadValue(f"{key}={path} is a folder; name a file")
    return found


def check_sizes(parts: Parts, data: ImageDataModule) -> None:
    """Refuse images of another size than the view of the generator's; raises BadValue.

    One image of every source is read for it, where it can be read.
    """
    size = parts.generator.size
    height, width = parts.view(torch.zeros(1, 3, size, size)).shape[-2:]
    for source in (data.train, *data.tests.values()):
        try:
            image = source.read([0])
        except UnreadableImage:
            continue
        if tuple(image.shape[-2:]) != (height, width):
            raise BadValue(
                f"images come as {image.shape[-2]}x{image.shape[-1]} pixels (height x width), but the generator's are "
                f"seen as {height}x{width}: image_size, view.size and view.rows must agree"
            )


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


def fill_encoder(encoder: RowEncoder, path: str | Path, size: int, title: str) -> PublishedEncoder:
    """Give an encoder the weights of a file, mean latent included where the file has one.

    Args:
        encoder: filled in place.
        path: `encoder.safetensors` of a run, or a published checkpoint.
        size: pixels of the generator whose codes are wanted.
        title: what to call the encoder in messages.

    Raises:
        MissingFile, BadValue: no such file, or no encoder of this kind and size.
    """
    found = read_encoder(path, kind=encoder.kind, size=size)
    state = found.state if found.latent_avg is None else found.loadable(encoder.n_latent)
    load_weights(encoder, state, title, optional=("latent_avg",))
    return found


def plain(value: Any) -> Any:
    """A setting with its references resolved, as plain containers."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def as_written(node: DictConfig) -> Any:
    """A group of settings as its YAML says it, references unresolved."""
    return OmegaConf.to_container(node, resolve=False)
