"""`python -m lsap.nscd codes=… generator=…`: NSCD of codes, whichever tool has made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from lsap.alignment import NormalizedStyleSpace
from lsap.checkpoints import fingerprint, load_generator, read_codes
from lsap.demo import weights as demo
from lsap.errors import BadValue
from lsap.evaluation.metrics import code_values
from lsap.evaluation.rows import by_name, synthetic_row
from lsap.evaluation.set_metrics import SetMetrics
from lsap.pipelines.devices import device_of
from lsap.runs import cache_folder, write_json

COLUMNS = ("nscd", "nscd_raw", "diversity")
CHUNK = 256  # codes at once


def score(config: DictConfig) -> dict[str, Any]:
    """Print the scores of a file of codes beside those of the generator's own samples.

    Returns:
        "rows": name → nscd (unit anchor), nscd_raw (Eq. 12), diversity (None for a single code), n; "images": one entry
        per code with its name, nscd and nscd_raw; "layers": NSCD of every layer; "generator": fingerprint.

    Raises:
        BadValue, MissingFile: codes or generator that cannot be used, or that do not belong together.
    """
    if config.codes is None:
        raise BadValue("codes is not set: name a file, as in codes=latents.npy generator=stylegan2-ffhq-config-f.pt")
    if config.save_to is not None and Path(config.save_to).suffix != ".json":
        raise BadValue(f"save_to={config.save_to}: the results are written as JSON; name a .json file")
    generator = demo.load_generator() if config.generator is None else load_generator(config.generator)
    generator = generator.to(device_of(config.accelerator))
    stamp = fingerprint(generator)
    found = read_codes(
        config.codes, n_latent=generator.n_latent, style_dim=generator.style_dim, generator=stamp,
        codes_in=config.codes_in,
    )  # fmt: skip
    space = NormalizedStyleSpace(generator, **config.space, cache=cache_folder())
    of_set, chunks = SetMetrics(space, ("nscd", "nscd_raw")), []
    with torch.no_grad():
        for codes in found.codes.to(generator.latent_avg.device).split(CHUNK):
            styles = space.styles(codes)
            chunks.append(code_values(styles, space.mean))
            of_set.update(chunks[-1], styles)
    names = found.names or [str(index) for index in range(len(found.codes))]
    images = by_name(names, {key: torch.cat([chunk[key] for chunk in chunks]) for key in of_set.names})
    row = of_set.compute()
    layers = row.pop("nscd_layers")
    if row["n"] == 1:
        row["diversity"] = None  # a single code has none
    reference = synthetic_row(space)
    results = {
        "rows": {"synthetic": {key: reference[key] for key in (*COLUMNS, "n")}, Path(config.codes).name: row},
        "images": [{"name": name} | each for name, each in images.items()],
        "layers": layers,
        "generator": stamp,
    }
    _show(results)
    if config.save_to is not None:
        write_json(config.save_to, results)
        print(f"\n{config.save_to}: the scores of every code")
    return results


def _show(results: dict[str, Any]) -> None:
    rows = results["rows"]
    width = max(map(len, rows))
    print(f"{'':{width}}" + "".join(f"{key:>11}" for key in COLUMNS) + f"{'codes':>8}")
    for name, row in rows.items():
        cells = "".join(f"{'–':>11}" if row[key] is None else f"{row[key]:11.4f}" for key in COLUMNS)
        print(f"{name:{width}}{cells}{row['n']:8}")
    scores = sorted(image["nscd"] for image in results["images"])
    if len(scores) > 1:
        print(f"\nnscd of single codes: {scores[0]:.4f} to {scores[-1]:.4f}, median {scores[len(scores) // 2]:.4f}")
    print(
        "nscd: 0 along the mean style, 2 opposite it; below `synthetic` means nearer the mean than a typical sample. "
        "Only nscd_raw may stand beside published values."
    )
