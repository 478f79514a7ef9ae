"""The normalised style space and its mean: properties, cache, memory, and parity with the released code."""

from __future__ import annotations

import copy
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from comparison import assert_close_l2, assert_published
from golden import fill
from lsap.alignment import NormalizedStyleSpace, normalize, nscd, style_layers
from lsap.checkpoints import fingerprint, read_card, rosinality, write_state
from lsap.errors import BadValue
from lsap.stylegan2 import PUBLISHED_CHANNELS, Generator, freeze, styled_layers


@pytest.fixture
def generator() -> Generator:
    return freeze(Generator(32, 12, 2, {4: 16, 8: 16, 16: 12, 32: 8}, mapping_lr=1.0))


def own_codes(generator: Generator, samples: int, seed: int) -> Tensor:
    z = torch.randn(samples, generator.style_dim, generator=torch.Generator().manual_seed(seed))
    return generator.mapping(z)


# --- layers and normalisation


def test_published_layers_are_one_per_row_and_end_in_torgb(generator: Generator) -> None:
    names = style_layers(generator)
    assert names == ("conv4", "up8", "conv8", "up16", "conv16", "up32", "conv32", "rgb32")
    rows = {layer.name: layer.row for layer in generator.layers}
    assert [rows[name] for name in names] == list(range(generator.n_latent))
    assert style_layers(generator, "convolutions") == names[:-1]
    with pytest.raises(BadValue, match="layers='all'; accepted: 'published', 'convolutions'"):
        style_layers(generator, "all")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [256, 512, 1024])
def test_published_widths(size: int) -> None:
    layers = styled_layers(size, PUBLISHED_CHANNELS)
    widths = [layer.width for layer in layers if layer.demodulates or layer is layers[-1]]
    assert widths == fill.load("style_space")["layer_dims"][str(size)]


def test_every_normalised_style_has_unit_length_and_the_same_direction(generator: Generator) -> None:
    styles = generator.styles(torch.randn(5, generator.n_latent, 12))
    unit = normalize(styles)
    assert list(unit) == list(styles)
    for name, style in styles.items():
        assert_close_l2(unit[name].norm(dim=1), torch.ones(5), 1e-6)
        assert_close_l2(unit[name] * style.norm(dim=1, keepdim=True), style, 1e-6)
    assert all(torch.equal(a, b) for a, b in zip(normalize(list(styles.values())), unit.values(), strict=True))


# --- the mean


def test_mean_is_that_of_unit_styles_and_is_not_normalised_again(generator: Generator) -> None:
    space = NormalizedStyleSpace(generator, samples=300, seed=4)
    units = normalize(space.styles(own_codes(generator, 300, seed=4)))
    for mean, unit, norm in zip(space.mean, units, space.norms, strict=True):
        assert_close_l2(mean, unit.double().mean(0).float(), 1e-6)
        assert 0 < norm < 0.999
        assert mean.norm().item() == pytest.approx(norm)


def test_mean_style_does_not_depend_on_chunk_size(generator: Generator) -> None:
    means = [NormalizedStyleSpace(generator, samples=5000, chunk=chunk).mean for chunk in (100, 512, 5000)]
    for other in means[1:]:
        for a, b in zip(means[0], other, strict=True):
            assert_close_l2(a, b, 1e-5)


def test_more_samples_extend_the_same_stream_and_seeds_differ(generator: Generator) -> None:
    few, many, other = (
        NormalizedStyleSpace(generator, samples=n, seed=s).mean[0] for n, s in ((2000, 0), (20_000, 0), (20_000, 1))
    )
    assert 0 < (many - other).norm() < (few - many).norm() < 0.05


def test_synthetic_is_the_score_of_the_generators_own_samples(generator: Generator) -> None:
    for layers in ("published", "convolutions"):
        space = NormalizedStyleSpace(generator, samples=400, seed=2, layers=layers)  # type: ignore[arg-type]
        styles = space.styles(own_codes(generator, 400, seed=2))
        for anchor in ("unit", "raw"):
            direct = nscd(styles, space.mean, anchor=anchor).double().mean().item()  # type: ignore[arg-type]
            assert space.synthetic[anchor] == pytest.approx(direct, abs=1e-6)
        assert space.synthetic["unit"] == pytest.approx(sum(1 - n for n in space.norms) / len(space.norms))
        assert space.synthetic["raw"] == pytest.approx(sum(1 - n**2 for n in space.norms) / len(space.norms))


def test_truncated_codes_score_below_synthetic_and_foreign_codes_above(generator: Generator) -> None:
    space = NormalizedStyleSpace(generator, samples=4000)
    generator.latent_avg.copy_(own_codes(generator, 4000, seed=0).mean(0))
    w = own_codes(generator, 500, seed=9)
    truncated = nscd(space.styles(generator.truncate(w, 0.5)), space.mean).mean().item()
    foreign = nscd(space.styles(6 * torch.randn(500, generator.n_latent, 12)), space.mean).mean().item()
    assert truncated < space.synthetic["unit"] < foreign


def test_styles_carry_gradients_to_codes(generator: Generator) -> None:
    space = NormalizedStyleSpace(generator, samples=100)
    codes = torch.randn(2, generator.n_latent, 12, requires_grad=True)
    nscd(space.styles(codes)[:3], space.mean[:3], reduction="sum", anchor="raw").mean().backward()
    assert codes.grad is not None
    moved = codes.grad.abs().sum((0, 2)) > 0
    assert moved.tolist() == [True] * 3 + [False] * 5  # rows 0..stage


def test_bad_settings_are_refused(generator: Generator) -> None:
    for samples in (0, "many", True):
        with pytest.raises(BadValue, match=f"space.samples={samples}: expected a whole number of at least 1"):
            NormalizedStyleSpace(generator, samples=samples)  # type: ignore[arg-type]


# --- the cache


def test_cached_mean_is_reused_for_the_same_generator_only(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = NormalizedStyleSpace(generator, samples=200, cache=tmp_path)
    measured: list[str] = []
    measure = NormalizedStyleSpace._measure
    monkeypatch.setattr(
        NormalizedStyleSpace, "_measure", lambda s, c: measured.append(fingerprint(s.generator)) or measure(s, c)
    )
    again = NormalizedStyleSpace(copy.deepcopy(generator), samples=200, cache=tmp_path)
    assert measured == []
    assert all(torch.equal(a, b) for a, b in zip(first.mean, again.mean, strict=True))
    changed = copy.deepcopy(generator)
    changed.state_dict()["blocks.conv8.affine.bias"][0] += 1
    other = NormalizedStyleSpace(changed, samples=200, cache=tmp_path)
    assert measured == [fingerprint(changed)]
    assert not torch.equal(other.mean[2], first.mean[2])
    NormalizedStyleSpace(generator, samples=201, cache=tmp_path)
    NormalizedStyleSpace(generator, samples=200, seed=1, cache=tmp_path)
    NormalizedStyleSpace(generator, samples=200, layers="convolutions", cache=tmp_path)
    assert len(measured) == 4
    assert len(list(tmp_path.iterdir())) == 5


def test_a_cached_mean_of_another_generator_or_a_damaged_one_is_measured_again(
    generator: Generator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = NormalizedStyleSpace(generator, samples=200, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    foreign = {**read_card(path), "generator": "0" * 64}
    write_state(path, {name: torch.zeros_like(m) for name, m in zip(first.names, first.mean, strict=True)}, foreign)
    for damage in (b"", path.read_bytes(), path.read_bytes()[:100]):
        path.write_bytes(damage)
        with caplog.at_level(logging.WARNING):
            again = NormalizedStyleSpace(generator, samples=200, cache=tmp_path)
        assert "the mean style is measured again" in caplog.text
        caplog.clear()
        assert all(torch.equal(a, b) for a, b in zip(first.mean, again.mean, strict=True))
    NormalizedStyleSpace(generator, samples=200, cache=tmp_path)
    assert caplog.text == ""


def test_a_cache_that_cannot_be_written_costs_a_warning_not_the_run(
    generator: Generator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        space = NormalizedStyleSpace(generator, samples=200, cache=tmp_path / "file" / "cache")
    assert "the mean style is not kept" in caplog.text
    assert str(tmp_path / "file") in caplog.text
    assert space.norms == NormalizedStyleSpace(generator, samples=200).norms


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the peak memory from Linux's /proc")
def test_measuring_at_full_size_takes_less_than_500_megabytes() -> None:
    # not ru_maxrss: a child process inherits that from the one that started it
    code = """
import re
from pathlib import Path
from lsap.alignment import NormalizedStyleSpace
from lsap.stylegan2 import Generator, freeze

def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

generator = freeze(Generator(1024))
before = kilobytes("VmRSS")
NormalizedStyleSpace(generator, samples=10_000)
print((kilobytes("VmHWM") - before) / 1024)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 10 < float(result.stdout) < 500


# --- parity


def test_style_space_parity_of_styles_anchors_and_alignment_loss() -> None:
    spec = fill.load("style_space")
    x = fill.inputs(spec)
    tensors = spec["models"]["generator"]["tensors"]
    for name in [n for n in tensors if n.endswith("conv.weight") or "noise" in n]:
        del tensors[name]  # what only images need takes long to fill
    generator = Generator(256)
    generator.load_state_dict(rosinality.rename(fill.state_dict(spec, "generator")), strict=False)
    space = NormalizedStyleSpace(freeze(generator), samples=1)
    styles = space.styles(x["w_plus"])
    assert_published(spec, "style_w_plus", torch.cat(styles, 1), 1e-5)
    samples = space.styles(generator.mapping(x["z"]))
    assert_published(spec, "style_samples", torch.cat(samples, 1), 1e-5)
    mean = [unit.mean(0) for unit in normalize(samples)]
    assert_published(spec, "anchors", torch.cat(mean), 1e-5)
    assert_published(spec, "anchor_norms", torch.stack([m.norm() for m in mean]), 1e-5)
    assert_published(spec, "similarity", 1 - nscd(styles, mean, reduction="none", anchor="raw"), 1e-4)
    assert_published(spec, "cosine", 1 - nscd(styles, mean, reduction="none", anchor="unit"), 1e-4)
    for stage in (0, 5, 13):
        codes = x["w_plus"].clone().requires_grad_()
        active = slice(0, stage + 1)
        loss = nscd(space.styles(codes)[active], mean[active], reduction="sum", anchor="raw").mean()
        published = loss - (stage + 1)  # the released code leaves out the "1 -"
        assert_published(spec, f"sncd_stage{stage}", published, 1e-4)
        delta = sum((codes[:, i] - codes[:, 0]).norm(dim=1).mean() for i in range(1, stage + 1))
        (0.5 * published + 2e-4 * delta).backward()
        assert_published(spec, f"grad_stage{stage}", codes.grad, 1e-4)
