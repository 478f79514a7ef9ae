"""`python -m lsap.compare`: encoders that differ only in lambda_nscd, side by side on one page. `make demo` runs it."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from omegaconf import DictConfig

from lsap.checkpoints import fingerprint
from lsap.config.compose import composed, searchpath
from lsap.config.containers import as_written, editable
from lsap.data import ImageDataModule
from lsap.errors import BadValue
from lsap.evaluation.cache import MetricCache, Rows
from lsap.evaluation.columns import Measure
from lsap.evaluation.protocols import Protocol
from lsap.evaluation.rows import seven_digits
from lsap.pipelines.build import Parts
from lsap.pipelines.devices import own_device, process_count
from lsap.pipelines.evaluation.edit_metrics import edit_metrics, selected
from lsap.pipelines.evaluation.methods import MethodOutputs, shared, stored_method
from lsap.pipelines.images import Chosen
from lsap.pipelines.inversion import invert
from lsap.pipelines.training import Trained, check, train
from lsap.reports.page import Block, Entry, Gallery, Section, Table, Text
from lsap.reports.pictures import Column, grid
from lsap.reports.pictures import save as save_picture
from lsap.reports.run_reports import comparison_report, fidelity_table
from lsap.runs import manifest, write_json

SHOWN = 8  # images in the picture
EDITED = 128  # images that are inverted and edited, the first ones of a split


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
    members = {f"lambda_{value:g}": _member(config, value) for value in lambdas}
    runs = {name: train(member) for name, member in members.items()}
    parts = Parts(config, own_device(config.trainer))
    splits = _joined(runs)
    split, rows = next(iter(splits.items()))
    pictured = [name for name in config.domain.get("pictured") or [split] if name in splits]
    looked = {name: _edited(config, parts, members, name) for name in pictured}
    edits, columns = looked[pictured[0]]
    seconds = round(time.perf_counter() - started, 1)
    page = Path(config.page)
    labels = next(iter(runs.values())).labels
    summary = {
        "rows": [{"name": name} | {key: row.get(key) for key in SUMMARY} for name, row in rows.items()],
        "split": split,
        "labels": labels,
        "edits": {name: found for name, (found, _) in looked.items()},
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


Edits = dict[str, dict[str, dict[str, float]]]  # encoder → edit → measure → mean over images


def announced(config: DictConfig, encoders: int) -> str:
    """What is about to be trained, and how long it takes, which is known of the domain's own number of steps only."""
    usual = composed("compare", [f"domain={config.domain.name}"], searchpath())
    as_usual = (config.max_steps, encoders) == (usual.max_steps, len(usual.lambdas))
    expected = f": {config.domain.duration}" if as_usual and "duration" in config.domain else ""
    return f"{encoders} encoders, {config.max_steps} {'step' if config.max_steps == 1 else 'steps'} each{expected}"


def _lambdas(config: DictConfig) -> list[float]:
    """The weights to compare.

    Raises:
        BadValue: fewer than two different ones.
    """
    lambdas = [float(value) for value in config.lambdas]
    if len(lambdas) < 2 or len(set(lambdas)) < len(lambdas):
        raise BadValue(f"lambdas={config.lambdas}: expected at least two different numbers of at least 0, as [0,0.5]")
    return lambdas


def _joined(runs: dict[str, Trained]) -> dict[str, dict[str, Any]]:
    """Per split, the rows of all runs in one table; the two reference rows are the same in each and come first."""
    splits: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        for split, rows in run.splits.items():
            table = splits.setdefault(split, {key: rows[key] for key in REFERENCES})
            (table[name],) = (row for key, row in rows.items() if key not in REFERENCES)
    return splits


def _member(config: DictConfig, weight: float) -> DictConfig:
    """The configuration that trains one of the encoders."""
    member = editable(config)
    member.lambda_nscd = weight
    if config.logger.name == "wandb" and config.logger.group is None:
        member.logger.group = f"compare lambda_nscd={','.join(f'{each:g}' for each in config.lambdas)}"
    return member


def _configured(command: str, config: DictConfig, **settings: Any) -> DictConfig:
    """The configuration of another command, with the settings that it has in common with this one."""
    groups = [f"domain={config.domain.name}"] + [f"embedding={config.embedding.name}"] * (command == "invert")
    found = composed(command, groups, searchpath())
    for key, value in (as_written(config) | settings).items():
        if key in found and key not in ("refinement", "logger"):
            found[key] = value
    return found


def _images(data: ImageDataModule, split: str) -> Chosen:
    """The first images of a split; of the held-out training images where the domain has no test images."""
    if split in data.tests:
        return Chosen(data.tests[split], tuple(data.tests[split].names[:EDITED]), split)
    places = (data.val_indices or data.train_indices)[:EDITED]
    return Chosen(data.train, tuple(data.train.names[place] for place in places), split)


def _edited(
    config: DictConfig, parts: Parts, members: Mapping[str, DictConfig], split: str
) -> tuple[Edits, list[Column]]:
    """Invert the first images of a split with every encoder, and edit them where the domain can read attributes."""
    chosen = _images(parts.data(), split)
    methods: dict[str, MethodOutputs] = {}
    for name, member in members.items():
        asked = _configured("invert", member, split=split, count=EDITED)
        methods[name] = stored_method(invert(asked, chosen).folder, parts)
    common = shared(list(methods.values()), common=True)
    names = [name for name in chosen.names if name in common]
    readable = "reader" in config.domain
    asked = _configured("evaluate", config, direction=None if readable else [], matched_on=EDITED)
    measured = edit_metrics(asked, parts, chosen, None, Protocol("view"))
    _, inputs, _ = chosen.read(names[:SHOWN])
    assert inputs is not None, "they could be read before"
    columns = [Column("input", inputs)]
    found: Edits = {}
    for name, method in methods.items():

        def cache(again: bool, method: MethodOutputs = method) -> MetricCache:
            about = {"run": method.digest, "names": names, "again": again, **measured.settings}
            return MetricCache(Path(config.outputs) / config.domain.name / "evaluations" / "kept", "edits", about)

        rows = measured.run(method, names, cache)
        found[name] = {edit: _means(rows, edit) for edit in measured.names}
        inversions = [parts.view(part.render()).float().cpu() for part in selected(method, names[:SHOWN], parts)]
        columns.append(Column("inversion", torch.cat(inversions), _title(name)))
        drawn = measured.drawn(method, names[:SHOWN], rows)
        columns += [Column(edit, images, _title(name)) for edit, images in drawn.items()]
    if measured.notes:
        print(f"not measured: {'; '.join(measured.notes)}")
    return found, columns


def _means(rows: Rows, edit: str) -> dict[str, float]:
    """Means over images of the measures of an edit; empty where its effect cannot be read on any of them."""
    means = {}
    for key in ("strength", "effect", "leakage", *TRUTH):
        values = [row[f"{key}/{edit}"] for row in rows.values() if row.get(f"{key}/{edit}") is not None]
        if values:
            means[key] = seven_digits(fmean(values))
    return means


def _title(name: str) -> str:
    return f"λ = {name.removeprefix('lambda_')}"


TRUTH = {"excess": ("excess", "σ of factors"), "distance": ("error", "MSE to the true edit")}


def _edit_sections(edits: Edits) -> list[Section]:
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
        entries = [Entry(_title(row), dict(found[name])) for row, found in edits.items()]
        known = [key for key in TRUTH if all(key in entry.values for entry in entries)]
        measures += [Measure(key, *TRUTH[key], "lower") for key in known]
        tables.append(Table(measures, entries, f"{name.capitalize()}, on held-out images.", "Codes"))
    text = (
        "Every edit is made so strong that its attribute changes by the same amount on average, as the factor "
        "regressor of measurements reads it; where that is out of reach, the effect says how far the edit got. "
        "Strength is how far the codes had to move; leakage is how much all other factors changed meanwhile."
    )
    if any(key in means for found in edits.values() for means in found.values() for key in TRUTH):
        text += (
            " As the true factors are known, the picture that the edit should have given can be rendered: excess is "
            "the leakage beyond that picture's own (age greys hair by itself), error the distance to it."
        )
    return [Section("Edits in numbers", [*tables, Text(text)])]


def _pictured_section(split: str, edits: Edits, columns: list[Column]) -> list[Section]:
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
