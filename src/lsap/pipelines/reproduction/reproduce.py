"""`python -m lsap.reproduce experiment=table4_lambda`: a table or figure of the paper, from trainings to claims tested.

Every command of an experiment is one that could be typed; what was finished before is found, not done again. A command
that fails is named, and the others go on.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lsap.cli.messages import explain
from lsap.config.compose import composed, config_dir, searchpath
from lsap.config.containers import plain
from lsap.errors import BadValue, LsapError, StoppedRun
from lsap.pipelines.devices import process_count
from lsap.pipelines.evaluation.evaluate import evaluate
from lsap.pipelines.evaluation.evaluator import Evaluator
from lsap.pipelines.evaluation.methods import completed
from lsap.pipelines.inversion import invert
from lsap.pipelines.reproduction import Experiment, Finding, Member, Table, claim_of, judged, read_experiment
from lsap.pipelines.reproduction.figures import Evaluated, Figure, figure_of, save_figure
from lsap.pipelines.reproduction.results import measured, published, results_table, values_of
from lsap.pipelines.reproduction.stages import written
from lsap.pipelines.training import run as train
from lsap.runs import manifest, write_json, write_text
from lsap.values import expanded

VERBS: Mapping[str, Callable[[DictConfig], Any]] = {"train": train, "invert": invert}


@dataclass
class Done:
    """What the commands of an experiment came to.

    Attributes:
        runs: seed → row → folder of its inversions.
        folders: seed → what settings of the evaluation call a member → its folder.
        seconds: command → time that it took now; a second or two where it was finished before.
        failed: command → why.
    """

    runs: dict[int, dict[str, Path]] = field(default_factory=lambda: defaultdict(dict))
    folders: dict[int, dict[str, Path]] = field(default_factory=lambda: defaultdict(dict))
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def reproduce(config: DictConfig) -> Path | None:
    """Run what is missing of an experiment, put our numbers beside the published ones, and test the claims.

    Returns:
        The folder of `<domain>.csv`, `<domain>.md` (the claims) and `<domain>.provenance.json`; None for a dry run.

    Raises:
        MissingFile, BadValue: no such experiment, a domain that it does not run on, or several devices.
        StoppedRun: commands failed. All others were done; those are done when it is started again.
    """
    if config.experiment is None:
        raise BadValue(f"experiment is not set: name one of {', '.join(known_experiments())}")
    experiment = read_experiment(folder_of(config.experiment))
    more = common(config, experiment) | (plain(config["with"]) or {})
    members = experiment.members(config.domain.name, more)
    if config["with"]:
        refuse_unknown(members, plain(config["with"]))
    if config.dry:
        print("\n".join(map(str, members)))
        return None
    refuse_several_processes(members)
    claims = [claim_of(each, config.domain.name, config.seed) for each in experiment.claims]
    figures = [figure_of(each) for each in experiment.figures]
    done = run(members, config.outputs)
    if done.failed:
        failures = "\n".join(f"  {line}\n    {why}" for line, why in done.failed.items())
        raise StoppedRun(
            f"{len(done.failed)} of {len(members)} commands failed; the others are done and stay. Started again, only "
            f"these are run:\n{failures}"
        )
    evaluations = {seed: evaluate(evaluation(config, experiment, done, seed)) for seed in done.runs}
    values = values_of(evaluations, list(dict.fromkeys(row for runs in done.runs.values() for row in runs)))
    findings = [judged(claim, Table(values)) for claim in claims]
    folder = Path(config.save_to or f"{config.outputs}/{config.domain.name}/experiments/{experiment.folder.name}")
    write(folder, config, experiment, done, measured(values, experiment), findings)
    if figures:
        draw(folder, config, figures, Evaluated(contest_of(config, experiment, done), values))
    return folder


def refuse_unknown(members: Sequence[Member], further: Mapping[str, Any]) -> None:
    """Refuse further settings that a command does not have, before any is listed or runs; raises BadValue."""
    groups = {each.name for each in config_dir().iterdir() if each.is_dir()}
    tried: set[tuple[str, ...]] = set()
    for member in members:
        settings = [f"{key}={written(value)}" for key, value in member.settings.items() if key in {*groups, *further}]
        if (member.verb, *settings) in tried:
            continue
        tried.add((member.verb, *settings))
        try:
            composed(member.verb, settings, searchpath())
        except (HydraException, OmegaConfBaseException) as error:
            raise BadValue(f"with={written(dict(further))}: {explain(error, member.verb)}, in {member}") from error


def refuse_several_processes(members: Sequence[Member]) -> None:
    """Refuse commands that would run in several processes, before any of them runs; raises BadValue.

    Each process would repeat the whole experiment, and all of them would then evaluate and write into the same folders.
    """
    distinct: dict[tuple[str, ...], DictConfig] = {}
    for member in members:
        settings = tuple(each for each in member.overrides if each.startswith(("trainer", "preset")))
        if (member.verb, *settings) not in distinct:
            distinct[member.verb, *settings] = composed(member.verb, settings, searchpath())
    for config in distinct.values():
        if process_count(config.trainer) > 1:
            raise BadValue(
                f"trainer.devices={config.trainer.devices}: an experiment runs in one process; give its long commands "
                "on several devices first (dry=true lists them), then reproduce with={trainer.devices:1}, which finds "
                "them done"
            )


def run(members: Sequence[Member], outputs: str) -> Done:
    """Do all commands in order; a mistake in one of them does not stop the others."""
    done = Done()
    for number, member in enumerate(members, 1):
        print(f"\n[{number}/{len(members)}] {member}", flush=True)
        began = time.perf_counter()
        try:
            config = composed(member.verb, [*member.overrides, f"outputs={outputs}"], searchpath())
            found = VERBS[member.verb](config)
        except LsapError as error:
            done.failed[str(member)] = str(error)
            print(f"failed: {error}", file=sys.stderr)
            continue
        done.seconds[str(member)] = round(time.perf_counter() - began, 1)
        folder = found if isinstance(found, Path) else found.folder
        if member.row is not None:
            done.runs[member.seed][member.row] = folder
        if member.known_as is not None:
            done.folders[member.seed][member.known_as] = folder
    return done


def common(config: DictConfig, experiment: Experiment) -> dict[str, Any]:
    """What all commands get: where weights lie, and where to log, in one group that is called as the experiment is."""
    usual = composed("reproduce", [f"logger={config.logger.name}"], searchpath())
    found: dict[str, Any] = {} if config.weights == usual.weights else {"weights": config.weights}
    if config.logger.name == "csv":
        return found
    own = {key: value for key, value in plain(config.logger).items() if value != usual.logger[key]}
    own["group"] = config.logger.group or experiment.folder.name
    return found | {"logger": config.logger.name} | {f"logger.{key}": written(value) for key, value in own.items()}


def evaluation(config: DictConfig, experiment: Experiment, done: Done, seed: int) -> DictConfig:
    """The evaluation of one seed's runs, named by their rows; domain, weights and images are those of the runs.

    Raises:
        BadValue: a setting names a folder that no member of this seed is known as.
    """
    own = dict(experiment.settings.get(config.domain.name, {}).get("evaluate", {}))
    folders = {name: own.pop(name) for name, value in list(own.items()) if isinstance(value, str) and "{" in value}
    settings = {"outputs": config.outputs} | common(config, experiment) | own
    whole = composed("evaluate", [f"{name}={written(value)}" for name, value in settings.items()], searchpath())
    for name, text in folders.items():
        try:
            OmegaConf.update(whole, name, text.format(**done.folders[seed]))
        except KeyError as error:
            known = ", ".join(done.folders[seed]) or "none"
            raise BadValue(f"{name}={text!r} speaks of {error}, but of seed {seed} there are {known}") from error
    whole.runs = {row: str(path) for row, path in done.runs[seed].items()}
    return whole


def contest_of(config: DictConfig, experiment: Experiment, done: Done) -> Evaluator:
    """The methods of the first seed, as they were evaluated."""
    return Evaluator.of(completed(evaluation(config, experiment, done, min(done.runs))))


def draw(folder: Path, config: DictConfig, figures: Sequence[Figure], found: Evaluated) -> None:
    """Draw an experiment's figures."""
    for figure in figures:
        print(save_figure(figure.draw(found), folder / f"{config.domain.name}-{figure.file}"))


def write(
    folder: Path, config: DictConfig, experiment: Experiment, done: Done, ours: Any, findings: Sequence[Finding]
) -> None:
    """Write our numbers beside the published ones, what became of the claims, and how it was made."""
    domain = config.domain.name
    write_text(folder / f"{domain}.csv", ours.csv())
    beside = results_table(ours, published(experiment), experiment)
    claims = "".join(f"- **{finding.verdict}**: {finding.text}\n" for finding in findings)
    write_text(folder / f"{domain}.md", f"# {experiment.title}, domain={domain}\n\n{beside}\n## Claims\n\n{claims}")
    write_json(
        folder / f"{domain}.provenance.json",
        {
            "command": f"python -m lsap.reproduce experiment={experiment.folder.name} domain={domain}",
            "with": plain(config["with"]),
            "commands": done.seconds,
            "seeds": sorted(done.runs),
            "claims": [asdict(finding) for finding in findings],
            "made": manifest(),
        },
    )
    print(f"\n{beside}")
    for finding in findings:
        print(finding)
    print(f"\n{folder}/{domain}.md")


def experiments_dir() -> Path:
    """The folder of the experiments: beside `conf/`."""
    return config_dir().parent / "experiments"


def folder_of(name: str) -> Path:
    """The folder of an experiment, by name or path."""
    own = expanded(name)
    return own if len(own.parts) > 1 else experiments_dir() / name


def known_experiments() -> list[str]:
    """Names of the experiments that come with lsap."""
    return sorted(path.parent.name for path in experiments_dir().glob("*/experiment.yaml"))
