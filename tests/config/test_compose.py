"""The YAML files: each composes, says what the paper says, and names objects that exist."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from lsap.config.checks import check_training as check
from lsap.config.compose import composed, config_dir
from lsap.errors import MissingFile

CONF = config_dir()
DOMAINS = sorted(path.stem for path in (CONF / "domain").glob("*.yaml"))
REAL = [name for name in DOMAINS if name != "demo"]
PRESETS = sorted(path.stem for path in (CONF / "preset").glob("*.yaml"))
FILES = sorted(CONF.rglob("*.yaml"))


@cache
def train(domain: str, *overrides: str) -> DictConfig:
    """The training configuration of a domain; composed once, so not to be changed."""
    return composed("train", [f"domain={domain}", *overrides])


def test_the_promised_choices_are_there() -> None:
    assert DOMAINS == ["car", "church", "demo", "face", "wild"]
    assert PRESETS == ["low_memory", "paper", "released"]
    assert {path.stem for path in (CONF / "logger").glob("*.yaml")} == {"csv", "wandb"}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("domain", DOMAINS)
def test_every_domain_composes_with_every_preset(domain: str, preset: str) -> None:
    config = train(domain, *([] if preset == "paper" else [f"preset={preset}"]))
    whole = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # no reference leads nowhere
    assert isinstance(whole, dict)
    assert whole["domain"]["name"] == domain


def test_the_default_is_the_paper_on_the_demo_domain() -> None:
    config = composed("train")
    assert config == train("demo", "preset=paper")
    assert config.logger.name == "csv"
    assert train("demo", "logger=wandb").logger.name == "wandb"


@pytest.mark.parametrize("path", [p for p in CONF.glob("*.yaml") if p.stem != "train"], ids=lambda p: p.stem)
def test_every_command_composes(path: Path) -> None:
    whole = OmegaConf.to_container(composed(path.stem), resolve=True, throw_on_missing=True)
    assert isinstance(whole, dict)
    assert whole["debug"] is False


@pytest.mark.parametrize("path", sorted((CONF / "target").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_pretraining_target_builds(path: Path) -> None:
    config = composed("pretrain", [f"target={path.stem}"])
    assert config.target.name == {"adversarial": "generator"}.get(path.stem, path.stem)  # phases of one network
    module = instantiate(config.target.module, seed=0, _convert_="all", **compilation_off(config.target.module))
    assert sum(p.numel() for p in module.product.parameters()) > 1000


def compilation_off(module: DictConfig) -> dict[str, bool]:
    """No C++ compiler is needed to see whether a target can be built."""
    return {"compiled": False} if "compiled" in module else {}


@pytest.mark.parametrize("domain", REAL)
def test_real_domains_train_as_section_5_1_says(domain: str) -> None:
    config = train(domain)
    found = {name: config[name] for name in ("lambda_l2", "lambda_lpips", "lambda_id", "lambda_delta", "lambda_nscd")}
    assert found == {
        "lambda_l2": 1.0,
        "lambda_lpips": 0.8,
        "lambda_id": 0.1 if domain == "face" else 0.5,
        "lambda_delta": 2e-5,
        "lambda_nscd": 0.5,
    }
    assert (config.lr, config.batch_size, config.max_steps) == (1e-3, 8, 200_000)
    assert config.optimizer == {"_target_": "lsap.embedding.Ranger", "_partial_": True, "lr": 1e-3}
    assert (config.space.samples, config.space.layers) == (50_000, "published")
    assert (config.stages.start, config.stages.every) == (20_000, 2_000)
    assert config.image_size == ([192, 256] if domain == "car" else [256, 256])
    assert config.generator.size == {"car": 512, "church": 256, "face": 1024, "wild": 512}[domain]
    assert get_object(config.similarity._target_).__name__ == ("load_arcface" if domain == "face" else "load_moco")
    assert config.perceptual.net == "alex"


@pytest.mark.parametrize("domain", REAL)
def test_the_released_preset_is_the_released_configuration(domain: str) -> None:
    paper, released = train(domain), train(domain, "preset=released")
    assert (released.lambda_delta, released.lr, released.optimizer.lr) == (2e-4, 1e-4, 1e-4)
    assert (released.space.samples, released.stages.start, released.stages.every) == (100_000, 20_000, 100)
    for name in ("lambda_l2", "lambda_lpips", "lambda_id", "lambda_nscd", "batch_size", "max_steps"):
        assert released[name] == paper[name]


def test_nothing_but_domain_and_embedding_sets_a_weight() -> None:
    assert train("demo", "lambda_nscd=0.25").objective.nscd.weight == 0.25
    assert train("demo", "preset=released", "lambda_delta=0").lambda_delta == 0, "the command line comes last"


@pytest.mark.parametrize("domain", DOMAINS)
def test_there_is_one_term_per_lambda(domain: str) -> None:
    weights = {"l2": 0.5, "lpips": 0.25, "id": 0.125, "delta": 0.0625, "nscd": 2}
    config = train(domain, *(f"lambda_{name}={value}" for name, value in weights.items()))
    assert {str(name) for name in config if str(name).startswith("lambda_")} == {f"lambda_{name}" for name in weights}
    assert {name: node.weight for name, node in config.objective.items()} == weights
    assert (config.objective.nscd.term.reduction, config.objective.nscd.term.anchor) == ("sum", "raw")


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_generator_is_seen_at_the_size_of_the_images(domain: str) -> None:
    config = train(domain)
    seen = instantiate(config.view)(torch.zeros(1, 3, config.generator.size, config.generator.size))
    assert list(seen.shape[-2:]) == list(config.get("image_size", [64, 64]))


@pytest.mark.parametrize("domain", DOMAINS)
def test_stages_end_within_the_run(domain: str) -> None:
    config = train(domain)
    rows = 2 * config.generator.size.bit_length() - 4
    stages = instantiate(config.stages, n_latent=rows, max_steps=config.max_steps)
    assert [stages.stage(0), stages.stage(config.max_steps - 1)] == [0, rows - 1]


@pytest.mark.parametrize("domain", REAL)
def test_every_file_that_a_domain_needs_is_described(domain: str, tmp_path: Path) -> None:
    config = train(domain, f"weights={tmp_path}/none", f"data.root={tmp_path}/none")
    networks = [f"{name}.checkpoint" for name in ("generator", "perceptual", "similarity", "backbone")]
    assert [need.key for need in config.domain.needs] == [*networks, "data.root"]
    with pytest.raises(MissingFile) as caught:
        check(config)
    for need in config.domain.needs:
        assert f"{need.key}={OmegaConf.select(config, need.key)}" in str(caught.value)
        assert need.what in str(caught.value)
        assert need.source in str(caught.value)
        assert "http" in need.source


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` of a YAML file."""
    if isinstance(node, dict):
        if "_target_" in node and not node["_target_"].startswith("${"):
            yield node["_target_"]
        yield from node.get("encoders", {}).values()  # which those references lead to
        for key, value in node.items():
            yield from targets(value) if key != "encoders" else ()
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONF)))
def test_every_target_exists(path: Path) -> None:
    for target in targets(OmegaConf.to_container(OmegaConf.load(path), resolve=False)):
        assert callable(get_object(target)), target


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONF)))
def test_every_file_says_what_it_is(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# "), "a reader who opens it first sees what it is for"
