"""Where the training of a refinement's own network lives: the folder that settings, weights and images call for.

Whoever wants the network finds it by the function that its training wrote by, or is told the command that makes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class
from omegaconf import DictConfig
from torch import nn

from lsap.checkpoints import fingerprint
from lsap.config.compose import composed, searchpath
from lsap.config.containers import plain
from lsap.errors import BadValue
from lsap.pipelines.run_identity.images import GivenImages, names_digest, source_digest
from lsap.refinement import RefinementTraining
from lsap.runs import RunFolder

if TYPE_CHECKING:
    from lsap.pipelines.build import Parts

ENCODER = "encoder_in_use"  # the part that a network is trained over an encoder by
BESIDE = ("borrows", "needs", "examples")  # keys of a node that decide nothing themselves, or are looked at apart
OF_INVERTING = ("images", "split", "count", "images_per_batch", "init_embedding", "save_to")
Identity = tuple[dict[str, Any], dict[str, Any]]  # settings, and what they are when the user changes nothing


def network_class(node: DictConfig) -> type[RefinementTraining]:
    """How a refinement's own network is trained.

    Args:
        node: `refinement` of a configuration.

    Raises:
        BadValue: it has none.
    """
    if "training" not in node:
        raise BadValue(
            f"refinement={node.name} trains nothing beforehand; it works on inversions: python -m lsap.invert "
            f"refinement={node.name}"
        )
    way: type[RefinementTraining] = get_class(node.training._target_)
    return way


def network_folder(parts: Parts) -> RunFolder:
    """Where the training of a refinement's own network lives: named by what was changed of its settings.

    The settings are those of `refinement.training`, the networks that it looks through, and the training images; how
    images are refined afterwards does not count. Over an encoder, the encoder's run counts, too.

    Raises:
        MissingFile, BadValue: a network that it looks through is not there.
    """
    config, usual = parts.config, _usual(parts.config)
    settings, defaults = _identity(parts, config.refinement.training, usual.refinement.training)
    examples = _examples(parts) if "examples" in config.refinement.training else None
    if ENCODER in config.refinement.training.get("borrows", {}).values():
        own = config.get("checkpoint") is None
        settings["embedding"], defaults["embedding"] = config.embedding.name, usual.embedding.name
        settings["run"], defaults["run"] = (parts.trained_encoder[1].parent.name if own else None), "default"
    return _folder(parts, config.refinement.name, settings, defaults, examples)


def examples_folder(parts: Parts) -> RunFolder:
    """Where the examples of such a training live: named by what was changed of their own settings; raises likewise."""
    return _folder(parts, f"{parts.config.refinement.name}-examples", *_examples(parts))


def network_command(config: DictConfig) -> str:
    """The command that trains the own network of the refinement that a command of inverting asked for."""
    typed = [f"domain={config.domain.name}", f"refinement={config.refinement.name}"]
    if HydraConfig.initialized() and "refinement" in HydraConfig.get().runtime.choices:  # else none of these are its
        for given in map(str, HydraConfig.get().overrides.task):
            key = given.split("=")[0].lstrip("+~")
            named = key in ("domain", "refinement", "refinement.checkpoint")
            if not named and re.split("[.]", key)[0] not in OF_INVERTING:
                typed.append(given)
    return " ".join(["python -m lsap.train", *typed])


def marks(parts: Parts, node: DictConfig) -> dict[str, str]:
    """The fingerprints of the networks that a node borrows, shortened, by argument."""
    borrowed = {name: part for name, part in parts.borrowed(node).items() if isinstance(part, nn.Module)}
    return {name: fingerprint(part)[:12] for name, part in borrowed.items() if part.state_dict()}


def _examples(parts: Parts) -> Identity:
    usual = _usual(parts.config)
    return _identity(parts, parts.config.refinement.training.examples, usual.refinement.training.examples)


def _identity(parts: Parts, node: DictConfig, usual_node: DictConfig) -> Identity:
    """What decides how the work of a node turns out: its settings, seed, view, the networks it borrows, the images."""
    config, usual = parts.config, _usual(parts.config)

    def described(whole: DictConfig, part: DictConfig) -> dict[str, Any]:
        chosen: Mapping[str, Any] = plain(part)
        own = {key: value for key, value in chosen.items() if key not in BESIDE}
        return {"seed": whole.seed, "view": plain(whole.view), **own}

    settings, defaults = described(config, node), described(usual, usual_node)
    found = {"generator": parts.fingerprint[:12]} | marks(parts, node)
    same = config.generator.get("checkpoint") == usual.generator.get("checkpoint")
    return settings | found, defaults | {argument: mark if same else None for argument, mark in found.items()}


def _folder(
    parts: Parts,
    name: str,
    settings: dict[str, Any],
    defaults: dict[str, Any],
    examples: Identity | None = None,
) -> RunFolder:
    """The folder of work on the training images: by settings and the content of the images."""
    config = parts.config
    usual_root = config.data.root == _usual(config).data.root

    def folder(digest: str) -> RunFolder:
        images, usual = {"names": digest}, {"names": digest if usual_root else None}
        known, usually = settings | images, defaults | usual
        if examples is not None:
            known, usually = known | {"examples": examples[0] | images}, usually | {"examples": examples[1] | usual}
        return RunFolder(config.outputs, config.domain.name, f"refinements/{name}", known, usually)

    source = parts.training_images
    by_names, content = names_digest(source.names), source_digest(source)
    if content is None:
        return folder(by_names)
    return GivenImages(source, source.names, "data.root", config.data.root).find(folder(content), folder(by_names))


def _usual(config: DictConfig) -> DictConfig:
    choices = [f"domain={config.domain.name}", f"refinement={config.refinement.name}"]
    return composed("train", choices, searchpath=searchpath())
