"""The house rules, read off the source: who may import whom, what files may be opened, what has to be explained."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import lsap

ROOT = Path(lsap.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

# modules that anybody may import, and that import nothing of ours
FOUNDATIONS = {"errors", "ranking", "seeds", "values"}
NETWORKS = {"generator", "features", "data"}
RECORDS = {"inversion"}  # what stages hand on; a module that everything above the networks may import
TOOLS = {"alignment", "formats", "objective", "runs"}
FRONT = {"given", "inverter", "loading"}  # what `import lsap` offers; it is imported when it is first asked for
STAGES = {"demo", "embedding", "refinement", "editing", "evaluation", "reproduction"}

# The front door of each package: names that notebooks and YAML files rely on.
PUBLIC = {
    "lsap.alignment": "NSCD NormalizedStyleSpace normalize nscd style_layers",
    "lsap.stylegan2": "Discriminator Generator StyledLayer View freeze",
    "lsap.checkpoints": "fingerprint load_arcface load_bisenet load_curricularface load_generator load_lpips load_moco "
    "read_codes read_direction read_encoder read_state save_generator save_rosinality",
    "lsap.pretrained": "ArcFace IRSE50 LPIPS MoCo TrunkDistance",
    "lsap.data": "ImageDataModule ImageFolder Source",
    "lsap.losses": "L2 Alignment Delta Fit Objective Perceptual Similarity Term",
    "lsap.embedding": "EncoderTraining ProgressiveStages PyramidEncoder Ranger SmallPyramidEncoder",
    "lsap.runs": "AtomicCheckpoints MetricsFile RunFolder manifest",
    "lsap.demo": "FACTORS Portraits render",
}


def area(path: Path) -> str:
    """The package of a module, or the module itself where it stands at the top."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_areas(path: Path) -> Iterator[tuple[int, str]]:
    """(line, area) of everything of ours that a module imports, wherever in it."""
    inside = {p.name.removesuffix(".py") for p in ROOT.iterdir()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "lsap" and len(parts) > 1 and parts[1] in inside:
                yield node.lineno, parts[1]


def allowed(own: str) -> set[str]:
    """What modules of an area may import."""
    if own in FOUNDATIONS:
        return set()
    if own == "__init__":
        return FRONT
    if own in NETWORKS:
        return FOUNDATIONS
    if own in RECORDS:
        return FOUNDATIONS | NETWORKS
    if own in TOOLS | STAGES:
        return FOUNDATIONS | NETWORKS | RECORDS | TOOLS
    return {area(path) for path in MODULES}


def test_imports_follow_the_house_rules() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports lsap.{found}"
        for path in MODULES
        for line, found in imported_areas(path)
        if found != area(path) and found not in allowed(area(path))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_rules_cover_every_package() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == NETWORKS | TOOLS | STAGES, "a new package needs its place in the order of imports"


def test_nobody_keeps_a_drawer_for_leftovers() -> None:
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
