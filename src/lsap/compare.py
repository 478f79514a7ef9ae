"""`python -m lsap.compare`: encoders that differ only in lambda_nscd, side by side on one page. `make demo` runs it."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from lsap.assembly import Parts, check, device_of
from lsap.cli import command
from lsap.editing.effects import MatchedEdit, discover, match
from lsap.errors import BadValue
from lsap.evaluation.page import Entry, Measure, Section, Table, Text
from lsap.evaluation.pictures import Column, grid
from lsap.evaluation.pictures import save as save_picture
from lsap.evaluation.report import comparison_report, fidelity_table
from lsap.formats import fingerprint, read_state
from lsap.runs import manifest, write_json
from lsap.train import Trained, train

SAMPLES = 2048  # of the generator, to find directions on
SHOWN = 8  # images in the picture
EDITED = 128  # images that strengths are matched on


def compare(config: DictConfig) -> Path:
    """Train (or find trained) one encoder per lambda, edit with each, and write the page.

    Returns:
        The path of the page, `report.html`; `summary.json` and `comparison.png` lie beside it.

    Raises:
        BadValue: fewer than two different lambdas, or a configuration that cannot run.
    """
    started = time.perf_counter()
    lambdas = [float(value) for value in config.lambdas]
    if len(set(lambdas)) < 2 or len(set(lambdas)) < len(lambdas) or min(lambdas) < 0:
        raise BadValue(f"lambdas={list(config.lambdas)}: at least two different numbers from 0 upwards, as in [0,0.5]")
    check(config)
    expected = config.domain.get("duration")
    print(f"{len(lambdas)} encoders, {config.max_steps} steps each" + (f": {expected}" if expected else ""), flush=True)
    runs: dict[str, Trained] = {}
    for value in lambdas:
        member = config.copy()
        member.lambda_nscd = value
        runs[f"lambda_{value:g}"] = train(member)
    parts = Parts(config, device_of(config.trainer.accelerator))
    page = Path(config.page)
    splits = {
        split: {k: rows[k] for k in ("mean_latent", "synthetic")} | {name: run.splits[split][name] for name, run in runs.items()}
        for split, rows in next(iter(runs.values())).splits.items()
    }
    main_split = next(iter(splits))
    edits, columns = _edited(config, parts, runs, main_split)
    seconds = round(time.perf_counter() - started, 1)
    rows = splits[main_split]
    write_json(
        page / "summary.json",
        {"rows": [{"name": name} | {k: row.get(k) for k in ("mse", "lpips", "identity", "nscd", "nscd_raw", "diversity")} for name, row in rows.items()],
         "split": main_split, "seconds": seconds, "edits": {name: _numbers(found) for name, found in edits.items()},
         "labels": next(iter(runs.values())).labels},
    )  # fmt: skip
    save_picture(grid(columns), page / "comparison.png")
    extra = [_edit_section(edits)] if any(edits.values()) else []
    labels = next(iter(runs.values())).labels
    extra += [
        Section(f"Control: the {split} split", [fidelity_table(table, CONTROL.get(split, ""), labels=labels)])
        for split, table in splits.items()
        if split != main_split
    ]
    path = comparison_report(
        page / "report.html", rows, columns, logs={f"λ = {n.removeprefix('lambda_')}": r.folder / "metrics.csv" for n, r in runs.items()},
        labels=labels, seconds=seconds, edits=list(config.domain.get("edits") or ()), extra=extra,
        provenance={"command": shlex.join(["python", "-m", "lsap.compare", *sys.argv[1:]]), "seed": config.seed, "max_steps": config.max_steps,
                    "batch_size": config.batch_size, "generator": fingerprint(parts.generator)[:12]} | manifest(parts.device),
    )  # fmt: skip
    _print_table(rows)
    print(f"\n{path}  ({seconds:.0f} s)")
    return path


CONTROL = {
    "plain": "Portraits of the kind that the generator learned: they lie in its range, so there is little to align."
}


def _edited(
    config: DictConfig, parts: Parts, runs: dict[str, Trained], split: str
) -> tuple[dict[str, dict[str, MatchedEdit]], list[Column]]:
    """Reconstruct the first test images with every encoder, and edit them where the domain can read attributes."""
    data = parts.data()
    source, count = (data.tests[split], len(data.tests[split])) if split in data.tests else (data.train, len(data.val_indices))
    numbers = list(range(min(EDITED, count))) if split in data.tests else data.val_indices[:EDITED]
    images = source.read(numbers).to(parts.device)
    columns = [Column("input", images[:SHOWN])]
    reader: nn.Module | None = instantiate(config.domain.reader).to(parts.device) if "reader" in config.domain else None
    wanted = {str(k): reader.names.index(v) for k, v in config.domain.edits.items()} if reader is not None else {}  # type: ignore[union-attr,operator]

    @torch.no_grad()
    def render(codes: Tensor) -> Tensor:
        return parts.view(parts.generator(codes))

    directions = {}
    if reader is not None:
        w = parts.generator.sample_w(SAMPLES, torch.Generator().manual_seed(config.seed))
        directions = discover(wanted, w, render, reader, fingerprint(parts.generator))
    edits: dict[str, dict[str, MatchedEdit]] = {}
    for name, run in runs.items():
        encoder = parts.encoder()
        encoder.load_state_dict(read_state(run.folder / "encoder.safetensors"))
        with torch.no_grad():
            codes = torch.cat([encoder.eval()(part) for part in images.split(32)])
        group = f"λ = {name.removeprefix('lambda_')}"
        columns.append(Column("inversion", render(codes[:SHOWN]), group))
        edits[name] = {}
        for edit, direction in directions.items():
            assert reader is not None
            found = match(codes, direction, wanted[edit], config.effect, render, reader)
            edits[name][edit] = found
            columns.append(Column(edit, render(_moved(codes[:SHOWN], found)), group))
    return edits, columns


def _moved(codes: Tensor, edit: MatchedEdit) -> Tensor:
    from lsap.editing.directions import apply

    return apply(codes, edit.direction, edit.strength)


def _numbers(edits: dict[str, MatchedEdit]) -> dict[str, dict[str, float]]:
    return {n: {"strength": e.strength, "effect": e.effect, "leakage": e.leakage} for n, e in edits.items()}


def _edit_section(edits: dict[str, dict[str, MatchedEdit]]) -> Section:
    names = list(next(iter(edits.values())))
    measures = [
        measure
        for name in names
        for measure in (
            Measure(f"{name}/strength", f"{name}: strength", "σ of W", "lower"),
            Measure(f"{name}/leakage", f"{name}: leakage", "σ of factors", "lower"),
        )
    ]
    entries = [
        Entry(f"λ = {row.removeprefix('lambda_')}", {f"{n}/{k}": getattr(e, k) for n, e in found.items() for k in ("strength", "leakage")})
        for row, found in edits.items()
    ]
    caption = f"Edits of equal effect, {EDITED} held-out images."
    text = (
        "Every edit is made so strong that the attribute changes by one standard deviation on average, as the factor "
        "regressor reads it. Strength is how far the codes had to move for that; leakage is how much the other factors "
        "changed meanwhile."
    )
    return Section("Edits in numbers", [Table(measures, entries, caption, "Codes"), Text(text)])


def _print_table(rows: dict[str, dict[str, Any]]) -> None:
    keys = ("mse", "lpips", "identity", "nscd")
    print(f"\n{'':14}" + "".join(f"{key:>11}" for key in keys))
    for name, row in rows.items():
        values = (f"{row[key]:11.4f}" if row.get(key) is not None else f"{'–':>11}" for key in keys)
        print(f"{name:14}" + "".join(values))


main = command("compare")(compare)

if __name__ == "__main__":
    main()
