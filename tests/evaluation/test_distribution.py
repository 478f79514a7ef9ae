"""Fréchet distance: its formula, its independence of batches, and Inception weights that are read and never fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from comparison import assert_close_l2
from lsap.demo.quality import frechet
from lsap.errors import BadValue, MissingFile
from lsap.evaluation.distribution import Inception, frechet_distance


class Colours(nn.Module):
    """Features that are means of channels, and of their squares."""

    num_features = 6

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images.mean((2, 3)), images.square().mean((2, 3))], 1)


def test_the_distance_is_that_of_the_formula_and_of_no_batch() -> None:
    real, fake = torch.rand(40, 3, 6, 6), 0.8 * torch.rand(40, 3, 6, 6)
    values = []
    for size in (40, 7):
        metric = frechet_distance(Colours())
        for part in real.split(size):
            metric.update(part, real=True)
        for part in fake.split(size):
            metric.update(part, real=False)
        values.append(metric.compute().item())
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert values[0] == pytest.approx(frechet(Colours()(real), Colours()(fake)), rel=1e-3)
    metric.reset()
    metric.update(real, real=False)
    assert metric.compute().item() == pytest.approx(0.0, abs=1e-6), "the photographs are still there"


def test_weights_are_a_file_and_are_never_fetched(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="inception=nowhere"):
        Inception("nowhere.pth")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(BadValue, match=r"other\.pth holds other weights"):
        Inception(tmp_path / "other.pth")


@pytest.mark.slow
def test_inception_of_a_file_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity import feature_extractor_inceptionv3 as published

    with monkeypatch.context() as patch:
        patch.setattr(published, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(published.FeatureExtractorInceptionV3, "load_state_dict", lambda *_, **__: None)
        random = published.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    torch.save(random.state_dict(), tmp_path / "inception.pth")
    features = Inception(tmp_path / "inception.pth")
    images = torch.rand(3, 3, 32, 32)
    found = features(images)
    assert found.shape == (3, 2048)
    pixels = ((images + 1) * 127.5).round().byte()
    assert_close_l2(found, random(pixels)[0], 1e-5)
