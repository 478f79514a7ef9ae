"""Combinations of settings that cannot work, and missing files: refused before anything is loaded or written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lsap.checkpoints.paths import located
from lsap.config.containers import editable, plain
from lsap.errors import BadValue, MissingFile

NONE = "none"  # refinement=none: the embedding alone
# What a refinement's YAML says to the commands; all else under `refinement` are arguments of its class.
FOR_VERBS = ("name", "_target_", "borrows", "needs", "perceptual", "published", "checkpoint", "training")
SHORT_PRECISIONS = {"16": "16-mixed", "32": "32-true", "64": "64-true", "bf16": "bf16-mixed"}  # as Lightning reads them
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


def check_train(config: DictConfig) -> None:
    """`check_training`, unless the network of a refinement is to be trained, which its pipeline checks."""
    if config.refinement.name == NONE:
        check_training(config)


def check_training(config: DictConfig) -> None:
    """Refuse an encoder's training that cannot run, before anything is loaded or written.

    Raises:
        BadValue: an embedding that is not trained, or photographs for a domain that draws its own.
        MissingFile: weights or images are not there; *all* of them are listed, with their source and override.
    """
    check_trainable(config)
    if config.checkpoint is not None:
        raise BadValue(
            f"checkpoint={config.checkpoint} names the encoder that a refinement is trained over, and refinement=none; "
            "to start this training from an encoder, give init="
        )
    check_root(config)
    if config.get("lambda_adv", 1) == 0:
        raise BadValue(
            "lambda_adv=0: an encoder without its adversary is trained as embedding=lsap_e; give that lambda_nscd="
            f"{config.lambda_nscd:g} lambda_delta={config.lambda_delta:g} lr={config.lr:g}"
        )
    needs = [need for need in config.domain.needs if needed(config, need.key)]
    refuse_missing(f"domain={config.domain.name}", config, needs)


def check_root(config: DictConfig) -> None:
    """Refuse photographs where the domain draws its own and would not look at them; raises BadValue."""
    root = config.data.get("root")
    if root is None or any(need.key == "data.root" for need in config.domain.needs):
        return
    elsewhere = editable(config)
    elsewhere.data.root = f"{root}/elsewhere"
    before, after = ([plain(c.data.get(name)) for name in ("train", "test", "tests")] for c in (config, elsewhere))
    spelled_out = str({"root": root})[1:-1] in str(before)  # as in the sources of a stored run
    if before == after and not spelled_out:
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
    if key.split(".")[0] in borrowed(config):
        return True
    if key == "similarity.checkpoint":
        return bool(config.lambda_id > 0)
    if key == "perceptual.checkpoint":
        return bool(config.lambda_lpips > 0)
    if key == "backbone.checkpoint":
        return bool(config.backbone.checkpoint != RANDOM)
    return True


def borrowed(config: DictConfig) -> set[str]:
    """The parts that the terms of the loss borrow, those of weight 0 left out."""
    parts: set[str] = set()
    for node in config.get("objective", {}).values():
        borrows = node.get("borrows", {}) if node.weight != 0 else {}
        parts |= {borrows} if isinstance(borrows, str) else set(borrows.values())
    return parts


def present(config: DictConfig, key: str) -> bool:
    """Whether the file or folder that a setting names is there."""
    path = OmegaConf.select(config, key)
    return path is not None and located(path) is not None


def checked_file(key: str, path: str) -> Path:
    """The file that a setting names; raises MissingFile or BadValue, with the setting, where there is none."""
    found = located(path)
    if found is None:
        raise MissingFile(f"{key}={path}: there is no such file; name one that is there")
    if not found.is_file():
        raise BadValue(f"{key}={path} is a folder; name a file")
    return found


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


def check_inversion(config: DictConfig) -> None:
    """Refuse a configuration that cannot run, before anything is loaded or written.

    Raises:
        BadValue: photographs for a domain that draws its own.
        MissingFile: weights or images are not there; all of them are listed.
    """
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
    if optimises(config) and key.split(".")[0] in borrowed(config):
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
