"""`python -m lsap.bench`: what the forms that lsap uses gain over others, on this machine. `make bench` runs it.

Absolute times say little about another machine; ratios of forms that took turns within one run say more.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from lsap.alignment import NormalizedStyleSpace, normalize, style_layers
from lsap.demo.weights import load_generator
from lsap.embedding.activation_checkpointing import recompute
from lsap.errors import BadValue, nearest
from lsap.pipelines.benchmark import methods as bench_methods
from lsap.pipelines.benchmark.timing import Comparison, Work, interleaved, peak_memory, synchronize
from lsap.pipelines.devices import device_of
from lsap.runs import manifest, write_json
from lsap.stylegan2 import Generator, freeze, ops


def bench(config: DictConfig) -> Path:
    """Measure the parts asked for, print a row as soon as it is known, and keep all in a JSON file.

    Returns:
        The path of that file.

    Raises:
        BadValue: an unknown part or a count below 1.
    """
    for part in config.parts:
        if part not in PARTS:
            raise BadValue(f"parts={list(config.parts)}: there is no part {part!r}; {nearest(str(part), PARTS)}")
    device = device_of(config.accelerator)
    print(heading(manifest(device)), flush=True)
    rows = []
    for part in config.parts:
        for row in PARTS[part](config, device):
            print(line(row), flush=True)
            rows.append(asdict(row) | {"ratio": row.ratio})
    path = Path(config.save_to)
    write_json(path, {"rows": rows} | manifest(device))
    print(f"\nratio: time of the second form over that of the first, which lsap uses\n{path}")
    return path


# ---- parts


def style_mean(config: DictConfig, device: torch.device) -> Iterator[Comparison]:
    """The mean normalised style, in chunks or all samples at once: memory is the point. Large ones in chunks only."""
    count = config.samples

    def chunked(generator: Generator) -> None:
        NormalizedStyleSpace(generator, samples=count)

    @torch.no_grad()
    def at_once(generator: Generator) -> None:
        styles = generator.styles(generator.sample_w(count), style_layers(generator))
        for unit in normalize(styles).values():
            unit.mean(0)

    small, large = load_generator().to(device), large_generator(config, device)
    forms: dict[str, Work] = {"in chunks": lambda: chunked(small), "at once": lambda: at_once(small)}
    memory = {name: peak_memory(work, device) for name, work in forms.items()}
    what = f"mean of {count} styles, demo {small.size} px"
    yield Comparison("style_mean", what, interleaved(forms, config.repetitions, device), memory)
    start = time.perf_counter()
    peak = peak_memory(lambda: chunked(large), device)
    seconds = {"in chunks": time.perf_counter() - start}
    yield Comparison("style_mean", f"the same, published {large.size} px", seconds, {"in chunks": peak}, "once")


def convolutions(config: DictConfig, device: torch.device) -> Iterator[Comparison]:
    """The two forms of the modulated convolution in a frozen generator, forward and backward to the codes."""
    small, large = load_generator().to(device), large_generator(config, device)
    for generator, batch in ((small, config.batch_size), (large, config.large.batch_size)):
        forms = {
            "shared": inversion_step(deepcopy(generator).use(ops.shared), batch),
            "per sample": inversion_step(deepcopy(generator).use(ops.per_sample), batch),
        }
        what = f"convolutions, {generator.size} px, batch {batch}"
        yield Comparison("convolutions", what, interleaved(forms, config.repetitions, device))


def layout(config: DictConfig, device: torch.device) -> Iterator[Comparison]:
    """Memory layouts of the demo generator's weights and features, forward and backward to the codes."""
    plain = load_generator().to(device)
    turned = deepcopy(plain).to(memory_format=torch.channels_last)
    forms = {
        "contiguous": inversion_step(plain, config.batch_size),
        "channels last": inversion_step(turned, config.batch_size),
    }
    what = f"layout, {plain.size} px, batch {config.batch_size}"
    yield Comparison("layout", what, interleaved(forms, config.repetitions, device))


def recomputation(config: DictConfig, device: torch.device) -> Iterator[Comparison]:
    """A training step's forward and backward with activations kept, and computed again: memory is the point."""
    large = large_generator(config, device)
    lean = recompute(deepcopy(large))
    batch = config.large.batch_size
    forms = {"kept": inversion_step(large, batch), "recomputed": inversion_step(lean, batch)}
    memory = {
        name: peak_memory(work, device) for name, work in reversed(forms.items())
    }  # allocators keep what they got
    what = f"recompute, {large.size} px, batch {batch}"
    yield Comparison("recompute", what, interleaved(forms, config.repetitions, device), memory)


def compilation(config: DictConfig, device: torch.device) -> Iterator[Comparison]:
    """torch.compile of the demo generator, forward and backward to the codes."""
    generator = load_generator().to(device)
    what = f"torch.compile, {generator.size} px, batch {config.batch_size}"
    if device.type == "cpu" and not has_compiler():
        yield Comparison("compile", what, {}, note="skipped: no C++ compiler (g++ or clang++) is installed")
        return
    compiled = inversion_step(torch.compile(deepcopy(generator)), config.batch_size, generator)
    start = time.perf_counter()
    try:
        compiled()
        synchronize(device)
    except Exception as error:  # compilers fail in ways of their own; the rest of the benchmark does not need them
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        yield Comparison("compile", what, {}, note=f"skipped: torch.compile failed ({reason[:100]})")
        return
    first = time.perf_counter() - start
    forms: dict[str, Work] = {"as written": inversion_step(generator, config.batch_size), "compiled": compiled}
    seconds = interleaved(forms, config.repetitions, device)
    yield Comparison("compile", what, seconds, note=f"first call, which compiles: {first:.0f} s")


PARTS: dict[str, Callable[[DictConfig, torch.device], Iterator[Comparison]]] = {
    "style_mean": style_mean,
    "convolutions": convolutions,
    "layout": layout,
    "training": bench_methods.training,
    "recompute": recomputation,
    "compile": compilation,
    "inversion": bench_methods.inversion,
    "optimisation": bench_methods.optimisation,
    "refinement": bench_methods.refinement,
    "evaluation": bench_methods.evaluation,
}


# ---- what is timed, and how


def large_generator(config: DictConfig, device: torch.device) -> Generator:
    """A frozen generator of the published widths with random weights."""
    return freeze(Generator(config.large.size)).to(device)


def inversion_step(draw: Callable[[Tensor], Tensor], batch: int, generator: Generator | None = None) -> Work:
    """Drawing a batch of W+ codes and taking the gradient back to them, as every inversion does.

    Args:
        draw: codes → images; the generator itself or what was made of it.
        batch: codes at once.
        generator: the generator behind `draw`, if that is not it.
    """
    generator = draw if isinstance(draw, Generator) else generator
    assert generator is not None
    rng = torch.Generator().manual_seed(0)
    w = generator.sample_w(batch, rng).detach()
    codes = w[:, None].repeat(1, generator.n_latent, 1).requires_grad_()

    def step() -> None:
        codes.grad = None
        draw(codes).square().mean().backward()

    return step


def has_compiler() -> bool:
    """Whether torch.compile can find a C++ compiler for this processor."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++", "cl") if name)


# ---- what is printed


def heading(machine: Mapping[str, Any]) -> str:
    """The machine and the versions, and the titles of the columns."""
    versions = machine["versions"]
    commit = machine["commit"] or ""
    source = f", commit {commit[:7]}{'+' if commit.endswith('+') else ''}" if commit else ""
    return (
        f"{machine['device']}, threads: {machine['threads']}; {machine['platform']}\n"
        f"lsap {versions['lsap']}{source}, torch {versions['torch']}, Python {versions['python']}\n"
        "some minutes on two free cores\n\n"
        f"{'':42}{'lsap uses':>22}{'instead':>24}{'ratio':>8}"
    )


def line(row: Comparison) -> str:
    """One row of the table, and its memory and note below it."""
    cells = [f"{name} {duration(seconds)}" for name, seconds in row.seconds.items()] + ["", ""]
    text = f"{row.what:42}{cells[0]:>22}{cells[1]:>24}" + (f"{row.ratio:8.2f}" if row.ratio is not None else "")
    memory = ", ".join(f"{name} {megabytes:.0f} MB" for name, megabytes in row.memory_mb.items())
    details = [detail for detail in (f"memory beyond the start: {memory}" if memory else "", row.note) if detail]
    return "\n".join([text.rstrip(), *(f"    {detail}" for detail in details)])


def duration(seconds: float) -> str:
    """Three digits, in the unit that suits."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"
