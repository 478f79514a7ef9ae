"""e4e's latent discriminator: published numbers, the pools, what learning does and what it leaves alone."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor, nn

from comparison import assert_published
from golden import fill
from lsap.embedding import Adversary, CodePool, LatentDiscriminator
from lsap.embedding.adversary import discrimination, r1_penalty
from lsap.errors import BadValue
from lsap.losses import Adversarial, LossInputs

CASE = "latent_discriminator"


# Published numbers


@pytest.fixture(scope="module")
def published() -> LatentDiscriminator:
    """With the case's weights, which load by name."""
    discriminator = LatentDiscriminator(512)
    discriminator.load_state_dict(fill.state_dict(CASE, "discriminator"))
    return discriminator


def gradients(loss: Tensor, discriminator: LatentDiscriminator) -> dict[str, Tensor]:
    """By parameter; without those that the loss does not depend on."""
    names = dict(discriminator.named_parameters())
    found = torch.autograd.grad(loss, list(names.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(names, found, strict=True) if gradient is not None}


def test_logits_and_loss_agree_with_the_published_discriminator(published: LatentDiscriminator) -> None:
    x = fill.inputs(CASE)
    for side in ("real", "fake"):
        assert_published(CASE, f"{side}_pred", published(x[f"{side}_w"])[:, None], 1e-5)
    loss = discrimination(published, x["real_w"], x["fake_w"])
    assert_published(CASE, "d_loss", loss, 1e-5)
    found = gradients(loss, published)
    assert_published(CASE, "grad_d_loss_mlp0", found["mlp.0.weight"], 1e-5)
    assert_published(CASE, "grad_d_loss_mlp6_bias", found["mlp.6.bias"], 1e-5)


def test_r1_agrees_with_the_published_penalty(published: LatentDiscriminator) -> None:
    settings = Adversary(512)
    penalty = r1_penalty(published, fill.inputs(CASE)["real_w"])
    assert_published(CASE, "r1_penalty", penalty, 1e-5)
    paid = settings.r1 / 2 * penalty * settings.r1_every
    assert_published(CASE, "r1_final", paid[None], 1e-5)
    found = gradients(paid, published)
    assert_published(CASE, "grad_r1_mlp0", found["mlp.0.weight"], 1e-5)
    assert_published(CASE, "grad_r1_mlp4", found["mlp.4.weight"], 1e-5)
    assert "mlp.6.bias" not in found


def test_the_adversarial_term_agrees_with_the_published_one(published: LatentDiscriminator) -> None:
    codes = fill.inputs(CASE)["latent"]
    image = torch.zeros(len(codes), 3, 4, 4)
    with torch.no_grad():
        per_layer = nn.functional.softplus(-published(codes)).mean(0)
        assert_published(CASE, "encoder_adv_per_layer", per_layer, 1e-5)
        for output, stage in (("encoder_adv_all", 13), ("encoder_adv_stage3", 3)):
            value = Adversarial(published)(LossInputs(image, image, codes, None, stage)).mean()
            assert_published(CASE, output, value, 1e-5)


@pytest.mark.parametrize(("output", "rows"), [("pool_trace_2d", None), ("pool_trace_3d", 5)])
def test_pools_draw_as_the_published_ones(output: str, rows: int | None) -> None:
    rng = random.Random(fill.load(CASE)["seed"])
    pool = CodePool(4)
    answers = []
    for query in range(8):
        numbers = torch.arange(3.0) + 3 * query
        codes = numbers[:, None].expand(3, 8)
        if rows is not None:
            codes = (100 * numbers[:, None, None] + torch.arange(rows)[:, None]).expand(3, rows, 8)
        answers.append(pool.exchange(codes, rng)[:, 0])
    assert torch.stack(answers).tolist() == fill.expected(CASE)[output].tolist()


# Pools


def test_a_pool_hands_out_new_codes_until_it_is_full_and_old_ones_half_the_time_then() -> None:
    pool, rng = CodePool(50), random.Random(0)
    first = torch.arange(50.0)[:, None]
    assert torch.equal(pool.exchange(first, rng), first)
    later = torch.arange(50.0, 1050.0)[:, None]
    handed = pool.exchange(later, rng)
    assert (handed != later).float().mean().item() == pytest.approx(0.5, abs=0.05)
    everything = sorted(torch.cat([handed, torch.stack(pool.kept)]).flatten().tolist())
    assert len(pool.kept) == 50
    assert set(everything) <= set(range(1050))
    assert len({*everything}) == len(everything), "what was replaced is gone from the pool"


# Learning


def sides(seed: int, distance: float = 1.0) -> tuple[Tensor, Tensor]:
    """w [8, 16] and rows [8, 3, 16] that lie on both sides of a plane."""
    rng = torch.Generator().manual_seed(seed)
    real, fake = torch.randn(8, 16, generator=rng), torch.randn(8, 3, 16, generator=rng)
    return real + distance, fake - distance


def test_it_starts_undecided_and_learns_to_tell_the_two_apart() -> None:
    adversary = Adversary(16, lr=5e-3, r1=0)
    losses = [adversary.learn(*sides(step), batch=step, seed=0).item() for step in range(40)]
    assert losses[0] == pytest.approx(2 * math.log(2), abs=0.15)
    assert losses[-1] < 0.2
    real, fake = sides(99)
    assert (adversary.discriminator(real) > 0).float().mean() > 0.9
    assert (adversary.discriminator(fake) < 0).float().mean() > 0.9


def test_the_penalty_keeps_the_discriminator_flat() -> None:
    def steepness(r1: float) -> float:
        torch.manual_seed(0)
        adversary = Adversary(16, lr=3e-3, r1=r1, r1_every=4)
        for step in range(40):
            adversary.learn(*sides(step), batch=step, seed=0)
        return r1_penalty(adversary.discriminator.requires_grad_(True), sides(99)[0]).item()

    assert steepness(10) < 0.3 * steepness(0)


def test_the_penalty_is_a_step_of_its_own_once_in_so_many_batches() -> None:
    adversary = Adversary(16, r1_every=4)
    steps = []
    for batch in range(9):
        adversary.learn(*sides(batch), batch=batch, seed=0)
        steps.append(int(adversary.optimizer.state[adversary.discriminator.mlp[0].weight]["step"]))
    assert steps == [2, 3, 4, 5, 7, 8, 9, 10, 12]


def test_an_encoders_loss_leads_through_it_and_leaves_it_alone() -> None:
    adversary = Adversary(16)
    adversary.learn(*sides(0), batch=0, seed=0)
    codes = torch.randn(2, 3, 16, requires_grad=True)
    image = torch.zeros(2, 3, 4, 4)
    Adversarial(adversary.discriminator)(LossInputs(image, image, codes, None, 2)).sum().backward()
    assert codes.grad is not None
    assert codes.grad.abs().min() > 0
    assert all(p.grad is None and not p.requires_grad for p in adversary.parameters())


def test_it_learns_within_no_grad_as_well() -> None:
    adversary = Adversary(16)
    before = adversary.discriminator.mlp[0].weight.clone()
    with torch.no_grad():
        loss = adversary.learn(*sides(0), batch=0, seed=0)
    assert not loss.requires_grad
    assert not torch.equal(adversary.discriminator.mlp[0].weight, before)


def test_it_goes_on_from_a_file_as_if_it_had_never_stopped(tmp_path: object) -> None:
    unbroken, first = Adversary(16, pool=20), Adversary(16, pool=20)
    first.load_state_dict(unbroken.state_dict())
    for batch in range(12):
        unbroken.learn(*sides(batch), batch=batch, seed=3)
    for batch in range(5):
        first.learn(*sides(batch), batch=batch, seed=3)
    torch.save(first.progress(), f"{tmp_path}/progress")
    again = Adversary(16, pool=20)
    again.resume(torch.load(f"{tmp_path}/progress", weights_only=True))
    for batch in range(5, 12):
        again.learn(*sides(batch), batch=batch, seed=3)
    assert torch.equal(torch.stack(again.pools["fake"].kept), torch.stack(unbroken.pools["fake"].kept))
    ours, theirs = again.state_dict(), unbroken.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.filterwarnings("ignore:.*which is a no-op")
def test_codes_of_a_file_go_where_the_discriminator_is() -> None:
    """Checkpoints are read into the memory of the processor; codes of later batches come on the module's device."""
    first = Adversary(16, pool=20)
    for batch in range(4):
        first.learn(*sides(batch), batch=batch, seed=3)
    again = Adversary(16, pool=20)
    again.discriminator.to_empty(device="meta")
    again.resume(first.progress())
    for side, codes in (("real", torch.empty(9, 16, device="meta")), ("fake", torch.empty(9, 3, 16, device="meta"))):
        pool = again.pools[side]
        assert pool.exchange(codes, random.Random(0)).device.type == "meta"
        assert {code.device.type for code in pool.kept} == {"meta"}
    assert {codes.device.type for codes in again.progress()["pools"].values()} == {"meta"}


def test_a_pool_does_not_hold_on_to_the_batches_that_its_codes_came_in() -> None:
    pool, rng = CodePool(3), random.Random(0)
    for _ in range(3):
        pool.exchange(torch.randn(8, 5, 16), rng)
    assert [code.untyped_storage().nbytes() for code in pool.kept] == [16 * 4] * 3


def test_half_precision_around_it_does_not_reach_it() -> None:
    discriminator = LatentDiscriminator(16)
    codes = torch.randn(4, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = discriminator(codes)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, discriminator(codes))


@pytest.mark.parametrize(
    ("setting", "value", "accepted"),
    [
        ("lr", 0.0, "a number above 0"),
        ("r1", -1.0, "a number of at least 0"),
        ("r1_every", 0, "a whole number of at least 1"),
        ("pool", 0, "a whole number of at least 1"),
        ("pool", 1.5, "a whole number of at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_their_key(setting: str, value: float, accepted: str) -> None:
    with pytest.raises(BadValue, match=rf"adversary\.{setting}={value}: .*{accepted}"):
        Adversary(16, **{setting: value})
