"""`python -m lsap.pretrain target=generator`: make the demo domain's generator and judges.

Killed and started again, a training goes on where it was; finished, it writes `<target>.safetensors` with its card.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from lsap.cli import command
from lsap.demo.pretraining import GeneratorPretraining, Pretraining
from lsap.demo.weights import save
from lsap.evaluation.pictures import save as save_picture
from lsap.evaluation.pictures import sheet


class Sheets(Callback):
    """Saves the same 64 samples now and then, to be looked at while the generator learns."""

    def __init__(self, folder: Path, every: int = 500) -> None:
        self.folder, self.every = folder, every

    def on_train_batch_end(self, trainer: Trainer, module: Pretraining, *_: object) -> None:  # type: ignore[override]
        if isinstance(module, GeneratorPretraining) and trainer.global_step % self.every == 0:
            save_picture(sheet(module.sample(64)), self.folder / "samples.png")


def pretrain(config: DictConfig) -> Path:
    """Train one target and save it; returns the file of its weights."""
    folder = Path(config.outputs)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    module: Pretraining = instantiate(config.target.module, seed=config.seed, _convert_="all")
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    checkpoint = folder / "last.ckpt"
    interval = ModelCheckpoint(folder, save_last=True, save_top_k=0, every_n_train_steps=200, enable_version_counter=False)
    started = time.perf_counter()
    trainer = Trainer(
        accelerator="auto", devices=1, precision=config.precision, max_steps=module.max_steps, max_epochs=-1,
        callbacks=[interval, Sheets(folder)], logger=CSVLogger(folder, name="", version=""), log_every_n_steps=50,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, ckpt_path=str(checkpoint) if checkpoint.is_file() else None, weights_only=True)
    module.eval()
    card = {
        "made by": f"python -m lsap.pretrain target={config.target.name} seed={config.seed}",
        "settings": OmegaConf.to_container(config.target.module, resolve=True),
        "steps": trainer.global_step,
        "images seen": trainer.global_step * module.batch_size,
        "seconds of the last sitting": round(time.perf_counter() - started),
        "quality": module.quality(),
    }
    print(json.dumps(card["quality"], indent=2))
    return save(config.target.name, module.product, card, Path(config.save_to or folder))


main = command("pretrain")(pretrain)

if __name__ == "__main__":
    main()
