"""`lsap.load("demo")`: from a domain's name or an encoder's file to an `Inverter`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.errors import MissingConfigException
from hydra.utils import get_class
from omegaconf import DictConfig

from lsap.api.inverter import Inverter, configured
from lsap.checkpoints import read_card, read_encoder
from lsap.config.compose import choices, named_folders, searching, searchpath
from lsap.config.paths import quoted
from lsap.config.stored import NOT_OF_AN_ENCODER, adopt, choice, read_settings
from lsap.embedding import RowEncoder
from lsap.errors import BadValue, MissingFile, nearest
from lsap.pipelines.build import Parts, own_run
from lsap.pipelines.devices import device_of
from lsap.values import expanded

ENCODER = "lsap_e"  # the embedding where nobody names one: the paper's
UNTRAINED = ("embedding=lsap_o_wplus", "steps=100")  # where there is no encoder yet: seconds for an image of 64 px
FILE = "encoder.safetensors"  # of a run


def load(
    source: str | Path = "demo", *settings: str, domain: str | None = None, embedding: str | None = None, **named: Any
) -> Inverter:
    """A generator and an embedding, ready to invert, score, edit and refine images.

    `lsap.load("demo")` works at once and needs no files. It takes the encoder that `make demo` or `lsap.train` left
    below `outputs/` in this folder, if there is one; else it embeds by optimisation with alignment, LSAP_O in W+,
    100 steps long: some seconds for a portrait, and nothing has to be trained. `Inverter.embedding` says what it took.

    Args:
        source: a domain by its name (demo, face, car, church, wild); or an encoder: the folder of a training, its
            `encoder.safetensors`, or a published checkpoint of pSp, e4e, ReStyle-e4e, HFGI or LSAP. The decoder in a
            published checkpoint is the generator, unless `generator.checkpoint=` names another.
        settings: as typed on the command line of `python -m lsap.invert`: "lambda_nscd=0", "space.samples=500"; in
            place of --config-dir "hydra.searchpath=[file:///FOLDER]".
        named: the same for settings without dots, as in `steps=300`: numbers, texts, paths, None, or lists of them.
        domain: what an encoder's images show, where its file does not say so: published ones don't.
        embedding: how images become codes, a name of `conf/embedding`; None: as above, or what the file holds.

    Raises:
        MissingFile: no such file; or weights that are not there, all of them listed with their source.
        BadValue: a file that holds no encoder, an unknown name or setting.

    Example:
        >>> import lsap
        >>> lsap.load("demo", embedding="lsap_o_wplus")
        Inverter(domain=demo, embedding=lsap_o_wplus, generator of 64 px)
    """
    if wrong := [one for one in settings if not isinstance(one, str) or not ("=" in one or one.startswith("~"))]:
        raise BadValue(
            f"load(…, {wrong[0]!r}): a setting is text with '=', as in load('demo', 'steps=300') or steps=300"
        )
    settings = (*settings, *(f"{key}={typed(key, value)}" for key, value in named.items()))
    others, folders = named_folders(settings)
    with searching([*folders, *searchpath()]):
        return Inverter(_config(source, others, domain, embedding))


def _config(source: str | Path, settings: Sequence[str], domain: str | None, embedding: str | None) -> DictConfig:
    """The configuration of a domain or of an encoder's file."""
    path = expanded(source)
    if str(source) in domains():
        if domain not in (None, source):
            raise BadValue(f"load({str(source)!r}, domain={domain!r}): two domains; give one of both")
        return _of_domain(str(source), settings, embedding)
    if path.is_dir():
        path /= FILE
    if not path.is_file():
        known = nearest(str(source), domains())
        raise MissingFile(f"load({str(source)!r}): there is no such file, and no such domain; {known}")
    return _of_encoder(path, settings, domain, embedding)


def typed(key: str, value: object) -> str:
    """A value as it is typed on the command line.

    Raises:
        BadValue: a kind of value that has no such form.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        text = str(value)
        return text if re.fullmatch(r"[\w./+-]+", text) else quoted(text)
    if isinstance(value, list | tuple):
        return f"[{','.join(typed(key, one) for one in value)}]"
    raise BadValue(f"load(…, {key}=…): {type(value).__name__} is no value of a setting; give it as text: '{key}=…'")


def domains() -> list[str]:
    """The domains that `load` knows by name."""
    return choices("domain")


def _of_domain(domain: str, settings: Sequence[str], embedding: str | None) -> DictConfig:
    chosen = [f"domain={domain}"]
    encoder = [*chosen, f"embedding={embedding or ENCODER}", *settings]
    if embedding is not None or "checkpoint" in _keys(settings) or configured(chosen).domain.needs:
        return configured(encoder)
    try:
        config = configured(encoder)
        own_run(Parts(config, device_of("cpu")))
    except (MissingFile, BadValue):  # nothing trained, or settings that are none of an encoder
        return configured([*chosen, *UNTRAINED, *settings])
    return config


def _of_encoder(path: Path, settings: Sequence[str], domain: str | None, embedding: str | None) -> DictConfig:
    card = read_card(path)
    if domain is None and "domain" in card:
        domain = choice("domain", card["domain"], path)
    if domain is None:
        raise BadValue(
            f"{path} does not say what its images show; give domain=, as in lsap.load({path.name!r}, domain='face')"
        )
    generator = None
    if embedding is None and "embedding" in card:
        embedding = choice("embedding", card["embedding"], path)
    if "embedding" not in card:
        kind = None if embedding is None else _kind(configured([f"domain={domain}", f"embedding={embedding}"]))
        found = read_encoder(path, kind=kind)
        if found.kind == "restyle_psp":
            raise BadValue(f"{path} holds an encoder of ReStyle over pSp; lsap inverts with ReStyle over e4e only")
        embedding = embedding or choice("embedding", found.kind, path)
        generator = None if found.generator_state is None else str(path)
    chosen = [f"domain={domain}", f"embedding={embedding}"]
    try:
        config = configured([*chosen, *settings])
    except BadValue as error:
        if not isinstance(error.__cause__, MissingConfigException):
            raise
        raise BadValue(
            f"{path}: {error}; if it is one of your own, add the folder that holds its YAML: --config-dir=FOLDER, or "
            "in Python the setting 'hydra.searchpath=[file:///FOLDER]'"
        ) from error
    run = path.with_name("config.yaml")
    if "embedding" in card and run.is_file():
        adopt(config, read_settings(run), run, skip=NOT_OF_AN_ENCODER, typed=_keys(settings))
    elif generator is not None and "generator.checkpoint" not in _keys(settings):
        config.generator.checkpoint = generator
    config.checkpoint = str(path)
    return config


def _kind(config: DictConfig) -> str:
    """What the files of an embedding's encoder are called."""
    if "encoder" not in config:
        raise BadValue(f"embedding={config.embedding.name} has no encoder; it embeds every image by itself")
    encoder: type[RowEncoder] = get_class(config.encoder._target_)
    return encoder.kind


def _keys(settings: Sequence[str]) -> list[str]:
    """What settings set, as dotted keys."""
    return [setting.split("=")[0].lstrip("+~") for setting in settings]
