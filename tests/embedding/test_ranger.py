"""The optimiser against the published one: same numbers, warm-up per parameter, exact resumption."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable

import pytest
import pytorch_optimizer
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from comparison import assert_close_l2, assert_published
from golden import fill
from lsap.embedding import Ranger

Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def trajectory(make: Make, steps: int = 30) -> tuple[dict[int, dict[str, Tensor]], Tensor]:
    """The small problem of the case: parameters after every step, and the loss before it."""
    spec = fill.load("ranger")
    x = fill.inputs(spec)
    net = {name: nn.Parameter(tensor) for name, tensor in fill.state_dict(spec, "net").items()}
    optimizer = make(net.values())
    states, losses = {}, []
    for step in range(1, steps + 1):
        maps = F.relu(F.conv2d(x["x"], net["conv.weight"], net["conv.bias"]))
        prediction = F.linear(maps.mean((2, 3)), net["fc.weight"], net["fc.bias"]) * net["scale"]
        loss = 100 * (prediction - x["target"]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        states[step] = {name: p.detach().clone() for name, p in net.items()}
    return states, torch.stack(losses)


def follows(states: dict[int, dict[str, Tensor]], run: str) -> None:
    spec = fill.load("ranger")
    for step in (1, 5, 6, 12, 30):
        for name, value in states[step].items():
            assert_published(spec, f"{run}.step{step}.{name}", value, 1e-5)


@pytest.mark.parametrize(("run", "lr"), [("lr1e-3", 1e-3), ("lr1e-4", 1e-4)])
def test_ranger_follows_the_published_trajectory(run: str, lr: float) -> None:
    states, losses = trajectory(lambda parameters: Ranger(parameters, lr=lr))
    follows(states, run)
    assert_published("ranger", f"{run}.losses", losses, 1e-5)


@pytest.mark.parametrize(
    ("run", "settings"), [("lr1e-3_gc_conv_only", {"gc_conv_only": True}), ("lr1e-3_wd", {"weight_decay": 0.05})]
)
def test_the_library_agrees_on_its_other_settings(run: str, settings: dict[str, float]) -> None:
    states, _ = trajectory(
        lambda parameters: pytorch_optimizer.Ranger(parameters, lr=1e-3, degenerated_to_sgd=True, **settings)
    )
    follows(states, run)


@pytest.mark.parametrize("lr", [1e-3, 1e-4])
def test_the_library_defaults_would_climb_for_five_steps(lr: float) -> None:
    """Why `degenerated_to_sgd` is set: without it the first steps are the published ones with the sign turned."""
    start = fill.state_dict("ranger", "net")
    states, losses = trajectory(lambda parameters: pytorch_optimizer.Ranger(parameters, lr=lr), steps=6)
    published, _ = trajectory(lambda parameters: Ranger(parameters, lr=lr), steps=1)
    for name, value in states[1].items():
        assert_close_l2(value - start[name], start[name] - published[1][name], 1e-4)
    assert (losses.diff() > 0).all()


def moved(make: Make, wait: int, steps: int) -> float:
    """How far a parameter goes in its first steps, when another has already taken some; gradients are always 1."""
    early, late = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = make([early, late])
    for step in range(wait + steps):
        early.grad = torch.ones(1)
        late.grad = torch.ones(1) if step >= wait else None
        optimizer.step()
    return -late.item()


def test_a_parameter_that_comes_in_late_has_its_own_warm_up() -> None:
    assert moved(lambda p: Ranger(p, lr=1e-3), 1000, 60) == moved(lambda p: Ranger(p, lr=1e-3), 0, 60)
    with_one_counter = moved(lambda p: pytorch_optimizer.Ranger(p, lr=1e-3, degenerated_to_sgd=True), 1000, 60)
    assert with_one_counter > 10 * moved(lambda p: Ranger(p, lr=1e-3), 1000, 60)


def test_the_first_rectified_step_has_the_size_that_the_formula_says() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = Ranger([parameter], lr=1e-3)
    for _ in range(5):
        parameter.grad = torch.ones(1)
        optimizer.step()
    assert parameter.item() == pytest.approx(-5e-3)  # un-adapted momentum: one learning rate per unit gradient
    parameter.grad = torch.ones(1)
    optimizer.step()
    decay, longest = 0.999**6, 2 / (1 - 0.999) - 1
    length = longest - 12 * decay / (1 - decay)
    rectification = (length - 4) / (longest - 4) * (length - 2) / length * longest / (longest - 2)
    fast = -5e-3 - 1e-3 * math.sqrt(rectification) / (1 + 1e-5 / math.sqrt(1 - decay))
    assert parameter.item() == pytest.approx(fast / 2, rel=1e-4)  # the sixth step ends half way back to the start


def test_a_closure_is_called_first_and_its_loss_returned() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = Ranger([parameter], lr=0.5)

    def closure() -> Tensor:
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2
    assert torch.allclose(parameter, torch.zeros(2), atol=1e-6)


def test_resuming_equals_never_stopping_bit_for_bit() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 8), nn.PReLU(), nn.Linear(8, 2))
    x = torch.randn(16, 4)

    def advance(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()

    optimizer = Ranger(net.parameters())
    advance(net, optimizer, 10)
    resumed = copy.deepcopy(net)
    again = Ranger(resumed.parameters())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    advance(net, optimizer, 10)
    advance(resumed, again, 10)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), resumed.parameters(), strict=True))
