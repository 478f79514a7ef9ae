"""A generator of another class than lsap's own, with three layers and three rows of W+, in place of StyleGAN2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from commands import Command
from lsap.alignment import NormalizedStyleSpace, nscd
from lsap.checkpoints import fingerprint
from lsap.editing.discovery import Samples
from lsap.editing.discovery.sefa import SeFa
from lsap.embedding import OptimisationInWPlus
from lsap.embedding.optimisation import MeanLatent
from lsap.errors import BadValue
from lsap.losses import L2, Alignment, Objective
from lsap.refinement import consulted_channels
from lsap.runs import Store
from lsap.stylegan2 import StyleGenerator, View, freeze
from stand_in import ThreeLayers


@pytest.fixture
def generator() -> StyleGenerator:
    return freeze(ThreeLayers())


def test_nscd_is_measured_of_its_codes(generator: StyleGenerator) -> None:
    space = NormalizedStyleSpace(generator, samples=2000)
    assert space.names == ("coarse", "fine", "paint")
    own = nscd(space.styles(generator.sample_w(500)), space.mean, anchor="unit")
    assert own.mean().item() == pytest.approx(space.synthetic["unit"], rel=0.05)
    opposite = [-mean[None] for mean in space.mean]
    assert nscd(opposite, space.mean, anchor="unit").item() == pytest.approx(2, abs=1e-5)


def test_its_images_are_inverted_by_optimisation_with_alignment(generator: StyleGenerator) -> None:
    space = NormalizedStyleSpace(generator, samples=2000)
    objective = Objective({"l2": (1.0, L2()), "nscd": (0.01, Alignment(space, reduction="mean"))})
    method = OptimisationInWPlus(
        generator, fingerprint(generator), "lsap_o", view=View(8), objective=objective, layers=space.names,
        start=MeanLatent(generator), steps=60, lambda_noise=1.0,
    )  # fmt: skip
    images = generator(generator.sample_w(2, torch.Generator().manual_seed(1)))
    found = method.predict_step({"image": images, "names": ["a", "b"]}).inversion
    assert found is not None
    assert found.codes.shape == (2, 3, 4)
    before = (generator(generator.latent_avg.expand(2, -1)) - images).square().mean()
    assert (found.render() - images).square().mean() < before / 4


def test_sefa_finds_directions_and_the_rows_that_they_move(generator: StyleGenerator) -> None:
    samples = Samples(generator.sample_w(200), fingerprint(generator))
    first, second = SeFa(layers=[0], count=2).find(generator, samples)
    weights = F.normalize(generator.modulation("coarse").double(), dim=1)
    amplified = [(weights @ each.vector.double()).norm() for each in (first, second)]
    assert amplified[0].item() == pytest.approx(torch.linalg.matrix_norm(weights, 2).item(), rel=1e-5)
    assert amplified[1] < amplified[0]
    assert first.rows == (2,), "the row that layer 0 reads"
    codes = generator.sample_w(1)[:, None].repeat(1, 3, 1)
    moved = first.moved(codes, 1.0) - codes
    assert moved[:, 2].norm().item() == pytest.approx(first.step, rel=1e-5)
    assert not moved[:, :2].any()


def test_what_needs_layers_of_stylegan2_names_them(generator: StyleGenerator) -> None:
    with pytest.raises(BadValue, match="features of up8; the layers of this generator are coarse, fine"):
        consulted_channels(generator)


DOMAIN = """# @package _global_
defaults: [/base/photographs, _self_]
domain: {name: blots, identity_weight: 0, needs: []}
generator: {_target_: stand_in.ThreeLayers}
view: {size: 8}
image_size: [8, 8]
backbone: {checkpoint: random}
"""


def test_commands_take_it_by_its_name_in_yaml(
    command: Command, tmp_path: Path, photographs: Callable[..., Path]
) -> None:
    (tmp_path / "mine" / "domain").mkdir(parents=True)
    (tmp_path / "mine" / "domain" / "blots.yaml").write_text(DOMAIN)
    pictures = photographs(tmp_path / "photographs", 3, (8, 8))
    own = ["--config-dir", "mine", "domain=blots", "space.samples=64"]
    ended = command(
        "invert", *own, f"images={pictures}", "embedding=lsap_o_wplus", "lambda_lpips=0", "lambda_l2=1", "steps=3",
        "trainer.accelerator=cpu", "trainer.devices=1", "save_to=inverted",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert Store.read(tmp_path / "inverted").codes()[1].shape == (3, 3, 4)
    ended = command(
        "discover", *own, "method=sefa", "samples=100", "measured_on=4", "shown=1", "accelerator=cpu", "save_to=found"
    )
    assert ended.code == 0, ended.err
    ended = command(
        "edit", "--config-dir", "mine", "inversions=inverted", "direction=found/sefa_all_0.safetensors",
        "strength=[0,2]", "accelerator=cpu", "save_to=edited",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    still, moved = sorted((tmp_path / "edited/images/sefa_all_0").iterdir(), key=lambda folder: float(folder.name))
    for picture in sorted((tmp_path / "inverted/images").iterdir()):
        assert picture.read_bytes() == (still / picture.name).read_bytes(), "strength 0 is the inversion"
        assert picture.read_bytes() != (moved / picture.name).read_bytes()
