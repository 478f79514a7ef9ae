"""Settings with which a training, an inversion or a comparison takes about a second."""

from __future__ import annotations

from lsap.config.compose import config_dir

DOMAINS = sorted(path.stem for path in (config_dir() / "domain").glob("*.yaml"))


SMALL = [
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "space.samples=64",
    "data.num_workers=0",
    "backbone.checkpoint=random",
    "encoders.progressive=lsap.embedding.SmallPyramidEncoder",
]


ENCODER = [
    "embedding=lsap_e", "lambda_lpips=0", "lambda_id=0", "max_steps=4", "batch_size=2", "data.val_images=3",
    "stages.start=0.25", "stages.every=0.125",
]  # fmt: skip


ON_ONE_CPU = ["trainer.accelerator=cpu", "trainer.devices=1"]


TINY = [
    "max_steps=3",
    "batch_size=2",
    "data.train.count=40",
    "data.val_images=4",
    "data.tests.rich.count=9",
    "data.tests.plain.count=5",
    "data.tests.far.count=6",
    "space.samples=512",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
]
