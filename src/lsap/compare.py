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
from torch import Tensor

from lsap.assembly import Parts, check, check_trainable, device_of, process_count
from lsap.cli import command
from lsap.editing.directions import apply
from lsap.editing.effects import MatchedEdit, Reader, discover, match
from lsap.errors import BadValue
from lsap.evaluation.page import Entry, Measure, Section, Table, Text
from lsap.evaluation.pictures import Column, grid
from lsap.evaluation.pictures import save as save_picture
from lsap.evaluation.report import comparison_report, fidelity_table
from lsap.formats import fingerprint, read_state
from lsap.runs import manifest, write_json
from lsap.train import Trained, test_loaders, train

SAMPLES = 2048  # of the generator, to find directions on
SHOWN = 8  # images in the picture
EDITED = 128  # images that strengths are matched on


def compare(config: DictConfig) -> Path:
    """Train (or find trained) one encoder per lambda, edit with each, and write the page.

    Returns:
        The path of the page, `report.html`; `summary.json` and `comparison.png` lie beside it.

    Raises:
        BadValue: fewer than two different lambdas, several devices, or a configuration that cannot run.
    """
    started = time.perf_counter()
    lambdas = _lambdas(config)
    check_trainable(config)
    check(config)
    if process_count(config.trainer) > 1:
        raise BadValue(
            f"trainer.devices={config.trainer.devices}: a comparison runs in one process; train its members on several "
            "devices first (python -m lsap.train trainer.devices=… lambda_nscd=…), then compare with trainer.devices=1"
        )
    expected = config.domain.get("duration")
    print(f"{len(lambdas)} encoders, {config.max_steps} steps each" + (f": {expected}" if expected else ""), flush=True)
    runs: dict[str, Trained] = {}
    for value in lambdas:
        member = config.copy()
        member.lambda_nscd = value
        runs[f"lambda_{value:g}"] = train(member)
    parts = Parts(config, device_of(config.trainer.accelerator))
    splits = _joined(runs)
    split, rows = next(iter(splits.items()))
    edits, columns = _edited(config, parts, runs, split)
    seconds = round(time.perf_counter() - started, 1)
    page = Path(config.page)
    labels = next(iter(runs.values())).labels
    summary = {
        "rows": [{"name": name} | {key: row.get(key) for key in SUMMARY} for name, row in rows.items()],
        "split": split,
        "labels": labels,
        "edits": {name: _numbers(found) for name, found in edits.items()},
        "seconds": seconds,
    }
    write_json(page / "summary.json", summary)
    save_picture(grid(columns), page / "comparison.png")
    provenance = {
        "command": shlex.join(["python", "-m", "lsap.compare", *sys.argv[1:]]),
        "seed": config.seed,
        "max_steps": config.max_steps,
        "batch_size": config.batch_size,
        "generator": fingerprint(parts.generator)[:12],
    }
    path = comparison_report(
        page / "report.html",
        rows,
        columns,
        logs={_title(name): run.folder / "metrics.csv" for name, run in runs.items()},
        labels=labels,
        seconds=seconds,
        edits=list(config.domain.get("edits") or ()),
        extra=[*_edit_sections(edits), *_control_sections(splits, labels)],
        provenance=provenance | manifest(parts.device),
    )
    _print_table(rows)
    print(f"\n{path}  ({seconds:.0f} s)")
    return path


SUMMARY = ("mse", "lpips", "identity", "nscd", "nscd_raw", "diversity")
REFERENCES = ("mean_latent", "synthetic")
CONTROL = {
    "plain": "Portraits of the kind that the generator learned: they lie in its range, so there is little to align."
}


def _lambdas(config: DictConfig) -> list[float]:
    """The weights to compare.

    Raises:
        BadValue: fewer than two different ones, or a negative one.
    """
    try:
        lambdas = [float(value) for value in config.lambdas]
    except (TypeError, ValueError):
        lambdas = []
    if len(lambdas) < 2 or len(set(lambdas)) < len(lambdas) or min(lambdas) < 0:
        raise BadValue(f"lambdas={config.lambdas}: at least two different numbers from 0 upwards, as in [0,0.5]")
    return lambdas


def _joined(runs: dict[str, Trained]) -> dict[str, dict[str, Any]]:
    """Per split, the rows of all runs in one table; the two reference rows are the same in each and come first."""
    splits: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        for split, rows in run.splits.items():
            table = splits.setdefault(split, {key: rows[key] for key in REFERENCES})
            (table[name],) = (row for key, row in rows.items() if key not in REFERENCES)
    return splits


def _edited(
    config: DictConfig, parts: Parts, runs: dict[str, Trained], split: str
) -> tuple[dict[str, dict[str, MatchedEdit]], list[Column]]:
    """Reconstruct the first test images with every encoder, and edit them where the domain can read attributes."""
    batches = test_loaders(parts.data())[split]
    images = torch.cat([batch["image"] for batch in batches])[:EDITED].to(parts.device)
    columns = [Column("input", images[:SHOWN])]
    reader = _reader(config, parts)
    wanted = {str(k): reader.names.index(v) for k, v in config.domain.edits.items()} if reader is not None else {}

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
        columns.append(Column("inversion", render(codes[:SHOWN]), _title(name)))
        edits[name] = {}
        for edit, direction in directions.items():
            assert reader is not None
            found = match(codes, direction, wanted[edit], config.effect, render, reader)
            edits[name][edit] = found
            moved = apply(codes[:SHOWN], direction, found.strength)
            columns.append(Column(edit, render(moved), _title(name)))
    return edits, columns


def _reader(config: DictConfig, parts: Parts) -> Reader | None:
    """The network that reads attributes off this domain's images, where it has one."""
    if "reader" not in config.domain:
        return None
    reader: Reader = instantiate(config.domain.reader).to(parts.device)
    return reader


def _title(name: str) -> str:
    return f"λ = {name.removeprefix('lambda_')}"


def _numbers(edits: dict[str, MatchedEdit]) -> dict[str, dict[str, float]]:
    return {n: {"strength": e.strength, "effect": e.effect, "leakage": e.leakage} for n, e in edits.items()}


def _edit_sections(edits: dict[str, dict[str, MatchedEdit]]) -> list[Section]:
    """What the edits of equal effect cost, as a table; nothing where the domain has no edits."""
    measures: list[Measure] = []
    for name in dict.fromkeys(name for found in edits.values() for name in found):
        measures.append(Measure(f"{name}/strength", f"{name}: strength", "σ of W", "lower"))
        measures.append(Measure(f"{name}/effect", f"{name}: effect", "σ of the factor"))
        measures.append(Measure(f"{name}/leakage", f"{name}: leakage", "σ of factors", "lower"))
    if not measures:
        return []
    entries = [
        Entry(_title(row), {f"{n}/{key}": v for n, e in _numbers(found).items() for key, v in e.items()})
        for row, found in edits.items()
    ]
    text = (
        "Every edit is made so strong that its attribute changes by the same amount on average, as the factor "
        "regressor reads it; where that is out of reach, the effect says how far the edit got. Strength is how far "
        "the codes had to move; leakage is how much all other factors changed meanwhile, the regressor's own error "
        "included."
    )
    caption = "Edits of equal effect on held-out images."
    return [Section("Edits in numbers", [Table(measures, entries, caption, "Codes"), Text(text)])]


def _control_sections(splits: dict[str, dict[str, Any]], labels: dict[str, str]) -> list[Section]:
    """The tables of all splits but the first."""
    return [
        Section(f"Control: the {split} split", [fidelity_table(rows, CONTROL.get(split, ""), labels=labels)])
        for split, rows in list(splits.items())[1:]
    ]


def _print_table(rows: dict[str, dict[str, Any]]) -> None:
    keys = ("mse", "lpips", "identity", "nscd")
    print(f"\n{'':14}" + "".join(f"{key:>11}" for key in keys))
    for name, row in rows.items():
        values = (f"{row[key]:11.4f}" if row.get(key) is not None else f"{'–':>11}" for key in keys)
        print(f"{name:14}" + "".join(values))


main = command("compare")(compare)

if __name__ == "__main__":
    main()
