"""From a composed configuration to the embedding that it names, the images that are meant, and a run's identity."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from lsap import encoder_runs
from lsap.assembly import (
    RANDOM,
    Parts,
    as_written,
    check_root,
    check_seed,
    check_weights,
    checked_file,
    fill_encoder,
    lambdas,
    plain,
    refuse_missing,
)
from lsap.cli import composed, positive, searchpath
from lsap.data import SUFFIXES, Photographs, Source, UnreadableImage, open_images
from lsap.data.folder import file_stamp
from lsap.embedding import Embedding, EncoderEmbedding, Optimisation
from lsap.embedding.optimisation import MeanLatent, Start
from lsap.errors import BadValue, MissingFile, nearest
from lsap.formats import file_digest, fingerprint, read_codes
from lsap.image_identity import GivenImages, names_digest
from lsap.runs import RunFolder
from lsap.runs.content import content_digest, image_digests

# What an optimisation and the encoder that it starts from have in common.
SHARED = (
    "seed", "outputs", "weights", "checkpoint", "generator", "view", "data", "encoders", "backbones", "backbone",
    "perceptual", "similarity", "trainer",
)  # fmt: skip
OPTIMISATION = "optimisation"  # embedding.kind of embeddings without training
TRUNK = "embedding.perceptual.checkpoint"
OWN_TRUNK = "refinement.perceptual.checkpoint"
TRUNK_NEED = {
    "key": TRUNK,
    "what": "VGG-16 trunk of LPIPS",
    "source": "https://download.pytorch.org/models/vgg16-397923af.pth",
}


def optimises(config: DictConfig) -> bool:
    """Whether the embedding optimises every image by itself; else it is a trained encoder."""
    return bool(config.embedding.get("kind") == OPTIMISATION)


def alignment(config: DictConfig) -> float | None:
    """The λ that codes are aligned by; None where nobody knows, as of an encoder out of a file."""
    if "lambda_nscd" not in config or (config.checkpoint is not None and not optimises(config)):
        return None
    return float(config.lambda_nscd)


def check(config: DictConfig) -> None:
    """Refuse a configuration that cannot run, before anything is loaded or written.

    Raises:
        BadValue: a count below one, a weight below zero, photographs for a domain that draws its own.
        MissingFile: weights or images are not there; all of them are listed.
    """
    positive("images_per_batch", config.images_per_batch)
    if config.count is not None:
        positive("count", config.count)
    check_seed(config.seed)
    check_weights(config, lambdas(config))
    positive("space.samples", config.space.samples)
    check_root(config)
    needs = [need for need in config.domain.needs if _needed(config, need.key)]
    if optimises(config) and _own_trunk(config) and config.lambda_lpips > 0:
        needs.append(OmegaConf.create(TRUNK_NEED))
    if OWN_TRUNK in refinement_needs(config) and "net" in config.perceptual:
        needs.append(OmegaConf.create(TRUNK_NEED | {"key": OWN_TRUNK}))
    needs += [OmegaConf.create({"key": key, "what": what, "source": "named by you"}) for key, what in _named(config)]
    refined = "" if config.refinement.name == "none" else f" refinement={config.refinement.name}"
    refuse_missing(f"embedding={config.embedding.name}{refined} on domain={config.domain.name}", config, needs)


def _named(config: DictConfig) -> list[tuple[str, str]]:
    """Settings that name a file of the user's own, and what it holds."""
    files = [("checkpoint", "an encoder"), ("refinement.checkpoint", "a refinement's network")]
    if config.get("init") not in (None, "mean", "encoder"):
        files.append(("init", "codes to start from"))
    return [(key, what) for key, what in files if OmegaConf.select(config, key) is not None]


def _needed(config: DictConfig, key: str) -> bool:
    if key == "generator.checkpoint":
        return True
    if key in refinement_needs(config):
        return True
    if key == "data.root":
        return config.images is None and config.data.get("test_root") is None
    if key == "perceptual.checkpoint":
        return optimises(config) and not _own_trunk(config) and bool(config.lambda_lpips > 0)
    if key == "similarity.checkpoint":
        return optimises(config) and bool(config.lambda_id > 0)
    return False


def refinement_needs(config: DictConfig) -> list[str]:
    """The settings of files that the refinement needs: of the perceptual distance, unless its weight is 0."""
    node = config.refinement
    return list(node.get("needs", ())) if node.get("lambda_lpips", 1) != 0 else []


def _own_trunk(config: DictConfig) -> bool:
    """Whether the embedding looks through another trunk than the domain's judge: only a published LPIPS has several."""
    return "perceptual" in config.embedding and "net" in config.perceptual


class InversionParts(Parts):
    """The parts of an inversion: those of a training, and what the losses and the tables look through."""

    @cached_property
    def fingerprint(self) -> str:
        """Of the generator."""
        return fingerprint(self.generator)

    @cached_property
    def trunk(self) -> nn.Module:
        """The perceptual distance that is optimised; tables go on using the domain's."""
        chosen = self.config.embedding.perceptual if _own_trunk(self.config) else {}
        judge: nn.Module = instantiate(self.config.perceptual, **chosen)
        return judge.to(self.device)

    def picture_rows(self, images: Tensor) -> Tensor:
        """The rows of the generator's images that hold the picture, at full size."""
        scale = images.shape[-1] // self.view.size
        return images.narrow(-2, self.view.first * scale, self.view.height * scale)

    def embedding(self) -> Embedding:
        """The module that embeds, by optimisation or through a trained encoder."""
        config = self.config
        name = config.embedding.name
        if not optimises(config):
            return EncoderEmbedding(trained(self)[0], self.generator, self.fingerprint, name).to(self.device)
        chosen = plain(config.optimisation)
        method: type[Optimisation] = get_class(chosen.pop("_target_"))
        return method(
            self.generator, self.fingerprint, name, view=self.view, objective=self.objective(), layers=self.space.names,
            start=self.start(), seed=config.seed, steps=config.steps, lambda_noise=config.lambda_noise,
            patience=config.patience, **chosen,
        ).to(self.device)  # fmt: skip

    def start(self) -> Start:
        """Where an optimisation begins, by `init`: the mean latent, an encoder's codes, or those of a file."""
        init = self.config.init
        if init in (None, "mean"):
            return MeanLatent(self.generator)
        if init == "encoder":
            encoder = trained(self.of_encoder())[0].to(self.device)
            return lambda images, names: encoder(images)
        return stored_codes(self, checked_file("init", init))

    def of_encoder(self) -> InversionParts:
        """The same parts under the embedding that `init=encoder` starts from, as it is trained by default."""
        config = self.config
        chosen = [f"domain={config.domain.name}", f"embedding={config.init_embedding}"]
        other = composed("invert", chosen, searchpath=searchpath())
        for name in SHARED:
            if name in config:
                other[name] = config[name]
        parts = InversionParts(other, self.device)
        parts.generator = self.generator
        return parts


def trained(parts: InversionParts) -> tuple[nn.Module, Path]:
    """The encoder that a configuration calls for, and the file that it came from.

    Raises:
        MissingFile: it has not been trained yet; the message holds the command that does.
        BadValue: `checkpoint` holds another encoder.
    """
    config = parts.config
    path = checked_file("checkpoint", config.checkpoint) if config.checkpoint is not None else own_run(parts)
    plain = config.copy()
    plain.backbone.checkpoint = RANDOM  # all weights come from the file
    builder = Parts(plain, parts.device)
    builder.generator = parts.generator
    encoder = builder.encoder()
    try:
        found = fill_encoder(encoder, path, parts.generator.size, f"this encoder (embedding={config.embedding.name})")
        if found.generator not in (None, parts.fingerprint):
            raise BadValue(
                f"this encoder belongs to generator {str(found.generator)[:12]}, but this run uses "
                f"{parts.fingerprint[:12]}; use its own generator, or train it for this one"
            )
    except BadValue as error:
        raise BadValue(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    return parts.inverter(encoder).eval(), path


def own_run(parts: InversionParts) -> Path:
    """`encoder.safetensors` of the finished run that these settings name."""
    folder = encoder_runs.run_folder(parts.config, parts, parts.data().train)
    if folder.state() != "finished":
        raise MissingFile(
            f"embedding={parts.config.embedding.name} has not been trained with these settings (looked in "
            f"{folder.path}); train it: {training_command(parts.config)}; or name an encoder with checkpoint="
        )
    return folder.path / "encoder.safetensors"


def training_command(config: DictConfig) -> str:
    """The command that trains what a command of inverting asked for: the same settings, less those of inverting."""
    typed = ["python -m lsap.train", f"domain={config.domain.name}", f"embedding={config.embedding.name}"]
    if HydraConfig.initialized():
        command = HydraConfig.get()
        accepted: set[str] = set(SHARED)  # of an optimisation that starts from this encoder
        if command.runtime.choices.get("embedding") == config.embedding.name:  # not every command has this group
            accepted = set(map(str, composed("train", typed[1:], searchpath=searchpath())))
        for override in map(str, command.overrides.task):
            key = re.split("[.=/]", override.lstrip("+~"))[0]
            if key in accepted - {"domain", "embedding", "refinement", "checkpoint"}:
                typed.append(override)
    return " ".join(typed)


def stored_codes(parts: InversionParts, path: Path) -> Start:
    """Codes of a file to start from, by the images' names; codes without names, one for all images, serve each."""
    generator = parts.generator
    found = read_codes(path, n_latent=generator.n_latent, style_dim=generator.style_dim, generator=parts.fingerprint)
    codes = found.codes if found.codes.ndim == 3 else found.codes[:, None].expand(-1, generator.n_latent, -1)
    if found.names is None and len(codes) > 1:
        raise BadValue(f"init={path}: {len(codes)} codes without names; nobody can tell whose they are")

    def start(images: Tensor, names: Sequence[str]) -> Tensor:
        if found.names is None:
            return codes.expand(len(images), -1, -1).to(images)
        absent = [name for name in names if name not in found.names]
        if absent:
            raise BadValue(f"init={path}: no code for {absent[0]} ({nearest(absent[0], found.names[:20])})")
        return codes[[found.names.index(name) for name in names]].to(images)

    return start


# ---- images


class OneFile:
    """A single file as a storage."""

    def __init__(self, path: Path) -> None:
        self.root = path.parent
        self.files = self.images = [path.name]

    def read(self, name: str) -> bytes:
        """Its bytes."""
        return (self.root / name).read_bytes()

    def stamp(self, name: str) -> tuple[int, int]:
        """Its size and modification time."""
        return file_stamp(self.root / name)


@dataclass(frozen=True)
class Chosen:
    """The images to invert: where they come from, which of them, and what to call the whole."""

    source: Source
    names: tuple[str, ...]
    label: str

    @cached_property
    def places(self) -> dict[str, int]:
        """Name → number in the source."""
        return {name: place for place, name in enumerate(self.source.names)}

    @cached_property
    def digests(self) -> dict[str, str] | None:
        """Name → size and digest of the image's file; None where the source renders its images."""
        return image_digests(self.source, self.names)

    def read(self, names: Sequence[str]) -> tuple[list[str], Tensor | None, dict[str, str]]:
        """Names and images [N, 3, H, W] of those that can be read, and why the others cannot."""
        kept, skipped = list(names), dict[str, str]()
        while kept:
            try:
                return kept, self.source.read([self.places[name] for name in kept]), skipped
            except UnreadableImage as error:
                skipped[error.name] = error.reason
                kept = [name for name in kept if name not in skipped]
        return [], None, skipped


def chosen_images(config: DictConfig, view_size: tuple[int, int]) -> Chosen:
    """The images that `images`, `split` and `count` name.

    Args:
        config: of the command.
        view_size: (height, width) that images are read at.

    Raises:
        MissingFile, BadValue: there is no such folder, file or split.
    """
    if config.images is not None:
        path = Path(config.images).expanduser()
        if config.split is not None:
            raise BadValue(
                f"images={path} and split={config.split}: a split is one of the domain's own; give one of both"
            )
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            source: Source = Photographs(OneFile(path), [path.name], view_size, config.data.strict)
        else:
            source = open_images(path, view_size, config.data.strict, setting="images")
        label = re.sub(r"[^\w.-]+", "-", path.resolve().name) or "images"
    else:
        splits = {str(name): node for name, node in config.data.tests.items()}
        if "test" in config.data:
            splits["test"] = config.data.test
        label = str(config.split or next(iter(splits), "test"))
        if label not in splits:
            raise BadValue(f"split={label}: domain={config.domain.name} has no such split; {nearest(label, splits)}")
        source = instantiate(splits[label], _convert_="all")
        if source is None:
            raise MissingFile("there are no test images here: name a folder with images= or data.test_root=")
    names = tuple(source.names)[: config.count]
    return Chosen(source, names, label)


# ---- identity

OF_OPTIMISATIONS = ("steps", "patience", "optimisation", "objective", "init")
OF_ALL = ("seed", "space", "view", "images", "split", "count", "iterations")


def run_folder(parts: InversionParts, chosen: Chosen) -> RunFolder:
    """Where the inversions of these settings, weights and images go; its `settings` are what the store keeps."""
    config = parts.config
    save_to = config.save_to if config.refinement.name == "none" else None
    return inversion_folder(config, chosen, f"inversions/{config.embedding.name}", *identity(parts), save_to)


def inversion_folder(
    config: DictConfig,
    chosen: Chosen,
    method: str,
    settings: dict[str, Any],
    defaults: dict[str, Any],
    save_to: str | None = None,
) -> RunFolder:
    """The folder of inversions of these settings and of the content of these images; `save_to` names another one.

    Inversions of version 0.1, which recorded only the names of images, are found where they can be of no others.
    """

    def folder(images: str | None) -> RunFolder:
        known = RunFolder(
            config.outputs, config.domain.name, method, settings | {"images": images}, defaults | {"images": None}
        )
        known.path = known.path if save_to is None else Path(save_to)
        return known

    if chosen.digests is None:
        return folder(None)
    by_names = None if config.images is None else f"{chosen.label}-{names_digest(chosen.names)[:6]}"
    setting = "images" if by_names else "data.test_root" if config.data.get("test_root") else "data.root"
    given = GivenImages(chosen.source, chosen.names, setting, OmegaConf.select(config, setting))
    return given.find(folder(content_digest(chosen.digests)), folder(by_names))


def identity(parts: InversionParts) -> tuple[dict[str, Any], dict[str, Any]]:
    """What decides the inversions of an embedding beside its images, and the same when the user changes nothing."""
    config = parts.config
    usual = composed(
        "invert", [f"domain={config.domain.name}", f"embedding={config.embedding.name}"], searchpath=searchpath()
    )
    settings, defaults = _settings(config), _settings(usual)
    for name in ("objective", "optimisation"):  # what only repeats a knob at the root need not be in the name too
        if name in settings and as_written(config[name]) == as_written(usual[name]):
            defaults[name] = settings[name]
    if config.images is None and config.split == next(iter(config.data.tests), None):
        settings["split"] = None  # the one that is taken anyway
    settings["precision"], defaults["precision"] = config.trainer.precision, usual.trainer.precision
    settings["images_per_batch"], defaults["images_per_batch"] = config.images_per_batch, usual.images_per_batch
    same = config.generator.get("checkpoint") == usual.generator.get("checkpoint")
    settings["generator"], defaults["generator"] = parts.fingerprint[:12], parts.fingerprint[:12] if same else None
    for role, judge in parts.judges.items():
        settings[role] = defaults[role] = None if judge is None else fingerprint(judge)[:12]
    if optimises(config):
        settings["trunk"] = defaults["trunk"] = fingerprint(parts.trunk)[:12] if config.lambda_lpips > 0 else None
        if config.init not in (None, "mean", "encoder"):
            settings["init"] = file_digest(checked_file("init", config.init))[:12]
        elif config.init == "encoder":
            settings["init"] = f"encoder-{file_digest(trained(parts.of_encoder())[1])[:8]}"
    else:
        path = trained(parts)[1]
        settings["encoder"] = file_digest(path)[:12]
        own = config.checkpoint is None
        settings["run"], defaults["run"] = (path.parent.name if own else None), ("default" if own else None)
        defaults["encoder"] = settings["encoder"] if own else None
    return settings, defaults


def _settings(config: DictConfig) -> dict[str, Any]:
    names = (*lambdas(config), *OF_OPTIMISATIONS, *OF_ALL) if optimises(config) else OF_ALL
    return {name: plain(config[name]) for name in names if name in config}


def view_size(parts: InversionParts) -> tuple[int, int]:
    """(height, width) of what losses and tables see."""
    size = parts.generator.size
    height, width = parts.view(torch.zeros(1, 3, size, size)).shape[-2:]
    return int(height), int(width)
