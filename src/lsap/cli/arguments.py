"""Arguments of the command line as Hydra must read them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    HydraException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lsap.config.compose import composed, config_dir
from lsap.config.groups import dotted


def left_to_members(arguments: Sequence[str], config_name: str) -> list[str]:
    """The arguments of a sweep, those made a sweep of one value that only its members can know.

    Before Hydra composes the members it composes what they share, with a group that is swept at its default. Settings
    of the choices alone, as `steps=` in `embedding=stylegan2_w,lsap_o_w steps=200`, it would refuse there.
    """
    groups = {each.name for each in config_dir().iterdir() if each.is_dir()}
    plain = [each for each in arguments if re.fullmatch(r"\w[\w.]*=.+", each)]
    keys = {each: each.partition("=")[0] for each in plain}
    if not any(keys[each] in groups and "," in each for each in plain):
        return list(arguments)
    chosen = [each for each in plain if keys[each] in groups and "," not in each]
    try:
        known = accepted(composed(config_name, chosen)) | groups
    except (HydraException, OmegaConfBaseException):
        return list(arguments)  # Hydra itself says what is wrong
    left = [each for each in plain if keys[each] not in known and not keys[each].startswith("hydra.")]
    return [_alone(each) if each in left else each for each in arguments]


def _alone(argument: str) -> str:
    """`key=value` as a sweep over one value, unless it is one over several already."""
    override = OverridesParser.create().parse_override(argument)
    key, _, value = argument.partition("=")
    only = "'null'" if value == "null" else value  # Hydra has no choice of nothing, and reads this text as it
    return argument if override.is_sweep_override() else f"{key}=choice({only})"


def accepted(config: DictConfig) -> set[str]:
    """The settings of a configuration, as they are typed."""
    return set(dotted(cast(Mapping[str, Any], OmegaConf.to_container(config, resolve=False))))
