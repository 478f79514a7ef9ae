"""Run folders that want to do harm: nothing that they name is executed, whichever command takes them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from hydra.utils import get_class, get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from safetensors import safe_open

import lsap
from commands import Command
from lsap import embedding
from lsap.api.inverter import Inverter
from lsap.checkpoints import Direction, fingerprint, load_generator, write_direction, write_state
from lsap.config.compose import composed, config_dir
from lsap.config.stored import ENCODERS, LARGEST, adopt
from lsap.data import open_images
from lsap.embedding import RowEncoder
from lsap.errors import BadValue
from lsap.pipelines.comparison import compare
from lsap.pipelines.editing.setup import stored_run
from lsap.pipelines.evaluation.edit_metrics import reembedding
from lsap.pipelines.evaluation.evaluate import evaluate
from lsap.pipelines.evaluation.methods import MethodOutputs, completed
from lsap.pipelines.inversion import invert
from lsap.pipelines.run_identity import encoders as encoder_runs
from lsap.pipelines.run_identity.images import GivenImages
from lsap.pipelines.training import train
from lsap.runs import Store
from lsap.runs.class_paths import MOVED
from lsap.web.session import Playground
from small_runs import ENCODER, TINY

HUB = "lsap.embedding.training.torch.hub.load"  # an attribute walk through a module of our own
Tree = dict[str, Any]


def hub(place: Path) -> Tree:
    """Arguments that make `torch.hub.load` run `place`/hubconf.py."""
    return {"_args_": [str(place), "m"], "source": "local"}


def mkdir(place: Path) -> Tree:
    """A node whose instantiation makes the trace."""
    return {"_target_": "os.mkdir", "_args_": [str(place / "trace")]}


class Plant(NamedTuple):
    """What is written into a run's `config.yaml`.

    Attributes:
        write: changes the settings; given them and the folder of the plant.
        key: in the message of a command that uses this part; None: the value has no effect there.
        everywhere: whether edit and evaluate use the part, too, not only what rebuilds the encoder.
        harm: what would happen if it were taken; None where nothing is executed by it alone.
    """

    write: Callable[[Tree, Path], object]
    key: str | None
    everywhere: bool = False
    harm: Callable[[Path], object] | None = None


def put(key: str, value: Any) -> Callable[[Tree, Path], None]:
    """A plant that sets one dotted key; a function is given the folder of the plant."""

    def write(settings: Tree, place: Path) -> None:
        *above, last = key.split(".")
        for name in above:
            settings = settings.setdefault(name, {})
        settings[last] = value(place) if callable(value) else deepcopy(value)

    return write


def both(*writes: Callable[[Tree, Path], object]) -> Callable[[Tree, Path], None]:
    return lambda settings, place: [write(settings, place) for write in writes] and None


def built(node: Callable[[Path], Any]) -> Callable[[Path], object]:
    return lambda place: instantiate(node(place))


def resolved(text: str) -> Callable[[Path], object]:
    """An interpolation does harm where it says something that stands in no file."""

    def harm(place: Path) -> None:
        if OmegaConf.create({"x": text}).x != text:
            (place / "trace").mkdir()

    return harm


HOME = "${oc.env:HOME}"
WALK = both(put("encoder", lambda p: {"_target_": HUB, **hub(p)}), put("encoders.progressive", HUB))
PLANTS = {
    "a class by attribute walk": Plant(
        WALK, "encoder._target_|encoder._args_", harm=built(lambda p: {"_target_": HUB, **hub(p)})
    ),
    "the same by the name of the rule alone": Plant(
        put("encoders.progressive", HUB), "encoders.progressive",
        harm=lambda p: get_method(HUB)(str(p), "m", source="local"),
    ),
    "the same in arguments": Plant(put("encoder._args_", lambda p: hub(p)["_args_"]), "encoder._args_"),
    "an encoder of a module of one's own": Plant(
        put("encoders.progressive", "hostile.Encoder"), "encoders.progressive",
        harm=lambda _: get_class("hostile.Encoder"),
    ),
    "an encoder with a longer path": Plant(
        put("encoders.progressive", "lsap.embedding.encoders.PSPEncoder"), "encoders.progressive"
    ),
    "a class of ours that is no encoder": Plant(
        put("encoders.progressive", "lsap.embedding.Optimisation"), "encoders.progressive"
    ),
    "a node in a list": Plant(put("view.rows", lambda p: [mkdir(p)]), "view.rows", True, built(lambda p: [mkdir(p)])),
    "a node in a list of lists": Plant(
        put("view.rows", lambda p: [[mkdir(p)]]), "view.rows", True, built(lambda p: [[mkdir(p)]])
    ),
    "a node in dictionaries": Plant(
        put("view.more", lambda p: {"a": {"b": mkdir(p)}}), "view.more", True, built(lambda p: {"a": {"b": mkdir(p)}})
    ),
    "a node in a dictionary in a list": Plant(
        put("data.tests.more", lambda p: {"a": [{"b": mkdir(p)}]}), "data.tests.more", True,
        built(lambda p: {"a": [{"b": mkdir(p)}]}),
    ),
    "another class for a known part": Plant(
        put("view", mkdir), "view._target_|view._args_", True, built(mkdir)
    ),
    "a node for a scalar": Plant(
        put("generator.size", mkdir), "generator.size", True, built(lambda p: {"size": mkdir(p)})
    ),
    "a node for a list": Plant(put("image_size", mkdir), "image_size", True, built(lambda p: {"a": mkdir(p)})),
    "a judge of another class": Plant(put("judges.distance", mkdir), r"judges\.distance\._", harm=built(mkdir)),
    "a judge by a node below a setting": Plant(
        put("similarity.checkpoint", mkdir), "similarity.checkpoint", harm=built(lambda p: {"a": mkdir(p)})
    ),
    "_partial_": Plant(put("generator._partial_", True), "generator._partial_", True),
    "_recursive_": Plant(put("view._recursive_", True), "view._recursive_", True),
    "_convert_": Plant(put("data.train._convert_", "all"), "data.train._convert_", True),
    "an interpolated class": Plant(
        put("generator._target_", "${oc.env:HOSTILE}"), "generator._target_", True, resolved(HOME)
    ),
    "an interpolated rule": Plant(put("encoders.progressive", "${oc.env:HOSTILE}"), "encoders.progressive"),
    "an interpolated file": Plant(
        put("generator.checkpoint", f"{HOME}/g.pt"), "generator.checkpoint", True, resolved(HOME)
    ),
    "an interpolation in a list": Plant(put("image_size", [HOME, 32]), "image_size", True, resolved(HOME)),
    "an interpolation between parts": Plant(put("view.size", "${hydra:runtime.cwd}"), "view.size", True),
    "an interpolated outputs": Plant(put("outputs", HOME), "outputs", harm=resolved(HOME)),
    "a value that is missing": Plant(put("generator.checkpoint", "???"), "generator.checkpoint", True),
    "a scalar for a group": Plant(put("generator", "os.system"), "generator", True),
    "null for a group": Plant(put("data.train", None), "data.train", True),
    "text for a number": Plant(put("generator.size", "os"), "generator.size", True),
    "the class of a method of training": Plant(put("embedding._target_", "os.system"), None),
    "objects of the training": Plant(
        both(put("objective.l2.term", mkdir), put("optimizer", mkdir), put("stages", mkdir)), None, harm=built(mkdir)
    ),
    "a part that a term borrows": Plant(put("objective.l2.borrows", "__class__"), None),
    "the class behind a setting of the domain": Plant(put("domain.sam.network", "os.system"), None),
    "a reader of the domain": Plant(put("domain.reader", mkdir), None, harm=built(mkdir)),
    "a truth of the domain": Plant(put("domain.truth", mkdir), None, harm=built(mkdir)),
    "files that the domain needs": Plant(put("domain.needs", [{"key": "x", "what": HOME, "source": "y"}]), None),
    "a refinement": Plant(put("refinement", lambda p: {"name": "../../x", **mkdir(p)}), None, harm=built(mkdir)),
    "modules to import": Plant(put("imports", ["hostile"]), None),
    "a folder of YAML": Plant(put("hydra.searchpath", lambda p: [f"file://{p}"]), None),
    "a callback of Hydra": Plant(put("hydra.callbacks.x", mkdir), None, harm=built(mkdir)),
    "a logger": Plant(put("logger", mkdir), None, harm=built(mkdir)),
    "the names of the choices": Plant(both(put("domain.name", "../../x"), put("embedding.name", "../../x")), None),
    "an unknown setting": Plant(put("surprise", {"a": [1, {"b": HOME}]}), None),
}  # fmt: skip


# files that are no settings at all: name → (text; what the refusal says)
def bomb() -> str:
    rows = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]" for i in range(40)]
    return "\n".join(rows)


FILES: dict[str, tuple[Callable[[Path], str], str]] = {
    "an alias bomb": (lambda _: bomb(), "YAML aliases"),
    "an object of Python": (
        lambda p: f"view: !!python/object/apply:os.mkdir [{p / 'trace'}]",
        r"YAML tags \(tag:yaml.org,2002:python/object/apply:os.mkdir\)",
    ),
    "a module of Python": (lambda _: "view: !!python/module:hostile ''", "YAML tags"),
    "a path of Python": (lambda _: "images: !!python/object/apply:pathlib.Path [x]", "YAML tags"),
    "a huge file": (lambda _: "x: " + "a" * LARGEST, f"more than {LARGEST} bytes"),
    "a deep file": (lambda _: "x: " + "[" * 5000 + "]" * 5000, "nested more than|maximum nesting depth"),
    "a broken file": (lambda _: "generator: {size: 32\nview: [", "cannot be read"),
    "a key twice": (lambda _: "seed: 1\nseed: 2", "cannot be read"),
    "a broken interpolation": (lambda _: "images: ${oc.env:", "cannot be read|is not taken"),
    "no text": (lambda _: "\x00\x01", "cannot be read"),
    "a list": (lambda _: "- a\n- b", "holds no settings"),
}


# ---- genuine runs, and what is planted in copies of them


@pytest.fixture(scope="module")
def trained(own: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of four steps."""
    outputs = tmp_path_factory.mktemp("trained")
    return train(composed("train", [*own, *ENCODER, f"outputs={outputs}"])).folder


@pytest.fixture(scope="module")
def inverted(own: list[str], trained: Path, images: Path) -> Path:
    """The folder of inversions by that encoder."""
    fixed = [*own, *ENCODER, f"outputs={trained.parents[2]}", f"images={images}", "images_per_batch=4"]
    return invert(composed("invert", fixed)).folder


@pytest.fixture(scope="module")
def direction(own: list[str], generator_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    vector = torch.randn(16, generator=torch.Generator().manual_seed(3))
    one = Direction(name="red", vector=vector, generator=fingerprint(load_generator(generator_file, size=32)))
    return write_direction(one, tmp_path_factory.mktemp("directions") / "red.safetensors")


class Copied(NamedTuple):
    """Copies of both runs, and the trace that a plant leaves."""

    trained: Path
    inverted: Path
    trace: Path

    def plant(self, write: Callable[[Tree, Path], object]) -> None:
        """Change both `config.yaml`."""
        for folder in (self.trained, self.inverted):
            file = folder / "config.yaml"
            settings = yaml.safe_load(file.read_text())
            write(settings, self.trace.parent)
            file.write_text(yaml.safe_dump(settings))

    def plan(self, **settings: Any) -> None:
        """Change settings of the plan of the inversions."""
        file = self.inverted / "plan.json"
        content = json.loads(file.read_text())
        content["settings"] |= settings
        file.write_text(json.dumps(content))

    def card(self, **texts: str | None) -> Path:
        """Change the card of the encoder."""
        path = self.trained / "encoder.safetensors"
        with safe_open(path, "pt") as file:
            state, card = {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118
        return write_state(path, state, {name: text for name, text in (card | texts).items() if text is not None})


@pytest.fixture
def copied(trained: Path, inverted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copied:
    place = planted(tmp_path / "plant")
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("HOSTILE", "hostile.Encoder")
    shutil.copytree(trained, tmp_path / "trained")
    shutil.copytree(inverted, tmp_path / "inverted")
    return Copied(tmp_path / "trained", tmp_path / "inverted", place / "trace")


def planted(place: Path) -> Path:
    """A folder with code whose execution makes the trace."""
    place.mkdir()
    code = f"import os\nos.path.exists({str(place / 'trace')!r}) or os.mkdir({str(place / 'trace')!r})\n"
    code += "def m(*_, **__):\n    return None\nclass Encoder:\n    kind = 'e4e'\n"
    (place / "hubconf.py").write_text(code)
    (place / "hostile.py").write_text(code)
    return place


def refusal(call: Callable[[], object]) -> str | None:
    """The one line by which a call refuses; None where it works."""
    try:
        call()
    except BadValue as error:
        line = str(error)
    else:
        return None
    assert "\n" not in line
    return line


def classes(config: DictConfig) -> list[str]:
    """All classes that a configuration names, as its YAML says them."""
    return re.findall(r"_target_: (.*)", OmegaConf.to_yaml(config, resolve=True))


# ---- the plants do harm where they are taken


@pytest.mark.parametrize("name", [name for name, plant in PLANTS.items() if plant.harm])
def test_a_plant_would_do_harm(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = planted(tmp_path / "plant")
    monkeypatch.syspath_prepend(str(place))
    harm = PLANTS[name].harm
    assert harm is not None
    harm(place)
    sys.modules.pop("hostile", None)
    assert (place / "trace").exists()


def test_a_choice_with_a_path_would_compose_other_yaml(tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text("# @package _global_\ngenerator: {_target_: os.mkdir}\n")
    name = os.path.relpath(tmp_path / "evil", config_dir() / "domain")
    assert composed("edit", [f"domain={name}"]).generator._target_ == "os.mkdir"


def test_an_object_of_python_would_be_built_by_another_loader(tmp_path: Path) -> None:
    place = planted(tmp_path / "plant")
    yaml.unsafe_load(FILES["an object of Python"][0](place))
    assert (place / "trace").exists()


def test_an_alias_bomb_unfolds() -> None:
    """Nine times as many values in every one of 40 rows; six of them are half a million."""
    found = yaml.safe_load("\n".join(bomb().splitlines()[:7]))
    assert str(found["a6"]).count("x") == 9**6


# ---- settings, through every function that takes them from a run folder


def evaluation(inverted: Path, *more: str) -> DictConfig:
    return composed("evaluate", [f"runs=['{inverted}']", "accelerator=cpu", "space.samples=64", "weights=none", *more])


def embed_again(inverted: Path, parts: Any) -> object:
    """What LEC does first: the encoder of a stored run, built anew."""
    return reembedding(MethodOutputs("run", inverted, {}, Store.read(inverted)), parts)


@pytest.fixture(scope="module")
def genuine(trained: Path) -> Inverter:
    return lsap.load(trained)


@pytest.mark.parametrize("name", PLANTS)
def test_a_hostile_setting_is_refused_or_has_no_effect(
    name: str, copied: Copied, inverted: Path, genuine: Inverter, images: Path
) -> None:
    plant = PLANTS[name]
    copied.plant(put("checkpoint", str(copied.trained / "encoder.safetensors")))
    copied.plant(plant.write)

    def loaded() -> None:
        found = lsap.load(copied.trained)
        assert classes(found.config) == classes(genuine.config)
        assert (found.domain, found.embedding) == ("church", "lsap_e")
        found.embed(found.images(sorted(images.iterdir())[0]))

    def edited() -> None:
        _, whole = stored_run(composed("edit", [f"inversions={copied.inverted}"]))
        _, usual = stored_run(composed("edit", [f"inversions={inverted}"]))
        assert classes(whole) == classes(usual)

    def evaluated() -> None:
        assert classes(completed(evaluation(copied.inverted))) == classes(completed(evaluation(inverted)))

    def again() -> None:
        embed_again(copied.inverted, genuine._parts)

    lines = {call.__name__: refusal(call) for call in (loaded, edited, evaluated, again)}
    of_all = {call for call in lines if call in ("loaded", "again") or plant.everywhere}
    for call, line in lines.items():
        if plant.key is None or call not in of_all:
            assert line is None, (call, line)
        else:
            folder = copied.trained if call == "loaded" else copied.inverted
            assert line is not None, call
            assert re.match(rf"{re.escape(str(folder))}/config\.yaml: ({plant.key})", line), line
            assert "name it again" in line
    assert not copied.trace.exists()
    assert "hostile" not in sys.modules


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_of_settings_is_refused(name: str, copied: Copied, genuine: Inverter) -> None:
    make, message = FILES[name]
    for folder in (copied.trained, copied.inverted):
        (folder / "config.yaml").write_text(make(copied.trace.parent))
    for call in (
        lambda: lsap.load(copied.trained),
        lambda: stored_run(composed("edit", [f"inversions={copied.inverted}"])),
        lambda: completed(evaluation(copied.inverted)),
        lambda: embed_again(copied.inverted, genuine._parts),
    ):
        line = refusal(call)
        assert line is not None
        assert re.search(rf"config\.yaml.*({message})", line), line
        assert len(line) < 1000
    assert not copied.trace.exists()


@pytest.mark.parametrize("key", ["images", "split", "checkpoint", "outputs"])
def test_an_interpolation_in_a_path_is_not_resolved(key: str, copied: Copied, genuine: Inverter) -> None:
    copied.plant(both(put("checkpoint", None), put(key, HOME)))
    calls: list[Callable[[], object]] = [lambda: embed_again(copied.inverted, genuine._parts)]
    if key in ("images", "split"):
        calls = [
            lambda: stored_run(composed("edit", [f"inversions={copied.inverted}"])),
            lambda: completed(evaluation(copied.inverted)),
        ]
    for call in calls:
        line = refusal(call)
        assert line is not None
        assert f"config.yaml: {key}={HOME} " in line


def test_a_count_of_images_is_a_number(copied: Copied) -> None:
    for value in ("__import__('os')", [1], -1, {"_target_": "os.getpid"}):
        copied.plant(put("count", value))
        line = refusal(lambda: stored_run(composed("edit", [f"inversions={copied.inverted}"])))
        assert line is not None
        assert "config.yaml: count" in line


# ---- choices and paths that other files name

NAMES = ["../../evil", "/evil", "church,face", HOME, "${oc.env:HOSTILE}", "x}", "a b", "[church]", "", "church\n", "é"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("group", ["domain", "embedding"])
def test_a_choice_is_a_plain_name(group: str, name: str, copied: Copied, genuine: Inverter) -> None:
    copied.plan(**{group: name})
    calls: list[Callable[[], object]] = [lambda: embed_again(copied.inverted, genuine._parts)]
    if group == "domain":
        calls += [
            lambda: stored_run(composed("edit", [f"inversions={copied.inverted}"])),
            lambda: completed(evaluation(copied.inverted)),
        ]
    for call in calls:
        line = refusal(call)
        assert line is not None
        assert f"plan.json: {group}=" in line, line
    path = copied.card(**{group: name})
    for load_it in (lambda: lsap.load(path), lambda: Playground(composed("app", [f"source='{path}'"]))):
        line = refusal(load_it)
        assert line is not None
        assert f"encoder.safetensors: {group}=" in line, line


def test_the_kind_of_an_encoder_is_a_plain_name(copied: Copied) -> None:
    path = copied.card(embedding=None, kind="lsap encoder", encoder="../../evil")
    line = refusal(lambda: lsap.load(path))
    assert line is not None
    assert "encoder.safetensors: embedding=../../evil is no name" in line


@pytest.mark.parametrize("run", ["../../x", "..", "/x", "", "a/b", None, ["x"]])
def test_a_run_is_the_name_of_one_folder(run: Any, copied: Copied, genuine: Inverter) -> None:
    copied.plant(put("checkpoint", None))
    copied.plan(run=run)
    line = refusal(lambda: embed_again(copied.inverted, genuine._parts))
    assert line is not None
    assert "plan.json: run=" in line


@pytest.mark.parametrize("name", ["../../x.png", "/x.png", "a/../../x.png"])
def test_an_image_of_a_plan_stays_in_its_folder(name: str, copied: Copied) -> None:
    file = copied.inverted / "plan.json"
    content = json.loads(file.read_text())
    content["names"][0] = name
    file.write_text(json.dumps(content))
    for call in (
        lambda: stored_run(composed("edit", [f"inversions={copied.inverted}"])),
        lambda: completed(evaluation(copied.inverted)),
    ):
        line = refusal(call)
        assert line is not None
        assert f"plan.json is no plan of lsap (the image name {name!r} leads out of the folder)" in line


# ---- whole commands


def node_in_each_part(settings: Tree, place: Path) -> None:
    """Every plant that has no effect, and a class by attribute walk for the encoder."""
    for plant in PLANTS.values():
        if plant.key is None:
            plant.write(settings, place)
    WALK(settings, place)


@pytest.mark.parametrize("refused", [False, True], ids=["where only LEC refuses", "where everything refuses"])
def test_every_command_goes_through_a_hostile_folder(
    refused: bool, copied: Copied, own: list[str], images: Path, direction: Path, command: Command, tmp_path: Path
) -> None:
    """As they are typed. Each is refused in one line, or does its work as if the plants were not there."""
    encoder, codes = copied.trained / "encoder.safetensors", copied.inverted / "codes.safetensors"
    copied.plant(put("checkpoint", str(encoder)))
    copied.plant(node_in_each_part)
    if refused:
        copied.plant(PLANTS["a node in a list"].write)
    generator = next(word.partition("=")[2] for word in own if word.startswith("generator.checkpoint"))
    common = [*own, *ENCODER, f"outputs={tmp_path / 'outputs'}", f"images={images}", "count=2"]
    optimised = [*own, "embedding=lsap_o_wplus", "lambda_lpips=0", "lambda_l2=1", "steps=2", f"images={images}"]
    weights = [word for word in own if not word.startswith(("trainer", "data", "backbone", "encoders", "space"))]
    typed: list[tuple[str, list[str]]] = [
        ("invert", [*common, f"checkpoint={encoder}"]),
        ("invert", [*optimised, f"init={codes}"]),
        ("edit", [f"inversions={copied.inverted}", f"direction={direction}", "strength=1", "accelerator=cpu"]),
        ("evaluate", [f"runs=['{copied.inverted}']", f"direction=['{direction}']", "strength=1", "accelerator=cpu",
                      "space.samples=64", "weights=none", "protocol=psp256", "protocol.size=[32,32]"]),
        ("discover", [*weights, "method=sefa", "measured_on=16", "shown=2", "space.samples=64", "accelerator=cpu"]),
        ("discover", [*weights, "method=ganspace", "samples=200", "measured_on=16", "shown=2", "accelerator=cpu",
                      "space.samples=64", f"codes={codes}"]),
        ("convert", [f"source={encoder}", f"save_to={tmp_path / 'converted.safetensors'}"]),
        ("nscd", [f"codes={codes}", f"generator={generator}", "space.samples=64", "accelerator=cpu"]),
    ]  # fmt: skip
    for verb, arguments in typed:
        done = command(verb, *arguments)
        if refused and verb in ("edit", "evaluate"):
            assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done.err
            assert "config.yaml: view.rows=" in done.err
        else:
            assert done.code == 0, (verb, done.err)
            if verb == "evaluate":
                assert re.search(r"no LEC, as its encoder is not found \(\S+config.yaml: encoder", done.out + done.err)
        assert not copied.trace.exists(), verb


def test_the_page_takes_no_class_from_the_folder_that_is_its_source(copied: Copied, images: Path) -> None:
    config = composed("app", [f"source={copied.trained}", "samples=1"])
    copied.plant(lambda settings, place: [p.write(settings, place) for p in PLANTS.values() if p.key is None])
    page = Playground(config)
    photo = page.upload(sorted(images.iterdir())[0].read_bytes())
    assert page.invert(photo, page.embeddings[0]).inversion.history == ("lsap_e",)
    assert page.first.refinements == ["none"]
    copied.plant(WALK)
    line = refusal(lambda: Playground(config))
    assert line is not None
    assert "config.yaml: encoder" in line
    assert not copied.trace.exists()


def test_lec_of_a_genuine_copy_is_computed(copied: Copied, direction: Path, tmp_path: Path) -> None:
    """Else the refusals above would show nothing."""
    copied.plant(put("checkpoint", str(copied.trained / "encoder.safetensors")))
    more = [f"direction=['{direction}']", "strength=1", f"save_to={tmp_path / 'results'}", "protocol=psp256"]
    evaluate(evaluation(copied.inverted, *more, "protocol.size=[32,32]"))
    results = (tmp_path / "results" / "results.json").read_text()
    assert "LEC" in results or '"lec' in results
    assert "no LEC" not in results


@pytest.mark.slow
def test_a_comparison_takes_nothing_from_the_runs_that_it_finds(tmp_path: Path) -> None:
    place = planted(tmp_path / "plant")
    config = composed("compare", [f"outputs={tmp_path / 'outputs'}", *TINY])
    first = json.loads((compare(config).parent / "summary.json").read_text())
    files = list((tmp_path / "outputs").rglob("config.yaml"))
    assert len(files) == 6, "two trainings, and their inversions of two splits"
    for file in files:
        settings = yaml.safe_load(file.read_text())
        node_in_each_part(settings, place)
        PLANTS["a node in a list"].write(settings, place)
        file.write_text(yaml.safe_dump(settings))
    again = json.loads((compare(config).parent / "summary.json").read_text())
    assert again["rows"] == first["rows"]
    assert not (place / "trace").exists()


def test_stored_settings_are_compared_as_they_are_written(
    copied: Copied, images: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a run of version 0.1 is looked for, an interpolation that would give the wanted value does not match."""
    source = open_images(images, (32, 32), strict=False, setting="images")
    for value, found in ((str(images), True), ("${oc.env:HOSTILE}", False), (mkdir(copied.trace.parent), False)):
        monkeypatch.setenv("HOSTILE", str(images))
        copied.plant(put("data.root", value))
        assert GivenImages(source, source.names, "data.root", images).certainly_of(copied.trained) == found
    record = json.loads((trained / "run.json").read_text())
    folder = SimpleNamespace(path=copied.trained, settings=record["settings"], read=lambda: SimpleNamespace(**record))
    monkeypatch.setenv("HOSTILE", "bf16-mixed")
    for value, found in (("bf16-mixed", True), ("${oc.env:HOSTILE}", False), (mkdir(copied.trace.parent), False)):
        copied.plant(put("trainer.precision", value))
        assert encoder_runs._finished_with(folder, {"trainer.precision": "bf16-mixed"}) == found  # type: ignore[arg-type]
    (copied.trained / "config.yaml").write_text(bomb())
    assert not GivenImages(source, source.names, "data.root", images).certainly_of(copied.trained)
    with pytest.raises(BadValue, match=r"config\.yaml uses YAML aliases"):
        encoder_runs._finished_with(folder, {"trainer.precision": "bf16-mixed"})  # type: ignore[arg-type]
    assert not copied.trace.exists()


# ---- what is genuine goes on


def test_the_registry_of_encoders_is_that_of_the_package() -> None:
    known = {f"lsap.embedding.{name}" for name in embedding.__all__}
    encoders = {name for name in known if isinstance(kind := get_class(name), type) and issubclass(kind, RowEncoder)}
    assert encoders - {"lsap.embedding.RowEncoder"} == ENCODERS


def test_reading_settings_needs_no_torch() -> None:
    code = "import sys, lsap.config.stored; sys.exit(bool({'torch', 'pytorch_lightning'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_classes_that_the_user_names_again_are_taken(copied: Copied) -> None:
    name = "lsap.embedding.encoders.SmallPyramidEncoder"
    copied.plant(both(put("encoders.progressive", name), put("encoder._target_", name)))
    line = refusal(lambda: lsap.load(copied.trained))
    assert line is not None
    assert "name it again: encoder" in line
    assert lsap.load(copied.trained, f"encoders.progressive={name}").config.encoder._target_ == name


def test_a_refusal_names_the_option_as_it_is_typed(copied: Copied) -> None:
    rows = [{"_target_": "builtins.int", "_args_": ["8"]}, {"_target_": "builtins.int", "_args_": ["24"]}]
    copied.plant(put("view.rows", rows))
    line = refusal(lambda: lsap.load(copied.trained))
    assert line is not None
    assert "name it again: +view.rows=…" in line
    assert list(lsap.load(copied.trained, "+view.rows=[8,24]").config.view.rows) == [8, 24]
    line = refusal(lambda: stored_run(composed("edit", [f"inversions={copied.inverted}"])))
    assert line is not None
    assert "name it again: domain=church +view.rows=…" in line


def test_an_encoder_of_the_registry_is_taken(copied: Copied) -> None:
    """The genuine run names another one than the domain does; both ways of naming it work."""
    assert lsap.load(copied.trained).config.encoder._target_ == "lsap.embedding.SmallPyramidEncoder"
    copied.plant(put("encoders.progressive", "lsap.embedding.PyramidEncoder"))
    assert lsap.load(copied.trained).config.encoder._target_ == "lsap.embedding.SmallPyramidEncoder"


def test_an_old_name_of_a_class_is_read_as_its_new_one(copied: Copied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOVED, "lsap.old", "lsap.embedding")
    encoder = "lsap.old.SmallPyramidEncoder"
    copied.plant(both(put("view._target_", "lsap.generator.View"), put("encoder._target_", encoder)))
    copied.plant(put("encoders.progressive", encoder))
    config = lsap.load(copied.trained).config
    assert config.encoders.progressive == config.encoder._target_ == "lsap.embedding.SmallPyramidEncoder"
    assert config.view._target_ == "lsap.stylegan2.View"


def test_values_are_taken_and_unknown_settings_are_named(copied: Copied, capsys: pytest.CaptureFixture[str]) -> None:
    copied.plant(both(put("similarity.checkpoint", "elsewhere.pt"), put("space.seed", 4), put("surprise", 1)))
    config = lsap.load(copied.trained).config
    assert (config.similarity.checkpoint, config.judges.embedder.checkpoint) == ("elsewhere.pt",) * 2
    assert (config.space.seed, config.view.size, list(config.image_size)) == (4, 32, [32, 32])
    assert "config.yaml: left out, as there are no such settings here: surprise" in capsys.readouterr().err


def test_a_refusal_changes_nothing() -> None:
    config = composed("edit", ["domain=church"])
    before = OmegaConf.to_yaml(config)
    with pytest.raises(BadValue, match=r"config\.yaml: view\._target_=os\.system \(here it is lsap\.stylegan2\.View\)"):
        adopt(config, {"seed": 5, "view": {"size": 9, "_target_": "os.system"}}, Path("config.yaml"))
    assert OmegaConf.to_yaml(config) == before


def test_a_class_behind_a_setting_of_another_name_is_not_replaced() -> None:
    """YAML of the user may say `_target_: ${network}`, in a part that is composed later, too."""
    config = OmegaConf.create({"network": "torch.nn.Linear", "made": {"_target_": "${network}"}, "file": "a.pt"})
    with pytest.raises(BadValue, match=r"network=os\.system \(here it is torch\.nn\.Linear\)"):
        adopt(config, {"network": "os.system"}, Path("config.yaml"))
    hidden = OmegaConf.create({"name": "View", "made": {"_target_": "lsap.stylegan2.${name}"}})
    with pytest.raises(BadValue, match=r"made\._target_=lsap\.stylegan2\.torch\.hub\.load"):
        adopt(hidden, {"name": "torch.hub.load"}, Path("config.yaml"))
    adopt(config, {"file": "b.pt"}, Path("config.yaml"))
    assert config.file == "b.pt"


def test_a_run_of_an_own_domain_says_which_option_is_missing(
    copied: Copied, genuine: Inverter, own: list[str], tmp_path: Path
) -> None:
    copied.plan(domain="birds", embedding="mine")
    path = copied.card(domain="birds")
    line = refusal(lambda: lsap.load(path))
    assert line is not None
    assert re.search(r"domain=birds: there is no such domain; .*--config-dir=FOLDER, or in Python", line)
    (tmp_path / "mine" / "domain").mkdir(parents=True)
    (tmp_path / "mine" / "domain" / "birds.yaml").write_text((config_dir() / "domain" / "church.yaml").read_text())
    assert lsap.load(path, f"hydra.searchpath=[file://{tmp_path / 'mine'}]").config.generator.size == 32
    for call in (
        lambda: stored_run(composed("edit", [f"inversions={copied.inverted}"])),
        lambda: completed(evaluation(copied.inverted)),
        lambda: embed_again(copied.inverted, genuine._parts),
    ):
        line = refusal(call)
        assert line is not None
        assert re.search(r"plan\.json names (domain=birds|embedding=mine), .* --config-dir=FOLDER$", line), line
