"""pSp, e4e and ReStyle trained end to end: what a run leaves, killed and resumed, several devices, from a file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from commands import Command, killed_at, launch
from comparison import assert_close_l2
from lsap.checkpoints import read_card, read_state, write_state
from lsap.config.compose import composed
from lsap.embedding import (
    AdversarialTraining,
    Adversary,
    EncoderTraining,
    PSPEncoder,
    PyramidEncoder,
    RestyleTraining,
    SmallPSPEncoder,
)
from lsap.errors import BadValue
from lsap.pipelines.build import Parts
from lsap.pipelines.comparison import compare
from lsap.pipelines.run_identity.encoders import run_folder
from lsap.pipelines.training import Trained, start_from, train, training_module
from small_runs import TINY
from training_runs import WHOLE, assert_same_outcome, files, only_run, rows

Start = Callable[..., Trained]
SMALL = "lsap.embedding.SmallPyramidEncoder"
SMALL_PSP = "lsap.embedding.SmallPSPEncoder"
SMALL_ITERATED = "lsap.embedding.SmallIterativeEncoder"


@pytest.fixture(scope="module")
def own(
    generator_file: Path, photographs: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., list[str]]:
    """`own("e4e")`: overrides for a training of eight steps, a second long, in a domain of one's own."""
    images = photographs(tmp_path_factory.mktemp("photos"), 12)

    def overrides(embedding: str) -> list[str]:
        stages = [] if embedding == "psp" else ["stages.start=0.25", "stages.every=0.125"]
        opposed = ["adversary.pool=3", "adversary.r1_every=3", "adversary.lr=0.002"] if "e4e" in embedding else []
        return [
            "domain=church", f"embedding={embedding}", f"generator.checkpoint={generator_file}", f"data.root={images}",
            "generator.size=32", "view.size=32", "image_size=[32,32]", f"encoders.progressive={SMALL}",
            f"encoders.independent={SMALL_PSP}", f"encoders.iterated={SMALL_ITERATED}", "backbone.checkpoint=random",
            "lambda_lpips=0", "lambda_id=0",
            "space.samples=64", "data.num_workers=0", "data.val_images=3", "max_steps=8", "batch_size=2",
            "trainer.val_check_interval=0.25", "trainer.save_every=0.375", "trainer.accelerator=cpu",
            "trainer.devices=1", *stages, *opposed,
        ]  # fmt: skip

    return overrides


@pytest.fixture
def start(own: Callable[..., list[str]], tmp_path: Path) -> Start:
    """`start("e4e", "max_steps=4")` trains; `to=` is the folder of all runs."""

    def run(embedding: str, *more: str, to: Path = tmp_path / "outputs") -> Trained:
        return train(composed("train", [*own(embedding), f"outputs={to}", *more]))

    return run


@pytest.fixture(scope="module")
def unbroken(own: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Start:
    """The same, without a break; each once."""
    done: dict[tuple[str, ...], Trained] = {}

    def run(embedding: str, *more: str) -> Trained:
        if (embedding, *more) not in done:
            to = tmp_path_factory.mktemp("unbroken")
            done[(embedding, *more)] = train(composed("train", [*own(embedding), f"outputs={to}", *more]))
        return done[(embedding, *more)]

    return run


# ---- what a run leaves


@pytest.mark.parametrize(
    ("embedding", "terms"),
    [
        ("psp", {"l2"}),
        ("e4e", {"l2", "delta", "adv", "discriminator"}),
        ("restyle_lsap", {"l2", "delta", "nscd"}),
        pytest.param("restyle_e4e", {"l2", "delta", "adv", "discriminator"}, marks=pytest.mark.slow),
    ],
)
def test_a_run_leaves_what_every_run_leaves(unbroken: Start, embedding: str, terms: set[str]) -> None:
    run = unbroken(embedding)
    assert files(run.folder) == WHOLE
    assert run.folder.parent.name == embedding
    table = run.splits["validation"]
    row = f"{embedding}_lambda_0.5" if "nscd" in terms else embedding
    assert list(table) == ["mean_latent", "synthetic", row]
    assert table[row]["nscd"] > 0, "what is not trained for is still measured"
    found = rows(run.folder)
    assert [row["step"] for row in found] == [str(step) for step in range(8)]
    assert {name.removeprefix("train/") for name in found[0] if name.startswith("train/")} == terms | {"loss", "stage"}
    for row in found:
        summed = sum(float(row[f"train/{name}"]) for name in terms - {"discriminator"})
        assert float(row["train/loss"]) == pytest.approx(summed, rel=1e-5)
    stages = [float(row["train/stage"]) for row in found]
    assert stages == ([7.0] * 8 if embedding == "psp" else [0, 0, 1, 2, 3, 4, 5, 6])
    card = read_card(run.folder / "encoder.safetensors")
    assert (card["embedding"], card["encoder"]) == (embedding, embedding.replace("lsap", "e4e"))
    assert embedding in (run.folder / "report.html").read_text()


def test_alignment_can_be_had_with_every_embedding(start: Start) -> None:
    for embedding, more in (("psp", ["lambda_wnorm=0.1"]), ("e4e", [])):
        run = start(embedding, "max_steps=2", "lambda_nscd=0.25", *more)
        assert list(run.splits["validation"])[2] == f"{embedding}_lambda_0.25"
        first = rows(run.folder)[0]
        assert float(first["train/nscd"]) > 0
        assert ("train/wnorm" in first) == (embedding == "psp")


def test_a_batch_is_a_step_whatever_the_discriminator_does(unbroken: Start) -> None:
    state = torch.load(unbroken("e4e").folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert (state["global_step"], state["batches_seen"]) == (8, 8)
    (encoder_only,) = state["optimizer_states"]
    assert len(encoder_only["param_groups"]) > 20
    steps = {int(moments["step"]) for moments in state["adversary"]["optimizer"]["state"].values()}
    assert steps == {8 + 3}, "one step per batch, and one more in batches 0, 3 and 6 for R1"
    assert {side: len(codes) for side, codes in state["adversary"]["pools"].items()} == {"real": 3, "fake": 3}
    assert all(name.startswith("encoder.") for name in state["state_dict"])


def test_the_discriminator_learns_first_and_from_trained_rows(
    own: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed("train", own("e4e"))
    module = training_module(config, Parts(config, torch.device("cpu")))
    assert isinstance(module, AdversarialTraining)
    assert module.objective.terms["adv"].discriminator is module.adversary.discriminator
    order: list[str] = []
    shapes: list[tuple[int, ...]] = []

    def learn(self: Adversary, real: torch.Tensor, fake: torch.Tensor, **_: int) -> torch.Tensor:
        order.append("discriminator")
        shapes.append(tuple(fake.shape))
        assert not fake.requires_grad
        assert real.shape == (len(fake), 16)
        return torch.zeros(())

    monkeypatch.setattr(Adversary, "learn", learn)
    monkeypatch.setattr(AdversarialTraining, "loss", lambda *_: order.append("encoder"))
    monkeypatch.setattr(AdversarialTraining, "log", lambda *_, **__: None)
    monkeypatch.setattr(AdversarialTraining, "all_gather", lambda _, codes: codes)
    for seen in (0, 3):
        module.batches_seen = seen
        module.training_step({"image": torch.zeros(2, 3, 32, 32)}, 0)
    assert order == ["discriminator", "encoder"] * 2
    assert shapes == [(2, 1, 16), (2, 3, 16)], "stages 0 and 2"


# ---- killed and started again

KILLS = [
    # the discriminator has learned from the batch, the encoder has not
    pytest.param("e4e", AdversarialTraining, "loss", 6, id="e4e loss"),
    pytest.param(
        "e4e", AdversarialTraining, "training_step", 4, id="e4e just after a checkpoint", marks=pytest.mark.slow
    ),
    pytest.param("e4e", AdversarialTraining, "training_step", 2, id="e4e before any", marks=pytest.mark.slow),
    pytest.param("e4e", AdversarialTraining, "validation_step", 3, id="e4e validation", marks=pytest.mark.slow),
    pytest.param("psp", EncoderTraining, "training_step", 4, id="psp", marks=pytest.mark.slow),
    # two of the five passes of a batch have been back-propagated
    pytest.param("restyle_lsap", RestyleTraining, "loss", 28, id="restyle_lsap between passes", marks=pytest.mark.slow),
    pytest.param("restyle_e4e", RestyleTraining, "training_step", 4, id="restyle_e4e", marks=pytest.mark.slow),
]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a process that has used CUDA cannot be forked")
@pytest.mark.parametrize(("embedding", "owner", "name", "calls"), KILLS)
def test_a_killed_run_ends_as_one_never_killed(
    start: Start, unbroken: Start, embedding: str, owner: object, name: str, calls: int
) -> None:
    killed_at(lambda: start(embedding), owner, name, calls)
    again = start(embedding)
    assert_same_outcome(again.folder, unbroken(embedding).folder)
    if "e4e" in embedding:
        ours, theirs = (
            torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)["adversary"]
            for run in (again, unbroken(embedding))
        )
        assert all(torch.equal(tensor, theirs["discriminator"][n]) for n, tensor in ours["discriminator"].items())
        assert all(torch.equal(codes, theirs["pools"][side]) for side, codes in ours["pools"].items())


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a process that has used CUDA cannot be forked")
@pytest.mark.parametrize(("embedding", "owner"), [("e4e", AdversarialTraining), ("restyle_lsap", RestyleTraining)])
def test_accumulated_and_clipped_it_still_ends_the_same(
    start: Start, unbroken: Start, embedding: str, owner: object
) -> None:
    more = ["trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.01"]
    killed_at(lambda: start(embedding, *more), owner, "training_step", 10)
    again = start(embedding, *more)
    assert_same_outcome(again.folder, unbroken(embedding, *more).folder)
    state = torch.load(again.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert (state["global_step"], state["batches_seen"]) == (8, 16), "max_steps counts updates"


@pytest.mark.slow
def test_two_processes_train_one_discriminator(own: Callable[..., list[str]], tmp_path: Path) -> None:
    arguments = [a for a in own("e4e") if not a.startswith("trainer.devices")]
    run = launch([*arguments, "outputs=outputs", "trainer.devices=2", "adversary.pool=50"], tmp_path)
    out, err = run.communicate(timeout=600)
    assert run.returncode == 0, err
    assert out.count("done: ") == 1
    state = torch.load(only_run(tmp_path / "outputs") / "checkpoints" / "last.ckpt", weights_only=True)
    pools = state["adversary"]["pools"]
    assert {side: len(codes) for side, codes in pools.items()} == {"real": 16, "fake": 16}, "the codes of both"


# ---- what cannot be trained


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["embedding=e4e", "lambda_adv=0"],
            r"lambda_adv=0: .* embedding=lsap_e; .* lambda_nscd=0 lambda_delta=0\.0002",
        ),
        (["embedding=e4e", "lambda_adv=-1"], "lambda_adv=-1: expected a number of at least 0"),
        (["embedding=e4e", "adversary.lr=0"], r"adversary\.lr=0: expected a number above 0"),
        (["embedding=psp", "preset=released"], r"lambda_delta=0\.0002: embedding=psp has no such term \(it has l2"),
        (["embedding=stylegan2_w"], r"embedding=stylegan2_w is not trained; .* python -m lsap\.invert"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(
    command: Command, arguments: list[str], said: str, tmp_path: Path
) -> None:
    outcome = command("train", *arguments, "space.samples=16")
    assert outcome.code == 2
    assert re.match(f"error: {said}", outcome.err)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("knob", ["lambda_adv=0.2", "adversary.pool=20"])
def test_a_knob_of_the_adversary_makes_another_run(own: Callable[..., list[str]], knob: str) -> None:
    def folder(*more: str) -> Path:
        config = composed("train", [*own("e4e"), *more])
        parts = Parts(config, torch.device("cpu"))
        return run_folder(config, parts, parts.data().train).path

    assert folder(knob) != folder()


# ---- started from a file


def test_training_goes_on_from_another_embedding_of_the_same_rule(start: Start, unbroken: Start) -> None:
    file = unbroken("e4e").folder / "encoder.safetensors"
    aligned = start("lsap_e", "max_steps=1", "lr=1e-12", "stages.start=0", "stages.every=0", f"init={file}")
    ours, theirs = (read_state(path) for path in (aligned.folder / "encoder.safetensors", file))
    for name, tensor in theirs.items():
        assert_close_l2(ours[name], tensor, 1e-6, floor=1e-2, name=name)


def test_an_encoder_of_another_rule_is_refused(start: Start, unbroken: Start) -> None:
    file = unbroken("psp").folder / "encoder.safetensors"
    with pytest.raises(BadValue, match=r"init=.*holds the encoder 'psp'.*'e4e' was asked for"):
        start("lsap_e", f"init={file}")


def test_an_encoder_of_another_size_is_refused(start: Start, tmp_path: Path) -> None:
    big = SmallPSPEncoder(10, style_dim=16)
    file = write_state(tmp_path / "big.safetensors", big.state_dict(), {"embedding": "psp", "encoder": "psp"})
    with pytest.raises(BadValue, match=rf"init={file}: its encoder answers 10 rows of W"):
        start("psp", f"init={file}")


def test_a_published_checkpoint_is_a_start_mean_latent_included(tmp_path: Path) -> None:
    published = PSPEncoder(8, style_dim=16)
    state = {f"encoder.{name}": tensor for name, tensor in published.state_dict().items() if name != "latent_avg"}
    mean = torch.full((16,), 3.0)  # as one row; [8, 16] elsewhere
    content = {"state_dict": state, "latent_avg": mean, "opts": {"encoder_type": "GradualStyleEncoder"}}
    torch.save(content, tmp_path / "psp.pt")
    with torch.device("meta"):
        ours, other = PSPEncoder(8, style_dim=16), PyramidEncoder(8, style_dim=16)
    ours.to_empty(device="cpu")
    start_from(ours, str(tmp_path / "psp.pt"))
    found = ours.state_dict()
    assert torch.equal(found.pop("latent_avg"), torch.full((8, 16), 3.0))
    assert all(torch.equal(tensor, published.state_dict()[name]) for name, tensor in found.items())
    with pytest.raises(BadValue, match=r"init=.*psp\.pt: holds the encoder 'psp' \(GradualStyleEncoder\)"):
        start_from(other, str(tmp_path / "psp.pt"))


# ---- the demo domain


@pytest.mark.parametrize("embedding", [pytest.param("psp", marks=pytest.mark.slow), "e4e"])
def test_the_demo_domain_trains_with_reports(embedding: str, tmp_path: Path) -> None:
    few = ["data.train.count=40", "data.val_images=4", "data.tests.rich.count=5", "data.tests.plain.count=3"]
    few += ["data.tests.far.count=2"]
    more = ["max_steps=3", "batch_size=2", "space.samples=256", "trainer.accelerator=cpu", f"outputs={tmp_path}"]
    run = train(composed("train", [f"embedding={embedding}", *few, *more]))
    metrics = json.loads((run.folder / "metrics.json").read_text())
    counts = {split: found[embedding]["n"] for split, found in metrics["splits"].items()}
    assert counts == {"rich": 5, "plain": 3, "far": 2}
    assert {"lpips", "id"} <= {name.removeprefix("train/") for name in rows(run.folder)[0]}
    assert f"{embedding} on demo" in (run.folder / "report.html").read_text()


@pytest.mark.slow
def test_alignment_of_another_embedding_can_be_compared(tmp_path: Path) -> None:
    page = compare(composed("compare", ["embedding=psp", f"outputs={tmp_path}", *TINY]))
    found = json.loads((page.parent / "summary.json").read_text())["rows"]
    assert [row["name"] for row in found] == ["mean_latent", "synthetic", "lambda_0", "lambda_0.5"]
