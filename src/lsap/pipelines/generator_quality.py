"""`python -m lsap.laboratory`: what the demo's generator is worth beside the renderer, and sheets to look at."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from lsap.checkpoints import fingerprint
from lsap.demo import FACTORS, Portraits, factors, render
from lsap.demo.quality import measure
from lsap.demo.weights import load_factor_reader, load_generator
from lsap.pipelines.devices import device_of
from lsap.reports.pictures import save, sheet
from lsap.runs import write_json

STEPS = 8  # of a factor's sweep


def laboratory(config: DictConfig) -> dict[str, float]:
    """Measure a generator and draw the sheets.

    Returns:
        What `lsap.demo.quality.measure` measures; also written to `quality.json`, beside samples.png, renders.png,
        sweeps.png, rich.png and far.png.

    Raises:
        BadValue, MissingFile: a count below 1, or a generator that cannot be read.
    """
    device = device_of("auto")
    generator = load_generator(config.checkpoint).to(device)
    folder = Path(config.outputs)
    found = measure(generator, load_factor_reader().to(device), config.count, config.seed)
    write_json(folder / "quality.json", {"generator": fingerprint(generator)[:12], "count": config.count} | found)
    z = torch.randn(64, generator.style_dim, generator=torch.Generator().manual_seed(config.seed))
    with torch.no_grad():
        samples = generator(generator.mapping(z.to(device)), noise="none").cpu()
    sheets = {"samples": samples, "renders": render(factors.from_z(z)), "sweeps": sweeps(config.seed)} | {
        family: Portraits(family, "test", 64, config.seed).read(range(64)) for family in ("rich", "far")
    }
    for name, images in sheets.items():
        save(sheet(images), folder / f"{name}.png")
    for name, value in found.items():
        print(f"{name:26} {value:.4f}")
    print(f"\n{folder}")
    return found


def sweeps(seed: int) -> Tensor:
    """One row per factor: a person whose factor goes from 0 to 1, [F · STEPS, 3, 64, 64]."""
    rows = []
    for column in range(len(FACTORS)):
        person = factors.draw(seed, "sweep", [column]).repeat(STEPS, 1)
        if FACTORS[column].name != "glasses":
            person[:, factors.index("glasses")] = 0.0  # they hide eyes and brows
        person[:, column] = torch.linspace(0, 1, STEPS)
        rows.append(render(person))
    return torch.cat(rows)
