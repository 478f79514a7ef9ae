"""Parts of the benchmark that run whole methods: many images together, as lsap does, against one after the other.

All of them run on the demo, with few steps: what an image costs per step is what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from lsap.assembly import RANDOM
from lsap.cli import composed
from lsap.demo import Portraits
from lsap.embedding import EncoderEmbedding
from lsap.evaluation.fidelity import LPIPS, MSE, Identity, ImageMean
from lsap.inversion import FixedNoise, Inversion
from lsap.refining import RefinementParts
from lsap.timing import Comparison, interleaved

STEPS = 5  # of what takes hundreds


def inversion(config: DictConfig, device: torch.device) -> Iterator[Comparison]:
    """An encoder of the demo, untrained: codes and renderings."""
    parts = _parts(device)
    parts.config.backbone.checkpoint = RANDOM
    embedding = EncoderEmbedding(parts.encoder(), parts.generator, parts.fingerprint, "lsap_e").to(device)

    def work(images: Tensor, names: list[str]) -> object:
        made = embedding.embed(images, names).inversion
        return None if made is None else made.render()

    yield _together("inversion", "inversion by an encoder", work, config, device)


def optimisation(config: DictConfig, device: torch.device) -> Iterator[Comparison]:
    """Steps of LSAP_O in W+."""
    parts = _parts(device, "embedding=lsap_o_wplus", f"steps={STEPS}")
    yield _together("optimisation", f"LSAP_O in W+, {STEPS} steps", parts.embedding().embed, config, device)


def refinement(config: DictConfig, device: torch.device) -> Iterator[Comparison]:
    """Steps of PTI from the mean latent."""
    parts = _parts(device, "refinement=pti", f"refinement.steps={STEPS}")
    method = parts.refinement()

    def work(images: Tensor, names: list[str]) -> object:
        codes = parts.generator.latent_avg.expand(len(images), parts.generator.n_latent, -1).clone()
        plain = Inversion(tuple(names), codes, parts.fingerprint, FixedNoise(parts.generator))
        return method.refine(plain, images)

    yield _together("refinement", f"PTI, {STEPS} steps", work, config, device)


def evaluation(config: DictConfig, device: torch.device) -> Iterator[Comparison]:
    """MSE, LPIPS and identity of pairs by the demo's judges of measurements."""
    judges = composed("evaluate", ["domain=demo"]).judges
    metrics: list[ImageMean] = [
        MSE(), LPIPS(instantiate(judges.distance).to(device)), Identity(instantiate(judges.embedder).to(device)),
    ]  # fmt: skip

    @torch.no_grad()
    def work(images: Tensor, names: list[str]) -> object:
        return [metric.to(device).each(images.flip(3), images) for metric in metrics]

    yield _together("evaluation", "MSE, LPIPS, identity", work, config, device)


def _parts(device: torch.device, *overrides: str) -> RefinementParts:
    return RefinementParts(composed("invert", ["domain=demo", *overrides]), device)


def _together(
    part: str, what: str, work: Callable[[Tensor, list[str]], object], config: DictConfig, device: torch.device
) -> Comparison:
    """A method on a batch against the same images one by one."""
    count = config.together
    images = Portraits("rich", "bench", count).read(range(count)).to(device)
    names = [f"{number}" for number in range(count)]

    def one_by_one() -> None:
        for number, name in enumerate(names):
            work(images[number : number + 1], [name])

    forms = {"together": lambda: work(images, names), "one by one": one_by_one}
    seconds = interleaved(forms, config.repetitions, device)
    return Comparison(part, f"{what}, {count} images", seconds)
