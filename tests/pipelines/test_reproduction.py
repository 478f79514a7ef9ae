"""Experiments: what runs, what is skipped, what comes out, and that their page tells it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lsap.cli.sweeps import members_of
from lsap.config.compose import composed
from lsap.errors import BadValue, MissingFile, StoppedRun
from lsap.pipelines.reproduction import Measured, Member, claim_of, read_experiment
from lsap.pipelines.reproduction import reproduce as verb
from lsap.pipelines.reproduction.figures import Curves, Evaluated, Strips, figure_of, principal, save_figure
from lsap.pipelines.reproduction.reproduce import Done, common, evaluation, reproduce, run
from lsap.pipelines.reproduction.results import published, values_of
from lsap.pipelines.reproduction.stages import Stage, written
from pages import ROOT, commands
from pages import table as table_of

EXPERIMENTS = ROOT / "experiments"
FOLDERS = sorted(path.parent for path in EXPERIMENTS.glob("*/experiment.yaml"))


def test_a_stage_is_all_combinations_in_order() -> None:
    stage = Stage(
        "invert", {"embedding": ["e4e", "lsap_e"], "refinement": ["none", "pti"]}, "{embedding} + {refinement}"
    )
    members = list(stage.members({"domain": "demo", "count": None}))
    assert [m.row for m in members] == ["e4e + none", "e4e + pti", "lsap_e + none", "lsap_e + pti"]
    assert str(members[1]) == "python -m lsap.invert embedding=e4e refinement=pti domain=demo count=null"


def test_a_row_speaks_of_settings_that_its_stage_has() -> None:
    with pytest.raises(BadValue, match="refinement"):
        list(Stage("invert", {"embedding": "e4e"}, "{refinement}").members({}))


def test_values_are_written_in_hydras_grammar() -> None:
    assert written({"a": [1, None, True], "b": 2e-5}) == "{a:[1,null,true],b:2e-05}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_experiment_reads_and_lists_its_commands(folder: Path) -> None:
    experiment = read_experiment(folder)
    for domain in experiment.domains:
        members = experiment.members(domain, {})
        assert len({str(m) for m in members}) == len(members) > 0


def test_numbers_of_seeds_are_gathered_from_evaluations(tmp_path: Path) -> None:
    """Two seeds; one image lacks identity; LEC as published is of the set, its plain mean of images."""
    for seed, more in ((0, 0.0), (1, 0.2)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        images, sets = ["method,name,mse,identity,lec/pose"], ["method,measure,label,mean,std,low,high,n"]
        for method, value in (("x", 1.0), ("y", 2.0)):
            images += [f"{method},{n},{value + more},{'' if n == 'b' else 0.5},{value}" for n in "abc"]
            sets += [f"{method},lec/pose,LEC,{value + 4 + more},,,,3", f"{method},mse,MSE,9,1,8,10,3"]
        (folder / "images.csv").write_text("\n".join(images))
        (folder / "table.csv").write_text("\n".join(sets))
    values = values_of({0: tmp_path / "0", 1: tmp_path / "1"}, ["x", "y"])
    found = {(each.method, each.measure): each for each in values}
    assert found["x", "mse"].values.shape == (2, 3)
    assert found["y", "mse"].mean == pytest.approx(2.1)
    assert found["x", "identity"].values.shape == (2, 2)
    assert found["x", "lec/pose"].values.tolist() == [[5.0], [5.2]]
    assert found["x", "lec_mean/pose"].values.shape == (2, 3)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_claims_and_published_rows_speak_of_rows_that_are_run(folder: Path) -> None:
    experiment = read_experiment(folder)
    for domain in experiment.domains:
        rows = {member.row for member in experiment.members(domain, {})} - {None}
        for described in experiment.claims:
            assert {method for method, _ in claim_of(described, domain).needs()} <= rows
        if domain != "demo" and experiment.claims:
            assert rows <= set(published(experiment))
        for described in experiment.figures:
            figure = figure_of(described)
            if isinstance(figure, Strips):
                assert set(figure.methods or rows) <= rows
        assert experiment.claims or experiment.figures, "something is shown"
        assert set(experiment.gain) | set(experiment.gain.values()) <= rows


# ---- commands


def test_a_refinements_training_is_not_that_of_an_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trained = []

    def network(config: Any) -> Path:
        trained.append((config.refinement.name, config.outputs))
        return tmp_path

    monkeypatch.setattr("lsap.pipelines.training.train_refinement", network)
    done = run([Member("train", {"refinement": "sam"}, known_as="sam")], "elsewhere")
    assert trained == [("sam", "elsewhere")]
    assert done.folders == {0: {"sam": tmp_path}}


def test_commands_that_fail_are_named_and_the_others_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun = []

    def train(config: Any) -> Path:
        begun.append(config.seed)
        if config.seed == 1:
            raise BadValue("the disk is full")
        return tmp_path

    monkeypatch.setattr(verb, "VERBS", {"train": train})
    done = run([Member("train", {"seed": seed}) for seed in range(3)], "outputs")
    assert begun == [0, 1, 2]
    assert done.failed == {"python -m lsap.train seed=1": "the disk is full"}
    assert len(done.seconds) == 2


def test_an_experiment_with_failed_commands_ends_with_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(config: Any) -> Path:
        raise BadValue("no weights")

    monkeypatch.setattr(verb, "VERBS", {"train": train, "invert": train})
    with pytest.raises(StoppedRun, match=r"(?s)4 of 4 commands failed.*lsap.invert embedding=lsap_e .*no weights"):
        reproduce(composed("reproduce", ["experiment=table2_domains"]))


def test_commands_on_several_devices_are_refused_before_any_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process would repeat the experiment, and all would write its results."""
    begun: list[Any] = []
    monkeypatch.setattr(verb, "VERBS", {"train": begun.append, "invert": begun.append})
    settings = ["experiment=table4_lambda", "with={trainer.devices: 2, trainer.accelerator: cpu}"]
    with pytest.raises(BadValue, match=r"trainer\.devices=2: an .* in one process.*with=\{trainer\.devices:1\}"):
        reproduce(composed("reproduce", settings))
    assert not begun
    assert reproduce(composed("reproduce", [*settings, "dry=true"])) is None, "the commands may be looked at"


def test_all_commands_log_in_a_group_that_is_called_as_the_experiment_is(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["experiment=table4_lambda", "logger=wandb", "logger.project=inversion", "logger.tags=[a,b]", "dry=true"]
    reproduce(composed("reproduce", settings))
    lines = capsys.readouterr().out.strip().splitlines()
    assert (len(lines), sum("logger.group=table4_lambda" in line for line in lines)) == (36, 36)
    for line in (lines[0], lines[-1]):
        overrides = shlex.split(line)[3:]
        config = composed(line.split()[2].removeprefix("lsap."), overrides)
        assert (config.logger.name, config.logger.group) == ("wandb", "table4_lambda")
        assert (config.logger.project, list(config.logger.tags)) == ("inversion", ["a", "b"])
    reproduce(composed("reproduce", [*settings, "logger.group=mine"]))
    assert capsys.readouterr().out.count("logger.group=mine") == 36
    reproduce(composed("reproduce", ["experiment=table4_lambda", "dry=true"]))
    assert "logger" not in capsys.readouterr().out


def test_further_settings_go_into_every_command_and_their_lists_are_swept(capsys: pytest.CaptureFixture[str]) -> None:
    more = "with={lambda_nscd: [0, 0.5], seed: 0, trainer.precision: bf16-mixed}"
    reproduce(composed("reproduce", ["experiment=table4_lambda", "dry=true", more]))
    settings = "seed=0 domain=demo trainer.precision=bf16-mixed"
    assert capsys.readouterr().out.splitlines() == [
        f"python -m lsap.{called} embedding=lsap_e lambda_nscd={weight} {settings}"
        for called in ("train", "invert")
        for weight in ("0", "0.5")
    ]


@pytest.mark.parametrize(
    ("further", "said"),
    [
        ("{trainer.precisoin: bf16}", "unknown setting 'trainer.precisoin': did you mean 'trainer.precision'"),
        ("{steps: 3}", "unknown setting 'steps'"),
        ("{preset: papre}", "preset=papre: there is no such preset; did you mean 'paper'"),
    ],
)
def test_further_settings_that_a_command_does_not_have_are_refused_first(
    further: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadValue, match=re.escape(said)):
        reproduce(composed("reproduce", ["experiment=table4_lambda", "dry=true", f"with={further}"]))
    assert capsys.readouterr().out == ""


def test_the_evaluation_logs_there_too_and_finds_folders_by_name(tmp_path: Path) -> None:
    config = composed("reproduce", ["experiment=sec56_nscd", "logger=wandb", "weights=mine"])
    experiment = read_experiment(EXPERIMENTS / "sec56_nscd")
    assert common(config, experiment) == {"weights": "mine", "logger": "wandb", "logger.group": "sec56_nscd"}
    done = Done()
    done.runs[0] = {"e4e": tmp_path / "a=1,b=2"}
    with pytest.raises(BadValue, match="speaks of 'e4e', but of seed 0 there are none"):
        evaluation(config, experiment, done, 0)
    done.folders[0]["e4e"] = tmp_path / "lr=1,seed=0"
    found = evaluation(config, experiment, done, 0)
    assert found.discriminator == f"{tmp_path}/lr=1,seed=0/checkpoints/last.ckpt"
    assert (found.matched, found.effect, found.weights, found.logger.group) == ("image", 1.0, "mine", "sec56_nscd")
    assert dict(found.runs) == {"e4e": str(tmp_path / "a=1,b=2")}


def meant(verb_: str, overrides: list[str]) -> tuple[str, frozenset[tuple[str, str]]]:
    """A command without what only repeats a default."""
    usual = {"embedding": "lsap_e", "seed": "0", "refinement": "none", "lambda_nscd": "0.5"}
    settings = dict(override.split("=", 1) for override in overrides)
    if "lambda_nscd" in settings:
        settings["lambda_nscd"] = f"{float(settings['lambda_nscd']):g}"
    return verb_, frozenset(item for item in settings.items() if usual.get(item[0]) != item[1])


def test_the_page_has_every_command_of_the_tables_on_photographs() -> None:
    told = set()
    for page, called, arguments in commands():
        if page == "reproduce.md" and called in ("train", "invert") and "…" not in arguments:
            words = shlex.split(arguments, comments=True)
            swept = [w for w in words if w != "-m" and not w.startswith("hydra")]
            fixed = [w for w in swept if "," not in w]
            members = members_of(swept) if "-m" in words else [" ".join(swept)]
            told |= {meant(called, [*fixed, *(w for w in each.split() if w not in fixed)]) for each in members}
    for name in ("table1_fidelity", "table2_domains", "table3_editability", "table4_lambda"):
        experiment = read_experiment(EXPERIMENTS / name)
        for domain in set(experiment.domains) - {"demo"}:
            for member in experiment.members(domain, {}):
                assert meant(member.verb, member.overrides) in told, f"docs/reproduce.md lacks {member}"


def test_the_hours_are_steps_over_rates_and_the_steps_those_of_the_settings() -> None:
    def product(cell: str) -> float:
        return float(np.prod([float(number) for number in cell.split(" × ")]))

    steps = {}
    for what, count, rate, hours in table_of("docs/reproduce.md", "what")[1:]:
        steps[re.split(r"[:,]", what)[0]] = [float(number) for number in count.split(" × ")]
        assert float(hours) == float(f"{product(count) / float(rate) / 3600:.{2 if float(hours) >= 10 else 1}g}"), what
    face = composed("train", ["domain=face"])
    assert steps["psp"] == [face.max_steps]
    restyle = composed("train", ["domain=face", "embedding=restyle_lsap"])
    assert steps["restyle_e4e"] == [restyle.max_steps, restyle.iterations]
    assert steps["hfgi over one encoder"] == [
        composed("train", ["domain=face", "refinement=hfgi"]).refinement.training.max_steps
    ]
    sam = composed("invert", ["domain=face", "refinement=sam"]).refinement
    examples = sam.training.examples
    assert (steps["network of sam"], examples.images, examples.steps) == ([sam.training.max_steps], 2000, 501)
    assert examples.feature_steps is None, "as many as in W+"
    images = face.data.published.test[0].count
    assert steps["one row by optimisation"] == [images, composed("invert", ["embedding=lsap_o_w"]).steps]
    assert steps["one row refined by sam"] == [images, sam.steps]
    pti = composed("invert", ["domain=face", "refinement=pti"]).refinement
    assert steps["one row refined by pti"] == [images, pti.steps]


# ---- the same again

MINIATURE: Mapping[str, Any] = {
    "lambda_nscd": [0, 0.5], "seed": 0, "max_steps": 2, "batch_size": 2, "space.samples": 256, "data.train.count": 40,
    "data.val_images": 4, "data.tests.rich.count": 8, "data.tests.plain.count": 2, "data.tests.far.count": 2,
    "trainer.accelerator": "cpu",
}  # fmt: skip


@pytest.mark.slow
def test_a_second_run_from_an_empty_folder_gives_the_same_table(tmp_path: Path) -> None:
    found = []
    for place in ("first", "second"):
        settings = [
            f"with={written(dict(MINIATURE))}",
            f"outputs={tmp_path / place}",
            f"save_to={tmp_path / place}-table",
        ]
        folder = reproduce(composed("reproduce", ["experiment=table4_lambda", *settings]))
        assert folder is not None
        found.append(folder)
    first, second = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in found)
    assert set(first) == {"demo.csv", "demo.md", "demo.provenance.json", "demo-curves.png"}
    assert [line.split(",")[0] for line in first["demo.csv"].decode().splitlines()] == ["row", "0", "0.5"]
    assert first["demo.csv"] == second["demo.csv"]
    assert first["demo.md"] == second["demo.md"]
    verdicts = [each["verdict"] for each in json.loads(first["demo.provenance.json"])["claims"]]
    assert verdicts.count("not tested") == 10, "of twelve claims, two speak of these two weights alone"


# ---- experiments


def test_an_unknown_experiment_names_those_that_there_are() -> None:
    with pytest.raises(MissingFile, match="table4_lambda"):
        read_experiment(EXPERIMENTS / "table4")


def test_another_domain_is_refused() -> None:
    with pytest.raises(BadValue, match="accepted: demo, face"):
        read_experiment(EXPERIMENTS / "table4_lambda").members("car", {})


# ---- figures


def values(**rows: float) -> list[Measured]:
    return [Measured(name.removeprefix("l"), "mse", np.full((2, 3), mean)) for name, mean in rows.items()]


def test_curves_go_over_rows_that_are_numbers(tmp_path: Path) -> None:
    found = Evaluated(None, values(l0=1.0, l1=0.5))  # type: ignore[arg-type]
    path = save_figure(Curves(["mse"]).draw(found), tmp_path / "demo-curves.png")
    with Image.open(path) as picture:
        assert picture.width > 200
        assert len(picture.convert("L").getcolors(1 << 16)) > 10
    with pytest.raises(BadValue, match="nobody measured 'lpips'"):
        Curves(["lpips"]).draw(found)
    with pytest.raises(BadValue, match="rows must be numbers"):
        Curves(["mse"]).draw(Evaluated(None, values(e4e=1.0)))  # type: ignore[arg-type]


def test_principal_directions_are_those_of_greatest_spread() -> None:
    rng = torch.Generator().manual_seed(0)
    points = torch.randn(500, 5, generator=rng, dtype=torch.double) * torch.tensor([0.1, 3.0, 0.1, 1.0, 0.1])
    axes = principal(points - points.mean(0))
    torch.testing.assert_close(axes.T @ axes, torch.eye(2, dtype=torch.double))
    assert axes[1, 0] > 0.99
    assert axes[3, 1] > 0.99


def test_unknown_figures_and_arguments_are_refused() -> None:
    with pytest.raises(BadValue, match=r"no figure 'Curve'.*Curves"):
        figure_of({"figure": "Curve"})
    with pytest.raises(BadValue, match="figure Curves: "):
        figure_of({"figure": "Curves", "measure": ["mse"]})
