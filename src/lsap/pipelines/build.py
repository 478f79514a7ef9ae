"""From a composed configuration to the parts of a run: generator, encoder, losses, metric networks, refinement."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from lsap.alignment import NormalizedStyleSpace
from lsap.checkpoints import PublishedEncoder, fingerprint, read_codes, read_encoder, read_state
from lsap.config.checks import (
    FOR_VERBS,
    RANDOM,
    _own_trunk,
    checked_file,
    needed,
    optimises,
    present,
)
from lsap.config.compose import composed, searchpath
from lsap.config.containers import editable, plain
from lsap.data import ImageDataModule, Source, UnreadableImage
from lsap.embedding import (
    Adversary,
    Embedding,
    EncoderEmbedding,
    Iterated,
    LatentDiscriminator,
    Optimisation,
    RowEncoder,
    Stages,
)
from lsap.embedding.optimisation import MeanLatent, Start
from lsap.errors import BadValue, MissingFile, nearest
from lsap.losses import Objective, Term
from lsap.pipelines.run_identity import encoders as encoder_runs
from lsap.pipelines.run_identity.refinements import network_class, network_command, network_folder
from lsap.pretrained import load_weights
from lsap.refinement import (
    Consultation,
    Predictor,
    Refinement,
    RefinementTraining,
    consulted_channels,
    load_consultation,
    load_predictor,
)
from lsap.runs import cache_folder
from lsap.seeds import derive
from lsap.stylegan2 import StyleGenerator, View


def check_optimizer(key: str, node: DictConfig) -> None:
    """Refuse settings that an optimiser does not take, by making one for a single number; raises BadValue."""
    made = instantiate(node)
    try:
        made([nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError) as error:
        raise BadValue(f"{key} ({node._target_}) does not take these settings: {error}") from error


@dataclass
class Parts:
    """The parts of a run, each built when first asked for and only once."""

    config: DictConfig
    device: torch.device

    @cached_property
    def generator(self) -> StyleGenerator:
        generator: StyleGenerator = instantiate(self.config.generator)
        return generator.to(self.device)

    @cached_property
    def view(self) -> View:
        view: View = instantiate(self.config.view)
        return view

    @cached_property
    def perceptual(self) -> nn.Module | None:
        """The perceptual distance, or None where its weight is 0 and it would need a file."""
        return self._network("perceptual")

    @cached_property
    def similarity(self) -> nn.Module | None:
        """The identity judge, or None where its weight is 0 and it would need a file."""
        return self._network("similarity")

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

    def _network(self, name: str) -> nn.Module | None:
        if not needed(self.config, f"{name}.checkpoint") and not self._shipped(name):
            return None
        network: nn.Module = instantiate(self.config[name])
        return network.to(self.device)

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
            terms[str(name)] = (float(node.weight), self._term(str(name), node))
        return Objective(terms).to(self.device)

    def _term(self, name: str, node: DictConfig) -> Term:
        """A term with the parts that it borrows: by argument, or one alone, which is then its first argument."""
        made: Callable[..., Term] = instantiate(node.term, _partial_=True)
        borrows = node.get("borrows", {})
        try:
            return made(self.part(borrows)) if isinstance(borrows, str) else made(**self.borrowed(node))
        except TypeError as error:
            raise BadValue(f"objective.{name}.term ({node.term._target_}) does not take these: {error}") from error

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

    # ---- inversion

    @cached_property
    def fingerprint(self) -> str:
        """Of the generator."""
        return fingerprint(self.generator)

    @cached_property
    def trunk(self) -> nn.Module:
        """The perceptual distance that is optimised; tables go on using the domain's."""
        chosen = self.config.embedding.perceptual if _own_trunk(self.config) else {}
        network: nn.Module = instantiate(self.config.perceptual, **chosen)
        return network.to(self.device)

    @cached_property
    def view_size(self) -> tuple[int, int]:
        """(height, width) of what losses and tables see."""
        size = self.generator.size
        height, width = self.view(torch.zeros(1, 3, size, size)).shape[-2:]
        return int(height), int(width)

    def picture_rows(self, images: Tensor) -> Tensor:
        """The rows of the generator's images that hold the picture, at full size."""
        scale = images.shape[-1] // self.view.size
        return images.narrow(-2, self.view.first * scale, self.view.height * scale)

    def embedding(self) -> Embedding:
        """The module that embeds, by optimisation or through a trained encoder."""
        config = self.config
        name = config.embedding.name
        if not optimises(config):
            return EncoderEmbedding(self.trained_encoder[0], self.generator, self.fingerprint, name).to(self.device)
        chosen = plain(config.optimisation)
        method: type[Optimisation] = get_class(chosen.pop("_target_"))
        return method(
            self.generator, self.fingerprint, name, view=self.view, objective=self.objective(), layers=self.space.names,
            start=self.start(), seed=config.seed, steps=config.steps, lambda_noise=config.lambda_noise,
            patience=config.patience, **chosen,
        ).to(self.device)  # fmt: skip

    @cached_property
    def trained_encoder(self) -> tuple[nn.Module, Path]:
        """The encoder that the configuration calls for, and the file that it came from; raises as `trained`."""
        return trained(self)

    def start(self) -> Start:
        """Where an optimisation begins, by `init`: the mean latent, an encoder's codes, or those of a file."""
        init = self.config.init
        if init in (None, "mean"):
            return MeanLatent(self.generator)
        if init == "encoder":
            encoder = self.of_encoder().trained_encoder[0].to(self.device)
            return lambda images, names: encoder(images)
        return stored_codes(self, checked_file("init", init))

    def of_encoder(self) -> Parts:
        """The same parts under the embedding that `init=encoder` starts from, as it is trained by default."""
        config = self.config
        chosen = [f"domain={config.domain.name}", f"embedding={config.init_embedding}"]
        other = composed("invert", chosen, searchpath=searchpath())
        for name in SHARED:
            if name in config:
                other[name] = config[name]
        parts = Parts(other, self.device)
        parts.generator = self.generator
        return parts

    # ---- refinement; `borrows` in its YAML names the parts that it is given

    @property
    def seed(self) -> int:
        """Of all that is drawn."""
        return int(self.config.seed)

    @property
    def distance(self) -> nn.Module | None:
        """The perceptual distance that a refinement minimises; None where its weight is 0."""
        return None if self.config.refinement.lambda_lpips == 0 else self.judged

    @cached_property
    def judged(self) -> nn.Module:
        """The perceptual distance of the refinement: the domain's, or over the trunk that its YAML asks for."""
        own = self.config.refinement.get("perceptual")
        chosen = own if own is not None and "net" in self.config.perceptual else {}
        network: nn.Module = instantiate(self.config.perceptual, **chosen)
        return network.to(self.device)

    @cached_property
    def training_images(self) -> Source:
        """The domain's images that are trained on, the held-out slice included."""
        source: Source = instantiate(self.config.data.train, _convert_="all")
        return source

    @property
    def distance_in_training(self) -> nn.Module | None:
        """The perceptual distance that a refinement's network learns by; None where its weight is 0."""
        return None if self.config.refinement.training.lambda_lpips == 0 else self.judged

    @cached_property
    def identity_in_training(self) -> nn.Module | None:
        """The judge of identity that a refinement's network learns by; None where its weight is 0."""
        if self.config.refinement.training.lambda_id == 0:
            return None
        network: nn.Module = instantiate(self.config.similarity)
        return network.to(self.device)

    @cached_property
    def encoder_in_use(self) -> nn.Module:
        """The trained encoder of the embedding, frozen: images [N, 3, H, W] → codes [N, L, C]; raises as `trained`."""
        return self.trained_encoder[0].requires_grad_(False).to(self.device)

    @cached_property
    def network_file(self) -> Path:
        """Where the refinement's own network lies: `refinement.checkpoint`, or the finished training of these settings.

        Raises:
            MissingFile: neither is there; the message holds the command that trains it.
        """
        node = self.config.refinement
        if node.checkpoint is not None:
            return checked_file("refinement.checkpoint", node.checkpoint)
        elsewhere = f" (published: {node.published})" if "published" in node else ""
        advice = (
            f"train it: {network_command(self.config)}; or name a file of one with refinement.checkpoint={elsewhere}"
        )
        try:
            folder = network_folder(self)
        except (MissingFile, InstantiationException) as error:
            cause = error if isinstance(error, MissingFile) else error.__cause__
            if not isinstance(cause, MissingFile):
                raise
            raise MissingFile(
                f"refinement={node.name} needs a network of its own; {advice}. Yours cannot be looked for: {cause}"
            ) from error
        if folder.state() != "finished":
            raise MissingFile(
                f"refinement={node.name} needs a network of its own, which has not been trained with these settings "
                f"(looked in {folder.path}); {advice}"
            )
        return folder.path / network_class(node).file

    @cached_property
    def predictor(self) -> Predictor:
        """SAM's invertibility predictor; raises as `network_file` and `load_predictor`."""
        return load_predictor(self.network_file, self.fingerprint).to(self.device)

    @cached_property
    def consultation(self) -> Consultation:
        """HFGI's networks; raises as `network_file` and `load_consultation`."""
        channels = consulted_channels(self.generator)
        return load_consultation(self.network_file, channels, self.fingerprint).to(self.device)

    def training(self) -> RefinementTraining:
        """The module that trains the refinement's own network, with its parts."""
        node = self.config.refinement.training
        borrowed = self.borrowed(node)
        torch.manual_seed(derive(self.seed, "refinement"))  # of the network's first weights
        made = arguments(node, FOR_TRAINING)
        optimizer: Callable[..., torch.optim.Optimizer] = instantiate(node.optimizer)
        return network_class(self.config.refinement)(**borrowed, **made, optimizer=optimizer, seed=self.seed)

    def examples(self) -> Refinement:
        """The module that makes what the training learns from."""
        node = self.config.refinement.training.examples
        refinement: type[Refinement] = get_class(node._target_)
        given = self.borrowed(node) | arguments(node, FOR_EXAMPLES)
        return refinement(self.generator, self.fingerprint, **given).to(self.device)

    def borrowed(self, node: DictConfig) -> dict[str, Any]:
        """The parts that a node's `borrows` names, by argument."""
        return {str(argument): self.part(part) for argument, part in node.get("borrows", {}).items()}

    def part(self, name: str) -> Any:
        """A part by the name that `borrows` gives: a property of this class.

        Raises:
            BadValue: there is none of this name.
        """
        known = [n for n, v in vars(Parts).items() if isinstance(v, property | cached_property) and n[0] != "_"]
        if name not in known:
            raise BadValue(f"borrows: a run has no part {name!r}; {nearest(name, known)}")
        return getattr(self, name)

    def refinement(self) -> Refinement:
        """The module that refines, with its parts."""
        node = self.config.refinement
        refinement: type[Refinement] = get_class(node._target_)
        given = self.borrowed(node) | arguments(node)
        return refinement(self.generator, self.fingerprint, node.name, **given).to(self.device)


def check_sizes(parts: Parts, data: ImageDataModule) -> None:
    """Refuse images of another size than the view of the generator's; raises BadValue.

    One image of every source is read for it, where it can be read.
    """
    height, width = parts.view_size
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


def fill_encoder(encoder: RowEncoder, path: str | Path, title: str) -> PublishedEncoder:
    """Give an encoder the weights of a file, mean latent included where the file has one.

    Args:
        encoder: filled in place.
        path: `encoder.safetensors` of a run, or a published checkpoint.
        title: what to call the encoder in messages.

    Raises:
        MissingFile, BadValue: no such file, or no encoder of this kind and number of rows.
    """
    found = read_encoder(path, kind=encoder.kind)
    if found.kind != "w" and found.n_latent != encoder.n_latent:  # a single code serves any number of rows
        raise BadValue(
            f"{path}: its encoder answers {found.n_latent} rows of W+, but this generator takes {encoder.n_latent}; "
            "use an encoder of this generator, or its own generator"
        )
    state = found.state if found.latent_avg is None else found.loadable(encoder.n_latent)
    load_weights(encoder, state, title, optional=("latent_avg",))
    return found


# What an optimisation and the encoder that it starts from have in common.
SHARED = (
    "seed", "outputs", "weights", "checkpoint", "generator", "view", "data", "encoders", "backbones", "backbone",
    "perceptual", "similarity", "trainer",
)  # fmt: skip


def trained(parts: Parts) -> tuple[nn.Module, Path]:
    """The encoder that a configuration calls for, and the file that it came from.

    Raises:
        MissingFile: it has not been trained yet; the message holds the command that does.
        BadValue: `checkpoint` holds another encoder.
    """
    config = parts.config
    path = checked_file("checkpoint", config.checkpoint) if config.checkpoint is not None else own_run(parts)
    plain = editable(config)
    plain.backbone.checkpoint = RANDOM  # all weights come from the file
    builder = Parts(plain, parts.device)
    builder.generator = parts.generator
    encoder = builder.encoder()
    try:
        found = fill_encoder(encoder, path, f"this encoder (embedding={config.embedding.name})")
        if found.generator not in (None, parts.fingerprint):
            raise BadValue(
                f"this encoder belongs to generator {str(found.generator)[:12]}, but this run uses "
                f"{parts.fingerprint[:12]}; use its own generator, or train it for this one"
            )
    except BadValue as error:
        raise BadValue(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    return parts.inverter(encoder).eval(), path


def own_run(parts: Parts) -> Path:
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


def stored_codes(parts: Parts, path: Path) -> Start:
    """Codes of a file to start from, by the images' names; codes without names, one for all images, serve each."""
    generator = parts.generator
    rows, owner = generator.n_latent, parts.fingerprint
    found = read_codes(path, n_latent=rows, style_dim=generator.style_dim, generator=owner, codes_in="w_plus")
    codes = found.rows(rows)
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


# The same of the node `training`, and of `examples` in it.
FOR_TRAINING = ("_target_", "borrows", "needs", "optimizer", "batch_size", "max_steps", "val_images", "examples")


FOR_EXAMPLES = ("_target_", "borrows", "images", "images_per_batch")


def arguments(node: DictConfig, less: Sequence[str] = FOR_VERBS) -> dict[str, Any]:
    """What the class of a node is built with, the objects that its YAML describes already made; `less`: other keys."""
    made: dict[str, Any] = instantiate(OmegaConf.create(_plain_arguments(node, less)), _convert_="all")
    return made


def _plain_arguments(node: DictConfig, less: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in plain(node).items() if key not in less}
