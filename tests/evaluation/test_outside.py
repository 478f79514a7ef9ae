"""Images outside the domain: the error of their inversion against that of the mean image on the generator's samples."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

import lsap
from commands import Command
from image_files import stripes
from lsap.demo.weights import load_generator, load_perceptual_judge
from lsap.evaluation.outside import RATIO, SAMPLES, error_ratio, errors, outside, reference_errors

QUICK = ["steps=30", "space.samples=500"]


def test_errors_are_those_of_every_image() -> None:
    output = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    found = errors(output, torch.zeros(2, 3, 4, 4), lambda a, b: (a - b).flatten(1).amax(1))
    assert found["mse"].tolist() == [0, 1]
    assert found["lpips"].tolist() == [0, 1]
    assert list(errors(output, output, None)) == ["mse"]


def test_the_reference_is_the_mean_images_error_on_samples() -> None:
    generator, distance = load_generator(), load_perceptual_judge()
    found = reference_errors(generator, lambda images: images, distance)
    with torch.no_grad():
        samples = generator(generator.sample_w(SAMPLES, torch.Generator().manual_seed(0)))
        mean = generator(generator.latent_avg[None]).expand_as(samples)
        assert found["mse"] == pytest.approx((samples - mean).square().mean().item(), rel=1e-4)
        assert found["lpips"] == pytest.approx(distance(mean, samples).mean().item(), rel=1e-4)
    assert list(reference_errors(generator, lambda images: images, None)) == ["mse"]


def test_the_ratio_is_the_mean_over_what_was_measured() -> None:
    reference = {"mse": 0.1, "lpips": 2.0}
    assert error_ratio({"mse": 0.05, "lpips": 2.0}, reference) == pytest.approx(0.75)
    assert error_ratio({"mse": 0.05, "lpips": None}, reference) == pytest.approx(0.5)
    assert error_ratio({"mse": 0.05}, {"mse": 0.1}) == pytest.approx(0.5)
    assert error_ratio({}, reference) == 0


def test_one_line_names_the_farthest_images() -> None:
    reference = {"mse": 1.0}
    rows = {f"{name}.png": {"mse": RATIO + 0.1 * place} for place, name in enumerate("abcde")}
    line = outside(rows, reference, "car")
    assert line == (
        "4 of 5 images are probably outside domain=car: the errors of their inversions are near or above that of the "
        "mean image (error ratios: e.png 1.00, d.png 0.90, c.png 0.80, …)"
    )
    assert outside({"a.png": {"mse": RATIO}}, reference, "car") is None
    assert outside({}, reference, "car") is None


def test_python_warns_of_a_picture_outside_the_domain(tmp_path: Path) -> None:
    inverter = lsap.load("demo", *QUICK, embedding="lsap_o_wplus")
    with pytest.warns(
        UserWarning, match=r"stripes\.png: the error of its inversion is near or above .* outside domain=demo"
    ):
        inverter.embed(stripes(tmp_path / "stripes.png"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inverter.embed(tmp_path / "stripes.png", warn=False)
        inverter.embed(inverter.images(count=2, split="plain"))


def test_the_command_warns_of_a_picture_outside_the_domain(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    stripes(folder / "stripes.png")
    done = command("invert", "embedding=lsap_o_wplus", f"images={folder}", *QUICK)
    assert done.code == 0
    assert "warning: stripes.png: the error of its inversion is near or above that of the mean image" in done.err
    done = command("invert", "embedding=lsap_o_wplus", "split=plain", "count=2", *QUICK)
    assert "warning" not in done.err
