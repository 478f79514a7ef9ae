"""Every command line of README and docs is run: here, by another test that is named, or it says what it is missing.

What a reader has to bring is written in the command itself, as another domain than the demo or a path of theirs; given
in an empty folder it ends with one line that says so. What needs a cluster is marked by a comment. All other commands
are run as they stand, made shorter (slow), unless a test of their own does it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from commands import Command
from lsap.checkpoints import save_generator
from lsap.demo.weights import load_generator
from pages import PAGES, ROOT, blocks

TESTS = ROOT / "tests"

# What a reader brings: weights, photographs, results of other tools, runs of another domain than the demo.
BROUGHT = re.compile(
    r"domain=(?!demo\b)\w+|shows=(?!demo\b)|/path/to/|\b(weights|photographs|results)/|images=photographs|"
    r"outputs/(?!demo/|pretrain/)\w+/|(?<![/\w])[\w-]+\.(npy|pt|pkl)\b"
)
MADE = re.compile(r"save_to=\S+")  # no file that is brought
CLUSTER = "# needs a cluster"

# Commands that are run by tests of their own: the test must be there.
ELSEWHERE = {
    r"app$": "web/test_page.py::test_a_sample_is_inverted_and_the_slider_moves_the_smile",
    r"assets .*fetch=true": "pipelines/test_assets.py::test_fetching_gets_what_has_an_address_and_names_the_rest",
    r"laboratory$": "demo/test_generator_quality.py::test_the_command_writes_figures_and_sheets",
    r"pretrain target=(generator|trunk|identity)$": "demo/test_pretraining.py::"
    "test_the_command_writes_weights_and_their_card",
    r"pretrain target=adversarial ": "demo/test_pretraining.py::"
    "test_the_second_phase_goes_on_from_the_first_and_resumes_exactly",
    r"train .*trainer.devices=2": "pipelines/test_training.py::test_two_processes_leave_one_set_of_files",
    r"invert .*trainer.devices=2": "pipelines/test_inversion_runs.py::test_two_processes_give_the_files_of_one",
    r"(invert .*refinement=colour|edit imports=\[colour_match\] .*direction=smile) ": "docs/test_adding_a_method.py::"
    "test_a_refinement_is_one_class_and_one_yaml",
    r"invert .*embedding=three_styles ": "docs/test_adding_a_method.py::test_an_embedding_is_one_class_and_one_yaml",
    r"(train|invert) .*embedding=mean_colour ": "docs/test_adding_a_method.py::"
    "test_an_encoder_and_a_loss_are_two_classes_and_one_yaml",
    r"(discover .*=median_gap|edit .*direction=gaps/smile.safetensors) ": "docs/test_adding_a_method.py::"
    "test_a_way_of_finding_directions_is_one_class_and_one_yaml",
}

# Lines of shell that are no commands of lsap, and who runs them.
SHELL = {
    r"pip install \.$": "test_wheel.py::test_commands_find_their_configuration",
    r"pip install ('lsap\[(app|cluster|dashboard)\]'|[\w -]+)$": None,  # pip's business
    r"make demo$": "pipelines/test_comparison.py::test_summary_has_the_four_rows_and_the_seconds",
    r"make (test|bench)$": None,  # runs the tests themselves; `lsap.bench` is run below
    r"make reproduce EXPERIMENT=\w+( DOMAIN=\w+)?$": "pipelines/test_reproduction.py::"
    "test_every_experiment_reads_and_lists_its_commands",
}

ONE = ["trainer.accelerator=cpu", "trainer.devices=1"]
TRAINING = [
    "max_steps=2", "batch_size=2", "data.train.count=8", "data.val_images=2", "data.tests.rich.count=2",
    "data.tests.plain.count=2", "data.tests.far.count=2", "data.num_workers=0", "space.samples=64", *ONE,
]  # fmt: skip
INVERSION = ["count=2", "images_per_batch=2"]
NETWORK = ["refinement.training.max_steps=2", "refinement.training.batch_size=2", "refinement.training.val_images=1"]
OF_REFINEMENTS = {
    "sam": [*NETWORK, *(f"refinement.training.examples.{one}" for one in ("images=4", "steps=2", "feature_steps=2"))],
    "hfgi": NETWORK,
}
QUICK = {
    "bench": ["repetitions=1", "batch_size=2", "together=2", "samples=500", "large.size=32"],
    "discover": ["samples=100", "measured_on=4", "shown=1", "space.samples=64", "accelerator=cpu"],
    "edit": ["accelerator=cpu", "matched_on=2"],
    "evaluate": ["accelerator=cpu", "matched_on=2", "space.samples=64", "workers=1", "correlations=false"],
    "pretrain": ["target.module.max_steps=2", "target.module.batch_size=4"],
}
FIXED = {"assets", "convert", "dashboard", "reproduce"}  # quick as they stand


def lines() -> list[tuple[str, str]]:
    """(page, line) of everything to be typed: in blocks of shell, and commands of ours in running text."""
    found = []
    for page in PAGES:
        inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text(encoding="utf-8"))
        found += [(page.name, line) for line in inline if "-m lsap." in line or re.match(r"make \w+$", line)]
        found += [(page.name, line) for block in blocks(page, "sh") for line in block.splitlines() if line.strip()]
    return sorted({(page, " ".join(line.split())) for page, line in found if "…" not in line})


def typed(line: str) -> str:
    """Verb and arguments of a command of ours, without the comment behind it; nothing for other lines."""
    called = re.search(r"-m lsap\.([a-z]+)(.*)", line)
    return "" if called is None else f"{called[1]} {without_comment(called[2])}".strip()


def without_comment(text: str) -> str:
    return re.sub(r"(^|\s)#.*", "", text).strip()


def elsewhere(command: str, known: dict[str, str] | None = None) -> str | None:
    """The test of its own that runs a command."""
    return next((test for pattern, test in (known or ELSEWHERE).items() if re.match(pattern, command)), None)


def brought(command: str) -> bool:
    """Whether a command names what a reader has to bring."""
    listing = command.startswith(("assets ", "reproduce ", "dashboard ")) or "--cfg" in command
    return not listing and BROUGHT.search(MADE.sub("", command)) is not None


OURS = sorted({(page, typed(line)) for page, line in lines() if typed(line) and CLUSTER not in line})
NEEDING = sorted({command for _, command in OURS if elsewhere(command) is None and brought(command)})
RUN = sorted({command for _, command in OURS if elsewhere(command) is None and not brought(command)})


def exists(test: str) -> bool:
    module, name = test.split("::")
    return re.search(rf"^(async )?def {name}\(", (TESTS / module).read_text(encoding="utf-8"), re.MULTILINE) is not None


# ---- which is which


@pytest.mark.parametrize("test", sorted({*ELSEWHERE.values(), *filter(None, SHELL.values())}))
def test_the_tests_that_run_commands_are_there(test: str) -> None:
    assert exists(test)


@pytest.mark.parametrize("pattern", ELSEWHERE)
def test_what_is_run_elsewhere_is_documented(pattern: str) -> None:
    assert any(elsewhere(command, {pattern: "it"}) for _, command in OURS), f"no page has a command like {pattern!r}"


def test_every_line_of_shell_is_known() -> None:
    strange = [
        f"{page}: {line}"
        for page, line in lines()
        if not typed(line) and not any(re.match(pattern, without_comment(line)) for pattern in SHELL)
    ]
    assert not strange, "\n".join(strange)


def test_every_command_is_run_or_says_what_it_needs() -> None:
    verbs = {command.split()[0] for command in RUN}
    unknown = verbs - FIXED - set(QUICK) - {"train", "compare", "invert"}
    assert not unknown, f"nobody knows how to make these short enough to be run: {sorted(unknown)}; see QUICK"
    assert all("dry=true" in command for command in RUN if command.startswith("reproduce")), "experiments take hours"
    assert NEEDING
    assert {"train", "invert", "edit", "evaluate", "discover"} <= verbs


def test_what_needs_files_is_explained_in_the_readme() -> None:
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "name another domain than the demo or a path of yours need such files" in readme


# Who runs the blocks of Python, by page.
PYTHON = {
    "README.md": "docs/test_documented_commands.py::test_the_five_lines_of_the_readme_run",
    "adding-a-method.md": "docs/test_adding_a_method.py::test_a_refinement_is_one_class_and_one_yaml",
    "python.md": "api/test_load.py::test_the_lines_of_the_page_run",
}


def test_every_page_with_python_has_a_test_that_runs_it() -> None:
    assert {page.name for page in PAGES if blocks(page, "python")} == set(PYTHON)
    assert all(map(exists, PYTHON.values()))


def test_the_five_lines_of_the_readme_run(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    shorter = code.replace("50_000", "500")
    assert shorter != code
    exec(compile(shorter, "README.md", "exec"), {})
    assert re.fullmatch(r"tensor\(0\.\d+\) beside the generator's own samples: .*0\.\d+.*\n", capsys.readouterr().out)


# ---- commands that need what a reader has to bring


def one_of_each_verb(lines: Sequence[str]) -> list[object]:
    """The lines as parameters of a test: slow but for the shortest of every verb; the page takes long to load."""
    quick = {line.split()[0]: line for line in sorted(lines, key=len, reverse=True)}
    quick.pop("app", None)
    slow = [pytest.param(line, marks=pytest.mark.slow) for line in lines if line not in quick.values()]
    return [*sorted(quick.values()), *slow]


@pytest.mark.parametrize("line", one_of_each_verb(NEEDING))
def test_without_its_files_a_command_says_what_is_missing(
    line: str,
    command: Command,
    own_yaml: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("TORCH_HOME", "LSAP_WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    (tmp_path / "mine").symlink_to(own_yaml / "mine")
    verb, *arguments = shlex.split(line)
    outcome = command(verb, *arguments)
    assert outcome.code == 2, outcome.out
    assert outcome.err.startswith("error: ")
    assert not re.search("unknown setting|there is no such (domain|embedding)|cannot read", outcome.err), outcome.err
    named = [value for word in arguments for value in re.findall(r"[\w./-]+", word.partition("=")[2])]
    told = outcome.err.replace(str(tmp_path), "")
    assert re.search(r"needs \d+ files?|needs a network|holds no ", told) or any(value in told for value in named), told


# ---- commands of the demo


def quick(verb: str, words: Sequence[str]) -> list[str]:
    """The arguments of a command, made so short that seconds do."""
    if "--cfg" in words or verb in FIXED:
        return list(words)
    kept = [shorter(word) if "-m" in words else word for word in words]
    if verb not in ("train", "compare", "invert"):
        return [*kept, *QUICK[verb]]
    more = list(TRAINING)
    refinement = next((w.partition("=")[2] for w in kept if w.startswith("refinement=")), "none")
    more += OF_REFINEMENTS.get(refinement, [])
    if verb == "invert":
        more += INVERSION
        optimised = any(re.match(r"embedding=(stylegan2|lsap_o)_", word) for word in kept)
        more = [w for w in more if not (optimised and w.startswith(("max_steps", "batch_size")))]
        more += ["steps=2"] if optimised else []
        more += ["++refinement.steps=2"] if {"pti", "sam"} & set(refinement.split(",")) else []
        more += ["refinement.samples=64"] if refinement == "sam" else []
    return [*kept, *more]


def shorter(word: str) -> str:
    """Of a setting that is swept, the first and the last value."""
    key, equals, values = word.partition("=")
    swept = values.split(",")
    return word if "[" in word or len(swept) < 3 else f"{key}{equals}{swept[0]},{swept[-1]}"


def trained_first(words: Sequence[str]) -> list[list[str]]:
    """The trainings whose results a command of inverting looks for, as arguments of `lsap.train`."""
    chosen = dict(word.split("=", 1) for word in words if re.match(r"(embedding|lambda_nscd|seed)=", word))
    refinement = next((w.partition("=")[2] for w in words if w.startswith("refinement=")), "none")
    if re.match("stylegan2|lsap_o", chosen.get("embedding", "")):
        return []
    swept = ["-m"] if any("," in value for value in chosen.values()) else []
    first = [*swept, *(f"{key}={value}" for key, value in chosen.items())]
    needed = [["train", *first]]
    if refinement in OF_REFINEMENTS:
        needed.append(["train", *first, f"refinement={refinement}"])
    return needed


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `outputs` of a reader who gives one command after the other."""
    folder = tmp_path_factory.mktemp("work") / "outputs"
    save_generator(load_generator(), folder / "pretrain" / "generator" / "generator.safetensors")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("line", RUN)
def test_a_command_of_the_demo_runs(
    line: str, command: Command, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "joblib" in line:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "outputs").symlink_to(workplace)
    verb, *words = shlex.split(line)
    refining = verb == "train" and any(word.startswith("refinement=") for word in words)
    earlier = trained_first(words)[: 1 if refining else None] if verb == "invert" or refining else []
    for embedding in sorted(set(re.findall(r"outputs/demo/inversions/(\w+)/default", line))):
        kept = f"save_to=outputs/demo/inversions/{embedding}/default"
        earlier += [["train", f"embedding={embedding}"], ["invert", f"embedding={embedding}", "split=rich", kept]]
    for name, *arguments in [*earlier, [verb, *words]]:
        outcome = command(name, *quick(name, arguments))
        assert outcome.code == 0, f"{name} {' '.join(arguments)}: {outcome.err}"
