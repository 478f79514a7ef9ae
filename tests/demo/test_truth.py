"""What is known of portraits reaches the tables of an evaluation; the reader's weights are random here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from comparison import assert_close_l2
from lsap.checkpoints import Direction, fingerprint, save_directions
from lsap.config.compose import composed
from lsap.demo import Portraits
from lsap.demo.networks import FactorReader, IdentityReader
from lsap.demo.truth import KnownFactors
from lsap.demo.weights import load_generator
from lsap.inversion import FixedNoise, Inversion
from lsap.pipelines.evaluation.evaluate import evaluate
from lsap.runs import Store


@pytest.fixture(scope="module")
def reader() -> FactorReader:
    torch.manual_seed(3)
    return FactorReader().eval().requires_grad_(False)


def test_portraits_themselves_have_the_readers_own_error_and_no_edit_has_no_effect(reader: FactorReader) -> None:
    source = Portraits("rich", "test", 4)
    known = KnownFactors(source, reader)
    names = [source.names[3], source.names[1]]
    images = source.read([3, 1])
    found = known.inversion(images, names)
    assert_close_l2(found["factor_error"], found["own_error"], 1e-5)
    darker = known.inversion(images - 0.5, names)
    assert_close_l2(darker["own_error"], found["own_error"], 1e-5)
    assert not torch.equal(darker["factor_error"], found["factor_error"])
    edit = known.edit(images, images, "yaw", names)
    assert edit.keys() == {"effect", "leakage", "excess", "distance"}
    assert edit["effect"].abs().max() == edit["leakage"].max() == 0
    assert edit["distance"].max() < 1e-4, "the portrait, drawn again and rounded to eight bits"
    assert known.edit(images, images, "no factor", names) == {}


def test_truth_stands_in_the_table_of_the_demo(
    reader: FactorReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsap.demo.truth.load_factor_reader", lambda: reader)
    monkeypatch.setattr("lsap.demo.weights.load_factor_reader", lambda: reader)
    monkeypatch.setattr("lsap.demo.weights.load_identity_judge", lambda: IdentityReader().eval())
    generator = load_generator()
    names = Portraits("rich", "test", 512).names[:5]
    store = Store.open(tmp_path / "run", names, 3, {"domain": "demo", "embedding": "lsap_o_w"})
    for batch in store.pending():
        codes = generator.sample_w(len(batch.names))[:, None].repeat(1, generator.n_latent, 1)
        inversion = Inversion(batch.names, codes, fingerprint(generator), FixedNoise(generator))
        store.write(batch, [{"name": name} for name in batch.names], inversion, inversion.render())
    OmegaConf.save(OmegaConf.create({"split": "rich", "count": 5, "images": None}), tmp_path / "run" / "config.yaml")
    turn = Direction(name="pose", vector=torch.randn(generator.style_dim), generator=fingerprint(generator), step=0.1)
    file = save_directions([turn], tmp_path / "pose.safetensors")
    typed = [f"runs=[{tmp_path / 'run'}]", f"direction={file}", "effect=null", "strength=1", "space.samples=64"]
    folder = evaluate(composed("evaluate", [*typed, f"save_to={tmp_path / 'results'}", f"outputs={tmp_path}"]))
    found = json.loads((folder / "results.json").read_text())
    assert found["protocol"] == "demo64"
    assert found["judges"]["identity"] == "identity (demo evaluation network)"
    row = found["table"]["lsap_o_w"]
    for key in (
        "factor_error",
        "effect/pose",
        "leakage/pose",
        "excess/pose",
        "distance/pose",
        "identity/pose",
        "lpips",
    ):
        assert row[key]["n"] == 5, key
    assert row["excess/pose"]["mean"] < row["leakage/pose"]["mean"], "what the true edit shows is taken off"
    assert found["table"]["The images themselves"]["factor_error"]["n"] == 5
    assert {one["target"] for one in found["correlations"]} == {"excess/pose"}
