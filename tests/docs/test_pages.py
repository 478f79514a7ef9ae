"""What the documentation says: its commands compose, its links and files are there, its tables are the code's."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

import lsap
from lsap.config.compose import composed, config_dir
from lsap.demo import FACTORS
from lsap.demo.weights import FOLDER as WEIGHTS
from lsap.pipelines.benchmark.bench import PARTS
from lsap.pipelines.editing.discovery import METHODS
from pages import PAGES, ROOT, blocks, commands, table, text

DOMAINS = {path.stem for path in (config_dir() / "domain").glob("*.yaml")}
OTHERS = {"hydra/launcher=joblib", "hydra/launcher=submitit_slurm"}  # plug-ins of Hydra


def compose(verb: str, arguments: str, own_yaml: Path) -> list[DictConfig]:
    """The configurations that a command line gives; of a sweep, the first and the last value of every setting."""
    words = shlex.split(arguments, comments=True)
    searchpath = []
    if "--config-dir" in words:
        place = words.index("--config-dir")
        searchpath = [f"file://{own_yaml / words[place + 1]}"]
        del words[place : place + 2]
    flags = {"-m", "--cfg", "job", "--resolve"}
    settings = [w for w in words if w not in flags and w not in OTHERS and not w.startswith("hydra.")]
    if "-m" not in words:
        return [composed(verb, settings, searchpath)]
    assert words[0] == "-m", "Hydra wants -m before the settings"
    swept = [(key, values.split(",")) for key, _, values in (setting.partition("=") for setting in settings)]
    return [composed(verb, [f"{key}={values[end]}" for key, values in swept], searchpath) for end in (0, -1)]


@pytest.mark.parametrize(("page", "verb", "arguments"), sorted(set(commands())))
def test_every_command_composes(page: str, verb: str, arguments: str, own_yaml: Path) -> None:
    assert (ROOT / "src" / "lsap" / f"{verb}.py").is_file(), f"{page} names a command that does not exist"
    if "…" in arguments:  # running text that leaves something out
        return
    for config in compose(verb, arguments, own_yaml):
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def test_the_pages_hold_commands_of_every_verb() -> None:
    verbs = {path.stem for path in config_dir().glob("*.yaml")}
    assert {verb for _, verb, _ in commands()} == verbs


def test_an_override_that_does_not_exist_would_be_found(own_yaml: Path) -> None:
    with pytest.raises(Exception, match="lamda_nscd"):
        compose("train", "domain=car lamda_nscd=1", own_yaml)


def test_the_yaml_of_ones_own_domain_is_used(own_yaml: Path) -> None:
    (config,) = compose("train", "--config-dir mine domain=birds", own_yaml)
    assert (config.domain.name, config.generator.size) == ("birds", 512)
    assert config.encoder._target_ == "lsap.embedding.PyramidEncoder"  # from the base that it names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links {target}"


def anchors(page: Path) -> set[str]:
    """What the headings of a page are linked by: lower case, hyphens for spaces, no other signs."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_anchor_is_a_heading(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert anchor in anchors(page.parent / target if target else page), f"{page.name} links {target}#{anchor}"


def named_files(page: Path) -> Iterator[str]:
    """Files and folders of ours in running text: words in code style with slash and suffix, or below our folders."""
    for word in re.findall(r"`([^`\s]+)`", page.read_text(encoding="utf-8")):
        ours = re.fullmatch(r"[\w./-]+\.(py|yaml|md|css)", word) and "/" in word
        if ours or re.match(r"(src|conf|docs|tests|experiments)/", word):
            yield word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    for name in named_files(page):
        if "<" not in name:
            assert any((base / name).exists() for base in (ROOT, ROOT / "src" / "lsap")), f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))
    code = [*re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")), *blocks(page, "sh")]
    assert {name for part in code for name in re.findall(r"^make ([a-z]+)", part, re.MULTILINE)} <= targets


def test_the_architecture_is_drawn_as_it_is() -> None:
    drawn = set(re.findall(r"^[├└]── (\w+)/", text("docs/design.md"), re.MULTILINE))
    package = Path(lsap.__file__).parent
    assert drawn == {path.parent.name for path in package.glob("*/__init__.py")}


# ---- tables


@pytest.fixture(scope="module")
def configs() -> dict[str, DictConfig]:
    return {domain: composed("train", [f"domain={domain}", "weights=weights"]) for domain in sorted(DOMAINS)}


def test_the_knobs_have_the_values_that_the_table_says(configs: dict[str, DictConfig]) -> None:
    heading, *rows = table("docs/training.md", "key")
    columns = {number: title.split(", ") for number, title in enumerate(heading) if set(title.split(", ")) <= DOMAINS}
    assert {domain for domains in columns.values() for domain in domains} == DOMAINS
    for row in rows:
        for number, domains in columns.items():
            for domain in domains:
                value = OmegaConf.select(configs[domain], row[0].strip("`"))
                said = row[number] if isinstance(value, str) else float(row[number])
                assert value == said, f"{row[0]} of {domain}"


def test_every_root_knob_is_in_the_table(configs: dict[str, DictConfig]) -> None:
    listed = {row[0].strip("`") for row in table("docs/training.md", "key")}
    numbers = {str(key) for key, value in configs["demo"].items() if isinstance(value, int | float)} - {"debug"}
    assert numbers <= listed


def test_the_released_preset_is_told_as_it_is() -> None:
    paragraph = re.search(r"`preset=released` sets (.*?)\. ", text("docs/training.md").replace("\n", " "))
    assert paragraph is not None
    told = dict(setting.split("=") for setting in re.findall(r"`([^`]+)`", paragraph[1]))
    preset = OmegaConf.load(config_dir() / "preset" / "released.yaml")
    assert dict(leaves(OmegaConf.to_container(preset))) == {key: float(value) for key, value in told.items()}


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their dotted keys."""
    for key, value in node.items():
        yield from leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]


def test_the_files_that_domains_need_are_all_in_the_table(configs: dict[str, DictConfig]) -> None:
    rows = {row[0].strip("`"): row[2] for row in table("docs/own-weights.md", "key")}
    for domain in DOMAINS - {"demo"}:
        config = configs[domain]
        assert {need.key for need in config.domain.needs} == set(rows) - {"key"}
        for need in config.domain.needs:
            if need.key != "data.root":
                assert Path(OmegaConf.select(config, need.key)).name in rows[need.key]


def test_the_factors_are_those_of_the_renderer() -> None:
    errors = json.loads((WEIGHTS / "reader.card.json").read_text())["quality"]
    expected = [
        [f"`{f.name}`", "the person" if f.identity else "the moment", f.low, f.high, f"{errors[f'plain/{f.name}']:.2f}"]
        for f in FACTORS
    ]
    shown = "\n".join(f"| {' | '.join(row)} |" for row in expected)
    assert table("docs/demo.md", "factor")[1:] == expected, f"docs/demo.md should hold these rows:\n{shown}"


def test_results_say_which_experiments_were_run() -> None:
    expected = {}
    for folder in sorted(path.parent for path in (ROOT / "experiments").glob("*/experiment.yaml")):
        planned = "demo" in OmegaConf.load(folder / "experiment.yaml").domains
        told = "not yet run" if planned else "not on the demo"
        if (folder / "demo.csv").is_file():
            told = f"[demo.md](../experiments/{folder.name}/demo.md)"
            claims = json.loads((folder / "demo.provenance.json").read_text())["claims"]
            counts = Counter(claim["verdict"] for claim in claims)
            found = [
                f"{counts[verdict]} {verdict}" for verdict in ("holds", "does not hold", "open") if counts[verdict]
            ]
            told += f": {', '.join(found)}" if found else ""
        expected[f"[{folder.name}](../experiments/{folder.name})"] = told
    assert {row[0]: row[2] for row in table("docs/results.md", "experiment")[1:]} == expected


def test_the_methods_are_those_that_can_be_chosen() -> None:
    named = {name for row in table("docs/methods.md", "name")[1:] for name in re.findall(r"`(\w+)`", row[0])}
    chosen = {path.stem for group in ("embedding", "refinement") for path in (config_dir() / group).glob("*.yaml")}
    assert named == chosen - {"none"}
    assert [row[0].strip("`") for row in table("docs/methods.md", "`method=`")[1:]] == list(METHODS)


def test_the_parts_of_the_benchmark_are_explained() -> None:
    assert [row[0].strip("`") for row in table("docs/performance.md", "part")[1:]] == list(PARTS)
    assert list(composed("bench").parts) == list(PARTS)
