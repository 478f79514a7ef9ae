"""Every setting has its type in one table, which is looked at whenever a configuration is composed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from lsap.config.compose import composed, config_dir
from lsap.config.settings import OF_COMMAND, SETTINGS, check_settings, kind_of
from lsap.errors import BadValue
from lsap.values import COUNT, FLAG, FRACTION, PATHS, SHARE, WEIGHT, WHOLE, Kind, one_of

COMMANDS = sorted(path.stem for path in config_dir().glob("*.yaml"))
GROUPS = {
    "train": ["embedding", "refinement"], "invert": ["embedding", "refinement"], "evaluate": ["protocol"],
    "edit": ["domain"], "pretrain": ["target"],
}  # fmt: skip


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def keys(config: Any, above: str = "") -> Iterator[str]:
    for key in config if isinstance(config, DictConfig) else ():
        yield f"{above}{key}"
        if not OmegaConf.is_missing(config, key) and not OmegaConf.is_interpolation(config, key):
            yield from keys(config[key], f"{above}{key}.")


@pytest.mark.parametrize(
    ("kind", "taken", "refused"),
    [
        (COUNT, [1, 50_000], [0, -1, 1.5, 2.0, "2", True, None, float("nan"), [1]]),
        (WHOLE, [0, 1], [-1, 0.5, False, "0"]),
        (WEIGHT, [0, 0.5, 2, 1e5], [-1e-9, float("nan"), float("inf"), "1", True, None]),
        (FRACTION, [0.1, 1, 1.0], [0, 1.01, -0.1]),
        (SHARE, [0, 1], [1.01, -0.1]),
        (FLAG, [True, False], [0, 1, "true", None]),
        (PATHS, ["a", ["a", "b"], {"name": "a"}], [3, [3], None]),
        (COUNT.or_null(), [None, 3], [0, "null"]),
        (one_of("run", "image"), ["run", "image"], ["runs", None, 1]),
    ],
)
def test_types_take_what_they_say(kind: Kind, taken: list[Any], refused: list[Any]) -> None:
    assert all(map(kind.takes, taken))
    assert not any(map(kind.takes, refused))


def test_a_value_of_another_type_is_named_with_what_is_accepted() -> None:
    with pytest.raises(BadValue, match=r"^max_steps=many: expected a whole number of at least 1$"):
        composed("train", ["max_steps=many"])
    with pytest.raises(BadValue, match=r"^matched=imge: did you mean 'image'\? \(accepted: image, run\)$"):
        composed("edit", ["matched=imge"])
    with pytest.raises(BadValue, match=r"^count=0: expected a whole number of at least 1, or null for all images$"):
        composed("invert", ["count=0"])


@pytest.mark.parametrize("command", COMMANDS)
def test_the_settings_of_every_shipped_configuration_are_of_their_type(command: str) -> None:
    for domain in choices("domain") if command in ("train", "invert", "edit", "evaluate", "check") else [None]:
        composed(command, [] if domain is None else [f"domain={domain}"])
    for group in GROUPS.get(command, []):
        for choice in choices(group):
            composed(command, [f"{group}={choice}"])


def test_every_declared_setting_is_one_of_a_command() -> None:
    """A misspelt key in the table would declare nothing."""
    more = ["+refinement.locality.alpha=30", "+refinement.locality.samples=1", "+refinement.locality.every=1"]
    known = {command: set(keys(composed(command))) for command in COMMANDS}
    chosen = [composed("invert", [f"embedding={name}"]) for name in choices("embedding")]
    chosen += [composed("invert", ["domain=church", f"refinement={name}"]) for name in choices("refinement")]
    chosen += [
        composed("train", ["refinement=pti", "refinement.locality={}", *more]),
        composed("edit", ["domain=face"]),
    ]
    chosen += [composed("evaluate", ["protocol=psp256"]), composed("train", ["domain=church", "logger=wandb"])]
    every = set().union(*known.values(), *(set(keys(config)) for config in chosen))
    optional = {"data.eval_batch_size"}  # of domains of one's own
    for pattern in SETTINGS:
        shape = re.compile(re.escape(pattern).replace(r"\*", ".*"))
        assert pattern in optional or any(map(shape.fullmatch, every)), pattern
    for command, own in OF_COMMAND.items():
        assert set(own) <= known[command], command


def test_settings_of_a_users_class_are_its_own() -> None:
    config = OmegaConf.create(
        {
            "refinement": {"_target_": "mine.Refinement", "steps": "few", "lambda_l2": -1},
            "optimisation": {"_target_": "lsap.embedding.OptimisationInW", "steps_like": "x", "lr": 0.1},
        }
    )
    check_settings(config, "invert")
    with pytest.raises(BadValue, match=r"refinement\.steps=few"):
        check_settings(OmegaConf.create({"refinement": {"steps": "few"}}), "invert")


def test_a_setting_can_have_another_type_in_another_command() -> None:
    assert kind_of("generator", "nscd") is not None
    assert kind_of("generator", "train") is None
    assert kind_of("count", "laboratory") is COUNT


def test_what_is_read_from_python_is_checked_too(tmp_path: Path) -> None:
    import lsap

    with pytest.raises(BadValue, match="steps=0: expected a whole number of at least 1"):
        lsap.load("demo", "steps=0", embedding="lsap_o_w")
