"""Making the demo's own weights: the real command on a small budget, resumed exactly, and what is shipped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from comparison import assert_close_l2
from lsap.checkpoints import fingerprint, read_state
from lsap.config.compose import composed
from lsap.demo import Portraits, factors, portraits
from lsap.demo.networks import ArcFaceHead
from lsap.demo.pretraining import GeneratorAdversarial, ProjectedDiscriminator, regression
from lsap.demo.quality import measure
from lsap.demo.weights import FOLDER, load_factor_reader, load_generator, load_identity, load_reader, load_trunk
from lsap.errors import BadValue
from lsap.pipelines.pretraining import _go_on_from, pretrain


def settings(folder: Path, target: str, steps: int, *more: str) -> list[str]:
    return [
        f"target={target}",
        f"outputs={folder}",
        f"target.module.max_steps={steps}",
        "target.module.batch_size=4",
        *more,
    ]


@pytest.mark.parametrize("target", ["trunk", "identity", "generator"])
def test_the_command_writes_weights_and_their_card(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regression, "measure", partial(measure, count=256))
    more = ["target.module.compiled=false"] if target == "generator" else []
    path = pretrain(composed("pretrain", settings(tmp_path, target, 2, *more)))
    card = json.loads((tmp_path / f"{target}.card.json").read_text())
    assert path == tmp_path / f"{target}.safetensors"
    assert card["steps"] == 2
    assert f"target={target}" in card["made by"]
    assert all(isinstance(v, float) for v in card["quality"].values())
    assert read_state(path).keys()


def test_a_resumed_training_ends_where_an_unbroken_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lsap.demo.pretraining import TrunkPretraining

    whole = pretrain(composed("pretrain", settings(tmp_path / "whole", "trunk", 6, "save_every=3")))
    step = TrunkPretraining.training_step

    def killed(self: TrunkPretraining, number: int, index: int) -> torch.Tensor:
        if number == 4:
            raise KeyError("killed")
        return step(self, number, index)

    broken = composed("pretrain", settings(tmp_path / "broken", "trunk", 6, "save_every=3"))
    monkeypatch.setattr(TrunkPretraining, "training_step", killed)
    with pytest.raises(KeyError):
        pretrain(broken)
    monkeypatch.undo()
    resumed = pretrain(broken)
    first, second = read_state(whole), read_state(resumed)
    assert first.keys() == second.keys()
    bits = 0.0 if not torch.cuda.is_available() else 1e-3  # a GPU adds up in another order every time
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=bits, atol=bits, msg=name)


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"half of a file")
    with pytest.raises(BadValue, match=r"last\.ckpt cannot be read .* it is damaged\. Delete it"):
        pretrain(composed("pretrain", settings(tmp_path, "trunk", 2)))


def test_how_far_a_checkpoint_has_come_is_read_without_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed("pretrain", settings(tmp_path, "trunk", 2, "save_every=1"))
    pretrain(config)
    read, places = torch.load, []
    monkeypatch.setattr(torch, "load", lambda *a, **k: places.append(k.get("map_location", *a[1:2])) or read(*a, **k))
    pretrain(config)
    assert places
    assert None not in places, "weights of a GPU could not be read where there is none"


@pytest.mark.parametrize("name", ["generator", "generator.v2", "of.my.own"])
def test_weights_to_go_on_from_may_have_dots_in_their_name_and_no_card(tmp_path: Path, name: str) -> None:
    class Target:
        product = load_generator()

    file = tmp_path / f"{name}.safetensors"
    shutil.copy(FOLDER / "generator.safetensors", file)
    earlier = _go_on_from(str(file), Target())  # type: ignore[arg-type]
    assert earlier == {"file": file.name, "fingerprint": fingerprint(Target.product)}
    card = tmp_path / f"{name}.card.json"
    card.write_text('{"steps": 7}')
    assert _go_on_from(str(file), Target()) == {"steps": 7}  # type: ignore[arg-type]
    card.write_text('{"steps": ')
    with pytest.raises(BadValue, match=r"card\.json cannot be read .*; mend this card of start_from="):
        _go_on_from(str(file), Target())  # type: ignore[arg-type]


ADVERSARIAL = [
    "target.module.compiled=false",
    "target.module.alone=1",
    f"start_from={FOLDER / 'generator.safetensors'}",
]


@pytest.mark.slow
def test_the_second_phase_goes_on_from_the_first_and_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regression, "measure", partial(measure, count=256))

    def run(folder: str) -> Path:
        more = [*ADVERSARIAL, "save_every=2"]
        return pretrain(composed("pretrain", settings(tmp_path / folder, "adversarial", 4, *more)))

    whole = run("whole")
    card = json.loads(whole.with_suffix("").with_suffix(".card.json").read_text())
    assert card["steps"] == 4
    assert card["earlier"]["quality"], "what the first phase came to"
    step = GeneratorAdversarial.training_step

    def killed(self: GeneratorAdversarial, number: int, index: int) -> None:
        if number == 3:
            raise KeyError("killed")
        step(self, number, index)

    monkeypatch.setattr(GeneratorAdversarial, "training_step", killed)
    with pytest.raises(KeyError):
        run("broken")
    monkeypatch.setattr(GeneratorAdversarial, "training_step", step)
    first, second, start = (read_state(path) for path in (whole, run("broken"), FOLDER / "generator.safetensors"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], start[name].to(first[name].dtype)) for name in first), "it learned"


def test_the_discriminator_soon_sees_what_is_no_portrait() -> None:
    """Trained eyes need no thousand steps: renders against the same ones, slightly blurred."""
    torch.manual_seed(0)
    judge = ProjectedDiscriminator(hidden=16).train()
    assert not judge.eye.training
    assert not any(parameter.requires_grad for parameter in judge.requires_grad_().eye.parameters())
    optimizer = torch.optim.Adam(judge.heads.parameters(), lr=0.005)
    for step in range(12):
        sharp, blurred = _sharp_and_blurred(step)
        seen, doubted = judge(torch.cat([sharp, blurred])).chunk(2)
        loss = F.softplus(-seen).mean() + F.softplus(doubted).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sharp, blurred = _sharp_and_blurred(99)
    with torch.no_grad():
        seen, doubted = judge(torch.cat([sharp, blurred])).mean(1).chunk(2)
    assert judge(sharp).shape == (16, 5 * 16)
    assert (seen > doubted).float().mean() > 0.9


def _sharp_and_blurred(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    sharp = portraits.render(factors.draw(number, "sharp", range(16)))
    return sharp, F.avg_pool2d(sharp, 3, 1, 1)


def test_arcface_asks_for_the_margin() -> None:
    head = ArcFaceHead(4, people=3, margin=0.3, scale=10.0)
    head.centres.data = torch.eye(3, 4)
    own = torch.eye(3, 4)
    with_margin = head(own, torch.arange(3))
    head.margin = 0.0
    assert with_margin > head(own, torch.arange(3))
    assert head(own, torch.tensor([1, 2, 0])) > 5  # the wrong person costs about the scale


def test_shipped_files_are_small_and_carry_their_cards() -> None:
    sizes = [path.stat().st_size for path in FOLDER.glob("*.safetensors")]
    assert len(sizes) == 5
    assert sum(sizes) < 12e6
    for name in ("generator", "trunk", "identity", "reader", "identity_reader"):
        card = json.loads((FOLDER / f"{name}.card.json").read_text())
        assert card["made by"].startswith("python -m lsap.pretrain")
        assert card["steps"] > 500
        assert card["quality"]


def test_shipped_generator_draws_the_portraits_of_its_factors() -> None:
    generator = load_generator()
    z = torch.randn(32, generator.style_dim, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        output = generator(generator.mapping(z))
    target = portraits.render(factors.from_z(z))
    blind = target.mean(0, keepdim=True)
    assert (output - target).square().mean() < 0.12 * (target - blind).square().mean()


@pytest.mark.parametrize("load", [load_trunk, load_factor_reader])
def test_shipped_regressors_read_pose_and_smile_of_people_they_never_saw(load: Callable[[], torch.nn.Module]) -> None:
    source = Portraits("rich", "unseen by anybody", 128)
    truth = source.factors(range(128))
    with torch.no_grad():
        read = load()(source.read(range(128)))
    for name in ("yaw", "smile"):
        column = factors.index(name)
        assert torch.corrcoef(torch.stack([truth[:, column], read[:, column]]))[0, 1] > 0.9


def test_edits_are_read_by_the_regressor_of_measurements_in_standard_deviations() -> None:
    images = Portraits("rich", "unseen by anybody", 4).read(range(4))
    with torch.no_grad():
        assert_close_l2(load_reader()(images), load_factor_reader()(images) / factors.STANDARD_DEVIATION, 1e-5)


def test_shipped_identity_network_tells_people_apart_across_poses() -> None:
    people = 100
    embeddings = []
    for picture in (0, 1):
        truth = factors.draw_person(7, "unseen people", range(people), [picture] * people)
        embeddings.append(load_identity().embed(portraits.render(truth)))
    same = (embeddings[0] * embeddings[1]).sum(1)
    other = (embeddings[0] * embeddings[1].roll(1, 0)).sum(1)
    assert (same > other).float().mean() > 0.93
