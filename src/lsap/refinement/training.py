"""Training what a refinement brings of its own: a network that is learned once, before images are refined."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lsap.errors import StoppedRun
from lsap.seeds import derive

MakeOptimizer = Callable[[Iterable[Any]], torch.optim.Optimizer]  # of parameters, or of groups of them


class RefinementTraining(LightningModule, abc.ABC):
    """One network, one optimiser; everything else that a step looks through is frozen.

    This is the seam between a refinement and `python -m lsap.train refinement=…`. A method says what a batch costs
    (`terms`) and what its file holds (`product`), and names it in the node `training` of its YAML. Run folder, Trainer,
    resuming, the choice of the best checkpoint and writing the file are done by `lsap.pipelines.refinement_training`.

    All randomness of a step comes from (seed, batch counter): a run that was killed and resumed takes the very steps
    that it would have taken. Checkpoints hold the network alone.

    Args:
        network: what is trained.
        optimizer: parameters → optimiser.
        seed: of the randomness within a step.
        frozen: parts that a step looks through; they keep their evaluation behaviour.

    Attributes:
        file: name of the file of the finished network, in the run's folder.
        learns: name of the per-image tensor that its examples hold, where it learns from more than images.
        batches_seen: training batches so far.
    """

    file: ClassVar[str]
    learns: ClassVar[str]

    def __init__(
        self, network: nn.Module, *, optimizer: MakeOptimizer, seed: int = 0, frozen: Iterable[nn.Module] = ()
    ) -> None:
        super().__init__()
        self.network = network
        self.frozen = nn.ModuleList(frozen)
        self.make_optimizer = optimizer
        self.seed = seed
        self.batches_seen = 0
        self.strict_loading = False  # checkpoints hold the network only; everything frozen comes from its own file

    @abc.abstractmethod
    def terms(self, batch: Mapping[str, Any], training: bool) -> dict[str, Tensor]:
        """The weighted loss terms of a batch of `ImageDataModule`, scalars by name; the loss is their sum.

        Args:
            batch: "image" [N, 3 or more, H, W] and what else the loader gives.
            training: whether it is a step; else held-out images are judged, always in the same way.
        """

    @abc.abstractmethod
    def product(self) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
        """Tensors and card of the network's file; the generator's fingerprint is added to the card."""

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        torch.manual_seed(derive(self.seed, "step", self.batches_seen, self.global_rank))

    def training_step(self, batch: Mapping[str, Any], _: int) -> Tensor:
        terms = self.terms(batch, True)
        loss = torch.stack(list(terms.values())).sum()
        values = {name: value.detach() for name, value in terms.items()}
        if not torch.isfinite(loss):
            bad = [name for name, value in values.items() if not torch.isfinite(value)]
            raise StoppedRun(
                f"the loss became {loss.item()} in step {self.batches_seen} (term {', '.join(bad) or 'total'}); the "
                "last good checkpoint is kept. Lower refinement.training.optimizer.lr, or look at the images of that "
                "step"
            )
        self.log_dict({f"train/{name}": value for name, value in values.items()} | {"train/loss": loss.detach()})
        self.batches_seen += 1  # here, not in a later hook: callbacks that save come before a module's own hooks
        return loss

    def validation_step(self, batch: Mapping[str, Any], index: int) -> None:
        torch.manual_seed(derive(self.seed, "validation", index, self.global_rank))
        terms = self.terms(batch, False)
        logged = {f"val/{name}": value for name, value in terms.items()}
        logged["val/loss"] = torch.stack(list(terms.values())).sum()
        self.log_dict(logged, batch_size=len(batch["image"]), sync_dist=True)

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(p for p in self.network.parameters() if p.requires_grad)

    def train(self, mode: bool = True) -> RefinementTraining:
        """Only the network ever trains."""
        super().train(mode)
        self.frozen.eval()
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        kept = {name: tensor for name, tensor in state.items() if name.startswith("network.")}
        if not all(tensor.isfinite().all() for tensor in kept.values()):
            raise StoppedRun(
                f"the network's weights are not finite after {self.batches_seen} batches; the last good checkpoint is "
                "kept. Lower refinement.training.optimizer.lr, or set trainer.gradient_clip_val"
            )
        checkpoint["state_dict"] = kept
        checkpoint["batches_seen"] = self.batches_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.batches_seen = int(checkpoint["batches_seen"])
