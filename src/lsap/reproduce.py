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

from omegaconf import DictConfig

from lsap.assembly import plain
from lsap.cli import command, composed, config_dir, searchpath
from lsap.contest import Contest
from lsap.entrants import completed
from lsap.errors import BadValue, LsapError, StoppedRun
from lsap.evaluate import evaluate
from lsap.figures import Evaluated, Figure, figure_of, save_figure
from lsap.invert import invert
from lsap.reproduction import Experiment, Finding, Member, Table, claim_of, read_experiment
from lsap.reproduction.results import measured, published, results_table, values_of
from lsap.reproduction.stages import written
from lsap.runs import manifest, write_json, write_text
from lsap.train import train

VERBS: Mapping[str, Callable[[DictConfig], Any]] = {"train": train, "invert": invert}


@dataclass
class Done:
    """What the commands of an experiment came to.

    Attributes:
        runs: seed → row → folder of its inversions.
        seconds: command → time that it took now; a second or two where it was finished before.
        failed: command → why.
    """

    runs: dict[int, dict[str, Path]] = field(default_factory=lambda: defaultdict(dict))
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def reproduce(config: DictConfig) -> Path | None:
    """Run what is missing of an experiment, put our numbers beside the published ones, and test the claims.

    Returns:
        The folder of `<domain>.csv`, `<domain>.md` (the claims) and `<domain>.provenance.json`; None for a dry run.

    Raises:
        MissingFile, BadValue: no such experiment, or a domain that it does not run on.
        StoppedRun: commands failed. All others were done; those are done when it is started again.
    """
    if config.experiment is None:
        raise BadValue(f"experiment is not set: name one of {', '.join(known_experiments())}")
    experiment = read_experiment(folder_of(config.experiment))
    members = experiment.members(config.domain.name, plain(config["with"]))
    if config.dry:
        print("\n".join(map(str, members)))
        return None
    claims = [claim_of(each, config.domain.name, config.seed) for each in experiment.claims]
    figures = [figure_of(each) for each in experiment.figures]
    done = run(members, config.outputs)
    if done.failed:
        told = "\n".join(f"  {line}\n    {why}" for line, why in done.failed.items())
        raise StoppedRun(
            f"{len(done.failed)} of {len(members)} commands failed; the others are done and stay. Started again, only "
            f"these are run:\n{told}"
        )
    evaluations = {seed: evaluate(evaluation(config, experiment, runs)) for seed, runs in done.runs.items()}
    values = values_of(evaluations, list(dict.fromkeys(row for runs in done.runs.values() for row in runs)))
    findings = [claim.check(Table(values)) for claim in claims]
    folder = Path(config.save_to or f"{config.outputs}/{config.domain.name}/experiments/{experiment.folder.name}")
    if figures:
        draw(folder, config, figures, Evaluated(contest_of(config, experiment, done), values))
    write(folder, config, experiment, done, measured(values, experiment), findings)
    return folder


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
        if member.row is not None:
            done.runs[member.seed][member.row] = found.folder
    return done


def evaluation(config: DictConfig, experiment: Experiment, runs: Mapping[str, Path]) -> DictConfig:
    """The evaluation of one seed's runs, named by their rows."""
    domain = config.domain.name
    own = experiment.settings.get(domain, {}).get("evaluate", {})
    settings = {"domain": domain, "outputs": config.outputs, **own}
    whole = composed("evaluate", [f"{name}={written(value)}" for name, value in settings.items()], searchpath())
    whole.runs = {row: str(path) for row, path in runs.items()}
    return whole


def contest_of(config: DictConfig, experiment: Experiment, done: Done) -> Contest:
    """The methods of the first seed, as they were evaluated."""
    return Contest.of(completed(evaluation(config, experiment, done.runs[min(done.runs)])))


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
    claims = "".join(
        f"- **{f.verdict}**: {f.says}: {f.value:.3g} [{f.low:.3g}, {f.high:.3g}], {f.wanted}\n" for f in findings
    )
    write_text(folder / f"{domain}.md", f"# {experiment.title}, domain={domain}\n\n{beside}\n## Claims\n\n{claims}")
    write_json(
        folder / f"{domain}.provenance.json",
        {
            "command": f"python -m lsap.reproduce experiment={experiment.folder.name} domain={domain}",
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
    own = Path(name).expanduser()
    return own if len(own.parts) > 1 else experiments_dir() / name


def known_experiments() -> list[str]:
    """Names of the experiments that come with lsap."""
    return sorted(path.parent.name for path in experiments_dir().glob("*/experiment.yaml"))


main = command("reproduce")(reproduce)

if __name__ == "__main__":
    main()
