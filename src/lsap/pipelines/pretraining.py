"""`python -m lsap.pretrain target=generator`: make the demo domain's generator and judges.

Killed and started again, a training goes on where it was; finished, it writes `<target>.safetensors` with its card.
"""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from lsap.checkpoints import fingerprint, read_state
from lsap.demo.pretraining import GeneratorPretraining, Pretraining
from lsap.demo.weights import save
from lsap.errors import BadValue
from lsap.pipelines.devices import device_of
from lsap.reports.pictures import save as save_picture
from lsap.reports.pictures import sheet
from lsap.runs import AtomicCheckpoints, MetricsFile, ReadableProgress, quiet_lightning, read_json


class Sheets(Callback):
    """Saves the same 64 samples now and then, to be looked at while the generator learns."""

    def __init__(self, folder: Path, every: int = 500) -> None:
        self.folder, self.every = folder, every

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if isinstance(pl_module, GeneratorPretraining) and trainer.global_step % self.every == 0:
            save_picture(sheet(pl_module.sample(64)), self.folder / "samples.png")


def pretrain(config: DictConfig) -> Path:
    """Train one target and save it; returns the file of its weights."""
    folder = Path(config.outputs)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    module: Pretraining = instantiate(config.target.module, seed=config.seed, _convert_="all")
    earlier = _go_on_from(config.start_from, module)
    module.to(memory_format=torch.channels_last)
    checkpoint = folder / "last.ckpt"
    interval = ModelCheckpoint(
        folder,
        "last",
        save_top_k=1,
        every_n_train_steps=config.save_every * module.updates,
        enable_version_counter=False,
    )
    resumed = str(checkpoint) if checkpoint.is_file() else None
    first_step = AtomicCheckpoints().load_checkpoint(checkpoint, "cpu")["global_step"] if resumed else 0
    if resumed:
        print(f"resuming {folder}: {first_step} of {module.max_steps * module.updates} steps are done")
    started = time.perf_counter()
    with quiet_lightning():
        trainer = Trainer(
            accelerator=device_of("auto").type, devices=1, precision=config.precision, max_epochs=-1,
            max_steps=module.max_steps * module.updates,
            callbacks=[
                interval, Sheets(folder),
                ReadableProgress(module.batch_size, config.target.name, updates=module.updates),
            ],
            logger=MetricsFile(folder / "metrics.csv", first_step), log_every_n_steps=50, enable_model_summary=False,
            enable_progress_bar=False, plugins=[AtomicCheckpoints()],
        )  # fmt: skip
        trainer.fit(module, ckpt_path=resumed, weights_only=True)
    module.eval()
    card = {
        "made by": _command(config),
        "settings": OmegaConf.to_container(config.target.module, resolve=True),
        "steps": trainer.global_step // module.updates,
        "images seen": trainer.global_step // module.updates * module.batch_size,
        "seconds of the last sitting": round(time.perf_counter() - started),
        "quality": module.quality(),
    } | ({"earlier": earlier} if earlier else {})
    print(json.dumps(card["quality"], indent=2))
    return save(config.target.name, module.product, card, Path(config.save_to or folder))


def _command(config: DictConfig) -> str:
    """What was typed, so that it can be typed again."""
    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else [f"target={config.target.name}"]
    return shlex.join(["python", "-m", "lsap.pretrain", *typed])


def _go_on_from(path: str | None, module: Pretraining) -> dict[str, Any] | None:
    """Start the network from finished weights; returns the card of their making, or, without one, what they are.

    Raises:
        MissingFile, BadValue: no such file, weights of another network, or a card that cannot be read.
    """
    if path is None:
        return None
    state = read_state(path)
    wanted = module.product.state_dict()
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in wanted.items()}:
        raise BadValue(f"start_from={path}: these are not the weights of this target's network; name its safetensors")
    module.product.load_state_dict({k: v.to(wanted[k].dtype) for k, v in state.items()})
    file = Path(path).with_name(f"{Path(path).stem}.card.json")
    if not file.is_file():
        return {"file": Path(path).name, "fingerprint": fingerprint(module.product)}
    return read_json(file, f"mend this card of start_from={path}, or move it away", dict)
