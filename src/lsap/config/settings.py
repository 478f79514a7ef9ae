"""The type of every setting, declared once. A configuration is checked as soon as it is composed.

Settings that are not listed, and those below the `_target_` of a custom class, are checked by the class that takes
them. The content of *files* is checked where they are read.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lsap.config.containers import plain
from lsap.values import (
    COUNT,
    FLAG,
    FRACTION,
    HALF,
    NUMBER,
    PATH,
    PATHS,
    POSITIVE,
    SHARE,
    SIZE,
    STEPS,
    WEIGHT,
    WHOLE,
    Kind,
    one_of,
)

OWN = ("lsap.", "torch.")  # classes whose settings are declared here
DEVICES = Kind(  # `lsap.pipelines.fit` compares it with the GPUs that are there
    Literal["auto", -1] | COUNT.type | WHOLE.listed("").type | str,
    "auto, a number of processes of at least 1, or a list of GPUs as [0,1]",
)
PRECISIONS = ("16-mixed", "16-true", "32-true", "64-true", "bf16-mixed", "bf16-true")
PRECISION = Kind(Literal[*PRECISIONS, "16", "32", "64", "bf16", 16, 32, 64], " or ".join(PRECISIONS), PRECISIONS)
LAMBDAS = WEIGHT.listed("at least two different numbers of at least 0, as [0,0.5]")
ANY = Kind(Any, "settings")
ACCELERATOR = one_of("auto", "cpu", "cuda", "gpu")

# Dotted keys, as they are typed; `*` stands for any text, dots included. The first match counts.
SETTINGS: dict[str, Kind] = {
    # every command
    "seed": WHOLE,
    "debug": FLAG,
    "outputs": PATH,
    "weights": PATH,
    "save_to": PATH.or_null(),
    "images": PATH.or_null(),
    "count": COUNT.or_null("for all images"),
    "shown": COUNT,
    "accelerator": ACCELERATOR,
    "space.samples": COUNT,
    "space.seed": WHOLE,
    "space.layers": one_of("published", "convolutions"),
    "checkpoint": PATH.or_null(),
    "*.checkpoint": PATH.or_null(),
    # images
    "image_size": SIZE,
    "view.size": COUNT,
    "generator.size": COUNT,
    "data.root": PATH.or_null(),
    "data.test_root": PATH.or_null(),
    "data.strict": FLAG,
    "data.num_workers": WHOLE,
    "data.eval_batch_size": COUNT.or_null("for batch_size"),
    "data.*.count": COUNT,
    "*val_images": WHOLE.or_null("for every twentieth image"),
    # training, inversion, refinement
    "*max_steps": COUNT,
    "*batch_size": COUNT,
    "*images_per_batch": COUNT,
    "refinement.training.examples.feature_steps": COUNT.or_null("for as many as steps"),
    "*steps": COUNT,
    "*lr": POSITIVE,
    "lambdas": LAMBDAS,
    "*lambda_*": WEIGHT,
    "init": PATH.or_null(),
    "iterations": COUNT,
    "stages.start": STEPS,
    "stages.every": STEPS,
    "adversary.r1": WEIGHT,
    "adversary.r1_every": COUNT,
    "adversary.pool": COUNT,
    "patience": COUNT.or_null("for all steps"),
    "*.rampup": POSITIVE,
    "*.rampdown": POSITIVE,
    "optimisation.noise_ramp": POSITIVE,
    "optimisation.latent_noise": WEIGHT,
    "optimisation.compiled": FLAG,
    "refinement.stop_at": POSITIVE.or_null("for all steps"),
    "refinement.rank": COUNT.or_null("to keep differences whole"),
    "refinement.at_once": COUNT.or_null(),
    "refinement.locality.alpha": POSITIVE,
    "refinement.locality.samples": COUNT,
    "refinement.locality.every": COUNT,
    "refinement.tau": POSITIVE,
    "refinement.samples": COUNT,
    "refinement.segmenter.folder": PATH.or_null(),
    "refinement.segmenter.faces": PATH.or_null(),
    "refinement.segmenter.count": COUNT,
    "refinement.segmenter.compactness": POSITIVE,
    "refinement.training.distortion": SHARE,
    "refinement.training.share": SHARE,
    "refinement.training.examples.images": COUNT,
    "trainer.accelerator": ACCELERATOR,
    "trainer.devices": DEVICES,
    "trainer.num_nodes": COUNT,
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.precision": PRECISION,
    "trainer.gradient_clip_val": POSITIVE.or_null("to clip nothing"),
    "trainer.val_check_interval": FRACTION,
    "trainer.save_every": FRACTION,
    "trainer.recompute": FLAG,
    "trainer.channels_last": FLAG,
    # editing and evaluation
    "inversions": PATH.or_null(),
    "direction": PATHS.or_null(),
    "reader": PATH.or_null(),
    "matched": one_of("run", "image"),
    "matched_on": COUNT,
    "runs": PATHS.or_null(),
    "codes_order": one_of("text", "natural").or_null(),
    "codes_in": one_of("w", "w_plus").or_null(),
    "common": FLAG,
    "correlations": FLAG,
    "lec_batch": COUNT,
    "chunk": COUNT,
    "workers": COUNT,
    "inception": PATH.or_null(),
    "discriminator": PATH.or_null(),
    "protocol.size": SIZE.or_null("for that of the pictures"),
    "logger.offline": FLAG,
}

# Settings of one command alone, or of another type there.
OF_COMMAND: dict[str, dict[str, Kind]] = {
    "app": {
        "source": PATH,
        "settings": PATHS,
        "refinement_steps": COUNT,
        "samples": COUNT,
        "directions": COUNT,
        "port": COUNT,
        "open": FLAG,
        "upload_mb": COUNT,
        "upload_megapixels": COUNT,
    },
    "assets": {"fetch": FLAG},
    "bench": {"repetitions": COUNT, "together": COUNT, "samples": COUNT},
    "check": {"sample": COUNT.or_null("for all images")},
    "convert": {"source": PATH.or_null(), "generator": PATH.or_null()},
    "crop": {"landmarks": PATH.or_null(), "size": COUNT, "faces": COUNT, "to": PATH},
    "discover": {
        "labels": PATH.or_null(),
        "codes": PATH.or_null(),
        "draw": COUNT.or_null(),
        "samples": COUNT,
        "psi": NUMBER,
        "measured_on": COUNT,
        "probe": FLAG,
        "interfacegan.share": HALF,
        "interfacegan.regularisation": POSITIVE,
        "ganspace.count": COUNT,
        "sefa.count": COUNT,
    },
    "laboratory": {"count": COUNT},
    "nscd": {"codes": PATH.or_null(), "generator": PATH.or_null()},
    "paste": {"crops": PATH, "edited": PATH.or_null(), "feather": SHARE, "to": PATH},
    "pretrain": {"start_from": PATH.or_null(), "save_every": COUNT},
    "reproduce": {"with": ANY, "experiment": PATH.or_null(), "dry": FLAG},
    "compare": {"page": PATH},
}


@cache
def kind_of(key: str, command: str) -> Kind | None:
    """The type of a setting of a command; None where it is not declared."""
    own = OF_COMMAND.get(command, {})
    if key in own:
        return own[key]
    return SETTINGS.get(key) or next((kind for pattern, kind in SETTINGS.items() if fnmatchcase(key, pattern)), None)


def check_settings(config: DictConfig, command: str, above: str = "") -> None:
    """Refuse settings that are not of their type.

    Args:
        config: as composed, or a part of it.
        command: whose settings they are, as "train".
        above: the key of the part, with a dot at its end.

    Raises:
        BadValue: the first of them, with what is accepted.
    """
    for name in map(str, sorted(config, key=lambda name: OmegaConf.is_dict(config._get_node(name)))):  # parts come last
        try:
            value = config[name]
            kind = kind_of(f"{above}{name}", command)
            if kind is not None:
                kind.require(f"{above}{name}", plain(value))
            elif isinstance(value, DictConfig) and str(value.get("_target_", OWN[0])).startswith(OWN):
                check_settings(value, command, f"{above}{name}.")
        except OmegaConfBaseException:  # an unresolvable reference is reported where the setting is used
            continue
