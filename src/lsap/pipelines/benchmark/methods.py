"""Parts of the benchmark that run whole methods: training by its options, and many images together or one by one.

What embeds, refines and measures runs on the demo, with few steps: what an image costs per step is what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from lsap.config.checks import RANDOM
from lsap.config.compose import composed
from lsap.demo import Portraits
from lsap.embedding import EncoderEmbedding
from lsap.evaluation.metrics import image_metrics, image_values
from lsap.inversion import FixedNoise, Inversion
from lsap.pipelines.benchmark.timing import Comparison, Work, allocated, interleaved, peak_memory
from lsap.pipelines.build import Parts
from lsap.pipelines.fit import take_form
from lsap.pipelines.training import training_module

STEPS = 5  # of what takes hundreds
OPTIONS = {
    "bf16": ["trainer.precision=bf16-mixed"],
    "channels last": ["trainer.channels_last=true"],
    "recompute": ["trainer.recompute=true"],
    "low_memory": ["preset=low_memory"],
}


def training(config: DictConfig, device: torch.device) -> Iterator[Comparison]:
    """A step of LSAP_E's training, every term of the loss and the optimiser included: as published, and by each option.

    The domain is `config.training.domain`; its images are drawn by its generator, so that none are needed.
    """
    counted = device.type == "cuda"  # allocators of a processor keep what they once got
    step, held = training_step(config, device)
    step()  # the optimiser takes its memory
    needed = peak_memory(step, device) if counted else 0.0
    for name, options in OPTIONS.items():
        other, _ = training_step(config, device, *options)
        other()
        memory = {"plain": needed, name: peak_memory(other, device)} if counted else {}
        seconds = interleaved({"plain": step, name: other}, config.repetitions, device)
        speed = {form: f"{form} {config.batch_size / taken:.3g}" for form, taken in seconds.items()}
        note = f"images/s: {', '.join(speed.values())}" + (f"; held all the time: {held:.0f} MB" if counted else "")
        what = f"training step, {config.training.domain}, {config.batch_size} images"
        yield Comparison("training", what, seconds, memory, note)
        del other


def training_step(config: DictConfig, device: torch.device, *options: str) -> tuple[Work, float]:
    """One step of the optimiser on `config.batch_size` images, and the MB that weights and judges hold on a GPU."""
    before = allocated(device)
    fixed = [f"domain={config.training.domain}", f"weights='{config.weights}'", "backbone.checkpoint=random"]
    settings = composed("train", [*fixed, f"batch_size={config.batch_size}", *options])
    parts = Parts(settings, device)
    module = training_module(settings, parts).to(device)
    take_form(module, settings.trainer)
    optimizer = module.configure_optimizers()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        codes = parts.generator.sample_w(config.batch_size, rng)[:, None].expand(-1, parts.generator.n_latent, -1)
        images = torch.cat([parts.view(parts.generator(code)) for code in codes.split(1)])
    passes = settings.trainer.accumulate_grad_batches
    last, half = parts.generator.n_latent - 1, settings.trainer.precision == "bf16-mixed"

    def step() -> None:
        optimizer.zero_grad()
        for some in images.chunk(passes):
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                inputs = module.reconstruct(some, stage=last, noise="random")
                loss = torch.stack(list(module.objective(inputs).values())).sum() / passes
            loss.backward()
        optimizer.step()

    return step, allocated(device) - before


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
    """MSE, LPIPS and identity of pairs by the demo's metric networks."""
    judges = composed("evaluate", ["domain=demo"]).judges
    metrics = image_metrics(instantiate(judges.distance).to(device), instantiate(judges.embedder).to(device))

    @torch.no_grad()
    def work(images: Tensor, names: list[str]) -> object:
        return image_values(metrics, images.flip(3), images)

    yield _together("evaluation", "MSE, LPIPS, identity", work, config, device)


def _parts(device: torch.device, *overrides: str) -> Parts:
    return Parts(composed("invert", ["domain=demo", *overrides]), device)


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
