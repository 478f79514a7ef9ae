"""What the demo's generator is worth: its samples against renders, through eyes that had no part in its training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lsap.demo import factors, portraits
from lsap.demo.networks import FactorReader
from lsap.stylegan2 import Noise, StyleGenerator

NEIGHBOURS = 3  # k of precision and recall, as published


@dataclass(frozen=True)
class Seen:
    """What the reader sees in N pictures: factors [N, F], features [N, D], and their mean fine energy."""

    factors: Tensor
    features: Tensor
    fine: float


@torch.no_grad()
def measure(
    generator: StyleGenerator, reader: FactorReader, count: int = 5000, seed: int = 0, noise: Noise = "none"
) -> dict[str, float]:
    """Compare samples of a generator with renders.

    Beside every figure stands that of two halves of the renders, which no generator can beat.

    Args:
        generator: on any device.
        reader: on the same device.
        count: samples, and renders in each half.
        seed: of codes and renders.
        noise: as `StyleGenerator.synthesis` takes it.

    Returns:
        `ks_<factor>`, `ks_mean`, `ks_max`: Kolmogorov–Smirnov distances of factors read, in [0, 1];
        `precision`, `recall` (k = 3, arXiv:1904.06991) and `frechet` in the reader's features; `fine_energy_ratio`,
        spectral energy above half the Nyquist frequency over that of renders; the same with `real_` in front for the
        two halves; `psnr_db` of samples against the portraits of their factors.
    """
    device = generator.latent_avg.device
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(count, generator.style_dim, generator=rng)
    samples, errors = [], []
    for part in z.split(250):
        output = generator(generator.mapping(part.to(device)), noise=noise)
        errors.append((output.cpu() - portraits.render(factors.from_z(part))).square().mean((1, 2, 3)))
        samples.append(output)
    sampled = look(samples, reader)
    halves = [
        look([part.to(device) for part in portraits.render(truth).split(250)], reader)
        for truth in (factors.draw(seed, f"quality {half}", range(count)) for half in (0, 1))
    ]
    ks = distances(sampled.factors, halves[0].factors)
    real_ks = distances(halves[1].factors, halves[0].factors)
    precision, recall = precision_recall(halves[0].features, sampled.features)
    real_precision, real_recall = precision_recall(halves[0].features, halves[1].features)
    return {
        "psnr_db": (10 * torch.log10(4 / torch.cat(errors).mean())).item(),
        "ks_mean": ks.mean().item(),
        "ks_max": ks.max().item(),
        "real_ks_max": real_ks.max().item(),
        "precision": precision,
        "recall": recall,
        "real_precision": real_precision,
        "real_recall": real_recall,
        "frechet": frechet(halves[0].features, sampled.features),
        "real_frechet": frechet(halves[0].features, halves[1].features),
        "fine_energy_ratio": sampled.fine / halves[0].fine,
    } | {f"ks_{name}": value for name, value in zip(factors.NAMES, ks.tolist(), strict=True)}


@torch.no_grad()
def look(batches: list[Tensor], reader: FactorReader) -> Seen:
    """What the reader sees in batches of pictures [N, 3, 64, 64]."""
    described = [reader.describe(batch) for batch in batches]
    energy = torch.stack([fine_energy(batch) for batch in batches]).mean().item()
    return Seen(torch.cat([reader.head(d) for d in described]).cpu(), torch.cat(described).cpu(), energy)


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Kolmogorov–Smirnov distance of every column of [N, F] and [M, F]: the largest gap between their distributions."""
    found = []
    for a, b in zip(first.T.contiguous(), second.T.contiguous(), strict=True):
        places = torch.cat([a, b]).sort().values
        gaps = [torch.searchsorted(x.sort().values, places, right=True) / len(x) for x in (a, b)]
        found.append((gaps[0] - gaps[1]).abs().max())
    return torch.stack(found)


def precision_recall(real: Tensor, sampled: Tensor) -> tuple[float, float]:
    """Share of samples among the renders' neighbourhoods, and of renders among the samples' [N, D] each."""
    return _covered(sampled, real), _covered(real, sampled)


def _covered(points: Tensor, centres: Tensor) -> float:
    """Share of points that lie within some centre's distance to its k-th neighbour."""
    reach = torch.cat(
        [torch.cdist(part, centres).kthvalue(NEIGHBOURS + 1, 1).values for part in centres.split(1000)]
    )  # its own distance, zero, is the first
    inside = [(torch.cdist(part, centres) <= reach).any(1) for part in points.split(1000)]
    return torch.cat(inside).float().mean().item()


def frechet(first: Tensor, second: Tensor) -> float:
    """Fréchet distance of two clouds [N, D] taken for Gaussians."""
    first, second = first.double(), second.double()
    covariances = [torch.cov(cloud.T) for cloud in (first, second)]
    root = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    apart = (first.mean(0) - second.mean(0)).square().sum()
    return (apart + covariances[0].trace() + covariances[1].trace() - 2 * root).item()


def fine_energy(images: Tensor) -> Tensor:
    """Spectral energy above half the Nyquist frequency, mean over images."""
    spectrum = torch.fft.fft2(images.float()).abs().square()
    frequency = torch.fft.fftfreq(images.shape[-1], device=images.device).abs()
    fine = torch.maximum(frequency[:, None], frequency[None, :]) > 0.25
    return (spectrum * fine).mean()
