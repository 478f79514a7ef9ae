"""The YAML of every embedding that is trained: what it says, what differs between them, and the page that lists it."""

from __future__ import annotations

from functools import cache

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from lsap.config.checks import check_trainable
from lsap.config.compose import composed
from lsap.embedding import RowEncoder
from pages import table

TRAINED = ("psp", "e4e", "lsap_e")
DOMAINS = ("car", "church", "demo", "face", "wild")
KINDS = {
    "psp": "psp", "w": "w", "e4e": "e4e", "lsap_e": "e4e", "restyle_e4e": "restyle_e4e", "restyle_lsap": "restyle_e4e",
}  # fmt: skip
OVER = {"restyle_e4e": "e4e", "restyle_lsap": "lsap_e"}  # what ReStyle repeats


@cache
def train(embedding: str, domain: str) -> DictConfig:
    """A training configuration; composed once, so not to be changed."""
    return composed("train", [f"embedding={embedding}", f"domain={domain}"])


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("embedding", KINDS)
def test_every_embedding_composes_with_every_domain(embedding: str, domain: str) -> None:
    config = train(embedding, domain)
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    check_trainable(config)  # there is a term for every lambda
    assert {f"lambda_{name}" for name in config.objective} == {k for k in config if str(k).startswith("lambda_")}
    encoder = get_class(config.encoder._target_)
    assert issubclass(encoder, RowEncoder)
    assert encoder.kind == KINDS[embedding]


@pytest.mark.parametrize("domain", DOMAINS)
def test_embeddings_differ_in_nothing_but_their_method(domain: str) -> None:
    shared = ("lambda_l2", "lambda_lpips", "lambda_id", "batch_size", "max_steps", "space", "view", "data", "generator")
    for embedding in ("psp", "e4e"):
        ours, theirs = train(embedding, domain), train("lsap_e", domain)
        assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
        assert ours.optimizer._target_ == theirs.optimizer._target_


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("embedding", OVER)
def test_restyle_is_its_embedding_in_several_passes(embedding: str, domain: str) -> None:
    ours, theirs = (OmegaConf.to_container(train(e, domain), resolve=True) for e in (embedding, OVER[embedding]))
    assert isinstance(ours, dict)
    assert isinstance(theirs, dict)
    assert ours["iterations"] == 5
    differing = {str(key) for key in ours if ours[key] != theirs.get(key)}
    starts_elsewhere = set() if domain in ("face", "demo") else {"domain"}  # which file it asks for
    assert differing - {"backbone"} == {"embedding", "encoder", "iterations"} | starts_elsewhere


@pytest.mark.parametrize(("domain", "file"), [("face", "model_ir_se50.pth"), ("car", "resnet34-b627a593.pth")])
def test_restyle_starts_from_the_body_that_it_was_published_with(domain: str, file: str) -> None:
    config = train("restyle_e4e", domain)
    assert config.backbone.checkpoint == f"{config.weights}/{file}"
    assert train("e4e", domain).backbone.checkpoint == f"{config.weights}/model_ir_se50.pth"
    (need,) = [each for each in config.domain.needs if each.key == "backbone.checkpoint"]
    assert file in need.source


@pytest.mark.parametrize("embedding", TRAINED)
def test_all_rows_are_trained_before_the_demo_ends(embedding: str) -> None:
    config = train(embedding, "demo")
    stages = instantiate(config.stages, n_latent=10, max_steps=config.max_steps)
    assert stages.stage(0) == (9 if embedding == "psp" else 0)
    assert stages.stage(config.max_steps // 2) == 9
    assert config.lr == config.optimizer.lr == 1e-3


def test_the_page_says_what_differs() -> None:
    heading, *rows = table("docs/training.md", "setting")
    assert tuple(heading[1:4]) == TRAINED
    for row in rows:
        for embedding, said in zip(TRAINED, row[1:4], strict=True):
            value = OmegaConf.select(train(embedding, "church"), row[0].strip("`"))
            assert value == (None if said == "–" else float(said)), f"{row[0]} of {embedding}"
    listed = {row[0].strip("`") for row in rows}
    configs = {embedding: train(embedding, "church") for embedding in TRAINED}
    for name in {str(key) for config in configs.values() for key in config if str(key).startswith(("lambda_", "lr"))}:
        values = {embedding: config.get(name) for embedding, config in configs.items()}
        assert name in listed or len(set(values.values())) == 1, f"{name} differs and is not in the table"
