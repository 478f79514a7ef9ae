"""The architecture, read off the source: layers of imports, start-up, safe reading, docstrings, public names."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lsap
from lsap.config.compose import config_dir

ROOT = Path(lsap.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

# From bottom to top: a package imports only from the layers below its own, a command from `cli` alone.
LAYERS = (
    {"errors", "seeds"},
    {"values"},
    {"stylegan2", "pretrained"},
    {"inversion", "data"},
    {"runs"},
    {"checkpoints"},
    {"alignment"},
    {"losses"},
    {"demo", "embedding", "refinement", "editing", "evaluation"},
    {"reports"},
    {"config"},
    {"cli"},
    {"pipelines"},
    {"api"},
    {"web"},
)
COMMANDS = {path.stem for path in config_dir().glob("*.yaml")}

# The front door of each package: names that notebooks and YAML files rely on.
PUBLIC = {
    "lsap.alignment": "NSCD NormalizedStyleSpace normalize nscd style_layers",
    "lsap.stylegan2": "Discriminator Generator StyleGenerator StyledLayer View freeze",
    "lsap.checkpoints": "fingerprint load_arcface load_bisenet load_curricularface load_generator load_lpips load_moco "
    "read_codes read_direction read_encoder read_state save_generator save_rosinality",
    "lsap.pretrained": "ArcFace IRSE50 LPIPS MoCo TrunkDistance",
    "lsap.data": "ImageDataModule ImageFolder Source",
    "lsap.losses": "L2 Alignment Delta LossInputs Objective Perceptual Similarity Term",
    "lsap.embedding": "EncoderTraining ProgressiveStages PyramidEncoder Ranger SmallPyramidEncoder",
    "lsap.runs": "AtomicCheckpoints MetricsFile RunFolder manifest",
    "lsap.demo": "FACTORS Portraits render",
}


def module_name(path: Path) -> str:
    return ".".join(("lsap", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


NAMES = {module_name(path): path for path in MODULES}


def area(module: str) -> str:
    """The package of a module, or the module itself where it lies at the root; "lsap" is the root package."""
    return module.split(".")[1] if "." in module else module


def imports(tree: ast.AST) -> Iterator[str]:
    """Everything that a module imports at run time, wherever in it, as dotted names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imports(node)


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Module → modules of ours that it imports; a package counts as the modules that its names come from."""
    found = {}
    for name, path in NAMES.items():
        used = set(imports(ast.parse(path.read_text())))
        found[name] = {each for each in used if each in NAMES and each != name and not is_package(each)}
    return found


def is_package(module: str) -> bool:
    return NAMES[module].name == "__init__.py"


def test_every_package_has_its_layer() -> None:
    known = set().union(*LAYERS) | COMMANDS | {"lsap", "__main__"}
    assert {area(name) for name in NAMES} <= known, "a new package needs its place in LAYERS"


def test_imports_go_to_lower_layers_only() -> None:
    place = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    wrong = []
    for name, path in NAMES.items():
        own = area(name)
        for used in {area(each) for each in imports(ast.parse(path.read_text())) if each.startswith("lsap.")}:
            if own in COMMANDS:
                allowed = used == "cli"
            else:
                allowed = used == own or own == "lsap" or (used in place and place[used] < place.get(own, 99))
            if not allowed and used in place | dict.fromkeys(COMMANDS):
                wrong.append(f"{name} imports lsap.{used}")
    assert not wrong, "\n".join(wrong)


def test_modules_do_not_import_one_another_in_circles(graph: dict[str, set[str]]) -> None:
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the modules
    assert set(order) >= set(graph)


def test_the_root_holds_the_commands_and_little_else() -> None:
    rest = {path.stem for path in ROOT.glob("*.py")} - COMMANDS
    assert rest == {"__init__", "__main__", "errors", "inversion", "seeds", "values"}


HEAVY = ("torch", "torchvision", "torchmetrics", "pytorch_lightning", "lightning_fabric")


@pytest.mark.parametrize(
    ("statement", "loads"),
    [
        *((f"import lsap.{name}", ()) for name in ("train", "invert", "evaluate", "app", "assets")),
        ("import lsap.pipelines.assets", ()),
        ("import lsap.config.checks, lsap.cli", ()),
        *(
            (f"import lsap.pipelines.{name}", ("torch",))
            for name in ("conversion", "cropping", "pasting", "data_check", "nscd_score")
        ),
        ("from lsap.alignment import nscd", ("torch",)),
    ],
)
def test_what_does_not_train_loads_no_training_libraries(statement: str, loads: tuple[str, ...]) -> None:
    code = f"{statement}; import sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert tuple(ended.stdout.split()) == loads


def test_there_is_no_module_for_leftovers() -> None:
    drawers = [
        path for path in MODULES if {"utils", "util", "helpers", "misc", "common"} & set(path.with_suffix("").parts)
    ]
    assert not drawers


def test_everything_public_is_explained() -> None:
    silent = []
    for path in MODULES:
        tree = ast.parse(path.read_text())
        if tree.body and not ast.get_docstring(tree):
            silent.append(f"{path.relative_to(ROOT)}")
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node) and not overload(node):
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not silent, "\n".join(silent)


def overload(node: ast.stmt) -> bool:
    """Whether a function only declares one of several signatures."""
    return isinstance(node, ast.FunctionDef) and any(ast.unparse(d) == "overload" for d in node.decorator_list)


def test_torch_files_are_never_executed() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            name = ast.unparse(node.func)
            if name == "torch.load" or "ckpt_path" in keywords:
                assert keywords.get("weights_only") == "True", f"{path}:{node.lineno}: {name} without weights_only=True"
            assert name not in ("eval", "exec", "pickle.load", "pickle.loads"), f"{path}:{node.lineno}: {name}"


@pytest.mark.parametrize("package", PUBLIC)
def test_the_front_door_stays(package: str) -> None:
    module = importlib.import_module(package)
    for name in PUBLIC[package].split():
        assert name in module.__all__
        assert hasattr(module, name)
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
