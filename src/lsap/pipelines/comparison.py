"""`python -m lsap.compare`: encoders that differ only in lambda_nscd, side by side on one page. `make demo` runs it."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from lsap.checkpoints import fingerprint, read_state
from lsap.config.compose import composed, editable, searchpath
from lsap.editing.directions import apply
from lsap.editing.effects import MatchedEdit, Reader, discover, match
from lsap.errors import BadValue
from lsap.evaluation.columns import Measure
from lsap.pipelines.build import Parts
from lsap.pipelines.devices import own_device, process_count
from lsap.pipelines.training import Trained, check, test_loaders, train
from lsap.reports.page import Block, Entry, Gallery, Section, Table, Text
from lsap.reports.pictures import Column, grid
from lsap.reports.pictures import save as save_picture
from lsap.reports.run_reports import comparison_report, fidelity_table
from lsap.runs import manifest, write_json

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
    check(config)
    if process_count(config.trainer) > 1:
        raise BadValue(
            f"trainer.devices={config.trainer.devices}: a comparison runs in one process; train its members on several "
            "devices first (python -m lsap.train trainer.devices=… lambda_nscd=…), then compare with trainer.devices=1"
        )
    print(announced(config, len(lambdas)), flush=True)
    runs: dict[str, Trained] = {}
    for value in lambdas:
        member = editable(config)
        member.lambda_nscd = value
        if config.logger.name == "wandb" and config.logger.group is None:
            member.logger.group = f"compare lambda_nscd={','.join(f'{each:g}' for each in lambdas)}"
        runs[f"lambda_{value:g}"] = train(member)
    parts = Parts(config, own_device(config.trainer))
    splits = _joined(runs)
    split, rows = next(iter(splits.items()))
    pictured = [name for name in config.domain.get("pictured") or [split] if name in splits]
    looked = {name: _edited(config, parts, runs, name) for name in pictured}
    edits, columns = looked[pictured[0]]
    seconds = round(time.perf_counter() - started, 1)
    page = Path(config.page)
    labels = next(iter(runs.values())).labels
    summary = {
        "rows": [{"name": name} | {key: row.get(key) for key in SUMMARY} for name, row in rows.items()],
        "split": split,
        "labels": labels,
        "edits": {name: {row: _numbers(e) for row, e in found.items()} for name, (found, _) in looked.items()},
        "seconds": seconds,
    }
    write_json(page / "summary.json", summary)
    for name, (_, shown) in looked.items():
        save_picture(grid(shown), page / ("comparison.png" if name == pictured[0] else f"comparison-{name}.png"))
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
        extra=[
            *_edit_sections(edits),
            *(section for name in pictured[1:] for section in _pictured_section(name, *looked[name])),
            *_control_sections(splits, labels),
        ],
        provenance=provenance | manifest(parts.device),
    )
    _print_table(rows)
    print(f"\n{path}  ({seconds:.0f} s)")
    return path


SUMMARY = ("mse", "lpips", "identity", "nscd", "nscd_raw", "diversity")
REFERENCES = ("mean_latent", "synthetic")
CONTROL = {
    "plain": "Portraits of the kind that the generator learned: they lie in its range, so there is little to align.",
    "far": "Portraits that neither generator nor encoder has seen the like of: writing, hands, paint, drawings.",
}


@dataclass(frozen=True)
class Outcome:
    """What an edit came to: as the reader sees it, and, where the domain knows its images' truth, beside it.

    Attributes:
        edit: strength, effect and leakage.
        truth: mean over images of what the domain knows; empty where it knows nothing.
    """

    edit: MatchedEdit
    truth: Mapping[str, float]


def announced(config: DictConfig, encoders: int) -> str:
    """What is about to be trained, and how long it takes, which is known of the domain's own number of steps only."""
    usual = composed("compare", [f"domain={config.domain.name}"], searchpath())
    as_usual = (config.max_steps, encoders) == (usual.max_steps, len(usual.lambdas))
    expected = f": {config.domain.duration}" if as_usual and "duration" in config.domain else ""
    return f"{encoders} encoders, {config.max_steps} {'step' if config.max_steps == 1 else 'steps'} each{expected}"


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
) -> tuple[dict[str, dict[str, Outcome]], list[Column]]:
    """Reconstruct the first test images with every encoder, and edit them where the domain can read attributes."""
    data = parts.data()
    batches = test_loaders(data)[split]
    images = torch.cat([batch["image"] for batch in batches])[:EDITED].to(parts.device)
    truth = instantiate(config.domain.truth, data.tests[split]) if "truth" in config.domain else None
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
    edits: dict[str, dict[str, Outcome]] = {}
    for name, run in runs.items():
        encoder = parts.encoder()
        encoder.load_state_dict(read_state(run.folder / "encoder.safetensors"))
        inverter = parts.inverter(encoder).eval()
        with torch.no_grad():
            codes = torch.cat([inverter(part) for part in images.split(32)])
            before = render(codes)
        columns.append(Column("inversion", before[:SHOWN], _title(name)))
        edits[name] = {}
        for edit, direction in directions.items():
            assert reader is not None
            found = match(codes, direction, wanted[edit], config.effect, render, reader)
            after = render(apply(codes, direction, found.strength))
            known = {}
            if truth is not None:
                names = list(data.tests[split].names)[: len(codes)]
                attribute = str(config.domain.edits[edit])
                known = {k: v.mean().item() for k, v in truth.edit(before, after, attribute, names).items()}
            edits[name][edit] = Outcome(found, known)
            columns.append(Column(edit, after[:SHOWN], _title(name)))
    return edits, columns


def _reader(config: DictConfig, parts: Parts) -> Reader | None:
    """The network that reads attributes off this domain's images, where it has one."""
    if "reader" not in config.domain:
        return None
    reader: Reader = instantiate(config.domain.reader).to(parts.device)
    return reader


def _title(name: str) -> str:
    return f"λ = {name.removeprefix('lambda_')}"


def _numbers(edits: Mapping[str, Outcome]) -> dict[str, dict[str, float]]:
    """Strength, effect and leakage of every edit, and what is known of its truth but not said by these."""
    return {
        name: {"strength": o.edit.strength, "effect": o.edit.effect, "leakage": o.edit.leakage}
        | {key: value for key, value in o.truth.items() if key in TRUTH}
        for name, o in edits.items()
    }


TRUTH = {"excess": ("excess", "σ of factors"), "distance": ("error", "MSE to the true edit")}


def _edit_sections(edits: Mapping[str, Mapping[str, Outcome]]) -> list[Section]:
    """What the edits of equal effect cost, as tables; nothing where the domain has no edits."""
    names = list(dict.fromkeys(name for found in edits.values() for name in found))
    if not names:
        return []
    tables: list[Block] = []
    for name in names:
        measures = [
            Measure("strength", "strength", "σ of W", "lower"),
            Measure("effect", "effect", "σ of the factor"),
            Measure("leakage", "leakage", "σ of factors", "lower"),
        ]
        entries = [Entry(_title(row), dict(_numbers(found)[name])) for row, found in edits.items()]
        known = [key for key in TRUTH if all(key in entry.values for entry in entries)]
        measures += [Measure(key, *TRUTH[key], "lower") for key in known]
        tables.append(Table(measures, entries, f"{name.capitalize()}, on held-out images.", "Codes"))
    text = (
        "Every edit is made so strong that its attribute changes by the same amount on average, as the factor "
        "regressor of measurements reads it; where that is out of reach, the effect says how far the edit got. "
        "Strength is how far the codes had to move; leakage is how much all other factors changed meanwhile."
    )
    if any(o.truth for found in edits.values() for o in found.values()):
        text += (
            " As the true factors are known, the picture that the edit should have given can be rendered: excess is "
            "the leakage beyond that picture's own (age greys hair by itself), error the distance to it."
        )
    return [Section("Edits in numbers", [*tables, Text(text)])]


def _pictured_section(split: str, edits: Mapping[str, Mapping[str, Outcome]], columns: list[Column]) -> list[Section]:
    """The pictures of a further split, and what its edits came to."""
    caption = CONTROL.get(split, f"Images of the {split} split, inverted and edited.")
    tables = [block for section in _edit_sections(edits) for block in section.blocks if isinstance(block, Table)]
    return [Section(f"Further out: the {split} split", [Gallery(columns, caption), *tables])]


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
