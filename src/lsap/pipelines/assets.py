"""`python -m lsap.assets domain=face`: the published files that a domain and a method can use, present or missing.

With `fetch=true`, what has a direct address is downloaded, checked and put in place whole; the rest needs a browser,
and the command says where to go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
import requests
from omegaconf import DictConfig, OmegaConf

from lsap.checkpoints.paths import file_digest, located, places
from lsap.errors import BadValue, StoppedRun, nearest
from lsap.runs import replacing


@dataclass(frozen=True)
class Asset:
    """One published file.

    file: its name below the folder of weights.
    what: it is, in a few words.
    domains, methods: who uses it.
    source: the page that offers it.
    licence: a note on its terms.
    url: direct address; None where a browser is needed.
    sha256: of the file, whole or its first digits; None where none is published.
    """

    file: str
    what: str
    domains: tuple[str, ...]
    methods: tuple[str, ...]
    source: str
    licence: str
    url: str | None = None
    sha256: str | None = None


def assets(config: DictConfig) -> list[Asset]:
    """Print the table of files; with `fetch`, get those that are missing.

    Returns:
        The files that are still missing.

    Raises:
        BadValue: a domain, method or name that is not in the table, or a download that is not the file.
        StoppedRun: no network, or the disk is full; finished downloads are kept.
    """
    wanted = selected(config)
    if config.fetch and not any(_choices(config).values()):
        raise BadValue("fetch=true would get every file of the table; name a domain, a method or one file: domain=face")
    folder = Path(config.weights)
    missing = [asset for asset in wanted if located(folder / asset.file) is None]
    print(table(wanted, folder))
    if not config.fetch:
        _advise(missing)
        return missing
    direct = [asset for asset in missing if asset.url is not None]
    for asset in direct:
        fetch(asset, folder)
    by_hand = [asset for asset in missing if asset.url is None]
    for asset in by_hand:
        print(f"needs a browser: {asset.file} from {asset.source}; put it into {folder}")
    print(f"{len(direct)} fetched, {len(by_hand)} to be got by hand")
    return by_hand


def known(config: DictConfig) -> list[Asset]:
    """All files of the table in conf/assets.yaml."""
    entries: Any = OmegaConf.to_container(config.files, resolve=True)
    return [Asset(**e | {"domains": tuple(e["domains"]), "methods": tuple(e["methods"])}) for e in entries]


def selected(config: DictConfig) -> list[Asset]:
    """The files that the settings ask for.

    Raises:
        BadValue: an unknown domain, method or name, or a combination that no file serves.
    """
    found = known(config)
    rules: list[tuple[str, Callable[[Asset], Sequence[str]]]] = [
        ("domain", lambda asset: asset.domains),
        ("method", lambda asset: asset.methods),
        ("name", lambda asset: (asset.file, Path(asset.file).name)),
    ]
    choices = _choices(config)
    for key, served in rules:
        value = choices[key]
        accepted = {name for asset in known(config) for name in served(asset)}
        if value is not None and value not in accepted:
            raise BadValue(f"{key}={value}: {nearest(str(value), accepted)}")
        found = [asset for asset in found if value is None or value in served(asset)]
    if not found:
        asked = ", ".join(f"{key}={value}" for key, value in choices.items() if value is not None)
        raise BadValue(f"no file serves {asked} together")
    return found


def _choices(config: DictConfig) -> dict[str, str | None]:
    """What was asked for; a domain is a group of settings, known here by its name."""
    domain = config.domain.name if "domain" in config else None
    return {"domain": domain, "method": config.method, "name": config.name}


def table(wanted: Sequence[Asset], folder: Path) -> str:
    """Two lines per file: whether and where it is, and what it is; for the missing also source and licence."""
    lines = []
    for asset in wanted:
        place = located(folder / asset.file)
        if place is not None:
            lines.append(f"present  {asset.file}  ({place})")
            lines.append(f"         {asset.what}; {asset.licence}")
            continue
        lines.append(f"MISSING  {asset.file}")
        lines.append(f"         {asset.what}; for {', '.join(asset.domains)}; {', '.join(asset.methods)}")
        how = f"fetch=true, or {asset.url}" if asset.url else f"by browser from {asset.source}"
        lines.append(f"         get it: {how}")
        lines.append(f"         licence: {asset.licence}; sha256: {asset.sha256 or 'not published'}")
        lines.append(f"         looked for: {', '.join(str(place) for place in places(folder / asset.file))}")
    return "\n".join(lines)


def fetch(asset: Asset, folder: Path) -> Path:
    """Download one file, check it and put it in place; until then nothing of that name is there.

    Raises:
        BadValue: what came is not the file.
        StoppedRun: no network or no answer, or the disk is full.
    """
    assert asset.url is not None
    target = folder / asset.file
    print(f"fetching {asset.file} from {asset.url}", flush=True)
    try:
        with replacing(target) as draft:
            pooch.HTTPDownloader(progressbar=True, timeout=30)(asset.url, str(draft), None)
            digest = file_digest(draft)
            if asset.sha256 is not None and not digest.startswith(asset.sha256):
                raise BadValue(
                    f"{asset.file}: sha256 begins {digest[:12]}, expected {asset.sha256[:12]}; the download is damaged "
                    f"or another file and was not kept. Try again, or get it from {asset.source}"
                )
    except requests.exceptions.HTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise StoppedRun(f"{asset.file}: {asset.url} answered {status}; look for it at {asset.source}") from error
    except requests.exceptions.RequestException as error:
        raise StoppedRun(
            f"{asset.file} could not be fetched: no connection to {asset.url}. With a network, give the command again; "
            f"without one, carry the file from {asset.source} into {folder}"
        ) from error
    if asset.sha256 is None:
        print(f"sha256 {digest} (none is published to compare with)")
    return target


def _advise(missing: Sequence[Asset]) -> None:
    if missing:
        direct = sum(asset.url is not None for asset in missing)
        print(f"{len(missing)} missing; {direct} of them have a direct address: add fetch=true")
