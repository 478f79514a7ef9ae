"""Order, flips, sharing and splitting of images: functions of seed and batch counter alone."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from lsap.data.order import Draw, TrainingBatches, TrainingOrder, evaluation_batches, held_out
from lsap.errors import BadValue

IMAGES = [3, 5, 8, 13, 21, 34, 55]  # seven: no batch size below divides them


def take(order: TrainingOrder, count: int, start: int = 0, rank: int = 0, world_size: int = 1) -> list[list[Draw]]:
    return list(islice(TrainingBatches(order, lambda: start, rank, world_size), count))


def images(batches: list[list[Draw]]) -> list[int]:
    return [draw.image for batch in batches for draw in batch]


def test_every_epoch_shows_each_image_once_though_batches_straddle_epochs() -> None:
    shown = images(take(TrainingOrder(IMAGES, batch_size=4, seed=1), count=14))  # 56 places: eight epochs
    epochs = [shown[i : i + 7] for i in range(0, 56, 7)]
    assert all(sorted(epoch) == IMAGES for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1, "every epoch has the same order"


def test_a_batch_larger_than_the_set_goes_on_with_the_next_epoch() -> None:
    (batch,) = take(TrainingOrder(IMAGES, batch_size=16, seed=1), count=1)
    assert sorted(images([batch[:7]])) == sorted(images([batch[7:14]])) == IMAGES


@pytest.mark.parametrize("start", [1, 2, 9])
def test_starting_at_a_batch_continues_the_unbroken_sequence(start: int) -> None:
    order = TrainingOrder(IMAGES, batch_size=4, seed=1)
    assert take(order, count=5, start=start) == take(order, count=start + 5)[start:]


def test_the_start_is_asked_for_at_every_iteration() -> None:
    seen = 0
    batches = TrainingBatches(TrainingOrder(IMAGES, batch_size=2, seed=1), lambda: seen)
    first = next(iter(batches))
    seen = 3
    assert first[0].batch == 0
    assert next(iter(batches))[0].batch == 3


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_processes_share_the_batches_of_a_single_one(world_size: int) -> None:
    order = TrainingOrder(IMAGES, batch_size=6, seed=1)
    shares = [take(order, 10, rank=rank, world_size=world_size) for rank in range(world_size)]
    together = [[draw for share in shares for draw in share[i]] for i in range(10)]
    assert together == take(order, 10)


def test_seeds_give_other_orders_and_other_flips() -> None:
    one, other = (take(TrainingOrder(range(100), batch_size=100, seed=seed), count=1)[0] for seed in (1, 2))
    assert [d.image for d in one] != [d.image for d in other]
    assert [d.flip for d in one] != [d.flip for d in other]


def test_half_of_all_images_are_mirrored_and_none_where_flips_are_off() -> None:
    flips = [d.flip for batch in take(TrainingOrder(IMAGES, batch_size=50, seed=1), 40) for d in batch]
    assert abs(sum(flips) / 2000 - 0.5) < 4 * 0.5 / 2000**0.5  # four standard deviations of 2000 fair coins
    assert not any(d.flip for batch in take(TrainingOrder(IMAGES, 50, seed=1, flip=False), 40) for d in batch)


def test_order_and_flips_do_not_touch_the_global_random_state() -> None:
    before = torch.get_rng_state()
    take(TrainingOrder(range(1000), batch_size=7, seed=99), count=3)
    held_out(1000, None, seed=99)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_replacement_is_the_same_slot_of_the_next_batch_with_the_first_flip() -> None:
    order = TrainingOrder(range(100), batch_size=10, seed=1)
    first, second = take(order, count=2)
    later = [order.later(draw) for draw in first]
    assert [draw.image for draw in later] == [draw.image for draw in second]
    assert [draw.flip for draw in later] == [draw.flip for draw in first]


def test_a_batch_that_cannot_be_shared_equally_is_refused() -> None:
    with pytest.raises(BadValue, match=r"batch_size=8 cannot be shared equally by 3 processes.*multiple of 3"):
        TrainingBatches(TrainingOrder(IMAGES, batch_size=8, seed=1), world_size=3)


@pytest.mark.parametrize(
    ("total", "batch_size", "world_size"),
    [(10, 4, 1), (10, 4, 2), (11, 4, 3), (5, 1, 2), (2, 8, 2), (7, 7, 1), (1, 8, 1), (100, 16, 3)],
)
def test_evaluation_shows_each_image_once_in_equally_many_batches(total: int, batch_size: int, world_size: int) -> None:
    indices = list(range(100, 100 + total))
    plans = [evaluation_batches(indices, batch_size, rank, world_size) for rank in range(world_size)]
    assert sorted(index for plan in plans for batch in plan for index in batch) == indices
    assert len({len(plan) for plan in plans}) == 1
    sizes = [len(batch) for plan in plans for batch in plan]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(batch_size, 2 if world_size > 1 else 1)


def test_one_process_evaluates_in_the_order_of_the_images() -> None:
    assert evaluation_batches([4, 5, 6, 7, 8], 2) == [[4], [5, 6], [7, 8]]


def test_fewer_images_than_processes_cannot_be_evaluated() -> None:
    with pytest.raises(BadValue, match="1 images cannot be shared by 2 processes"):
        evaluation_batches([0], 4, 0, 2)


def test_held_out_images_are_never_trained_on() -> None:
    train, val = held_out(200, 30, seed=4)
    assert len(val) == 30
    assert sorted(train + val) == list(range(200))
    assert train == sorted(train)
    assert val == sorted(val)
    assert val != list(range(30)), "the slice is a stretch of the folder, not a sample of it"


def test_a_larger_slice_contains_the_smaller_and_the_seed_decides() -> None:
    assert set(held_out(200, 10, seed=4)[1]) < set(held_out(200, 30, seed=4)[1])
    assert held_out(200, 30, seed=4)[1] != held_out(200, 30, seed=5)[1]


@pytest.mark.parametrize(("size", "held"), [(2, 1), (7, 1), (200, 10), (20_000, 1000), (100_000, 1000)])
def test_by_default_a_twentieth_is_held_out_but_at_most_a_thousand(size: int, held: int) -> None:
    assert len(held_out(size, None, seed=0)[1]) == held


@pytest.mark.parametrize(
    ("size", "val_images", "message"),
    [
        (10, 10, "val_images=10 leaves none of 10 images to train on; take at most 9"),
        (10, 11, "val_images=11 leaves none"),
        (1, None, "1 training images: at least 2 are needed"),
        (0, 0, "0 training images"),
    ],
)
def test_a_split_that_leaves_nothing_to_train_on_is_refused(size: int, val_images: int | None, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        held_out(size, val_images, seed=0)
