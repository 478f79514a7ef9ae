"""Ranger as the published encoders were trained with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytorch_optimizer
import torch
from torch import nn


class Ranger(pytorch_optimizer.Ranger):
    """Rectified Adam, lookahead and gradient centralisation (section 5.1), with the published warm-up.

    Two things differ from the library's defaults. Before the rectification is defined (steps 1 to 5) the update is
    plain momentum, downhill; the library's `degenerated_to_sgd=False` turns its sign and climbs. And every parameter
    counts its own steps: a head that comes in at a later stage has a warm-up of its own, where one counter for all
    would let its first updates be several times the learning rate.

    Args:
        params: the parameters to train; each becomes a group of its own, for the library counts steps per group.
        lr: learning rate.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 1e-3) -> None:
        super().__init__([{"params": [parameter]} for parameter in params], lr=lr, degenerated_to_sgd=True)

    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient; the others stay as they are, counters included.

        Args:
            closure: computes the loss and its gradients; called first, as Lightning expects.

        Returns:
            The loss, if there was a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        everything = self.param_groups
        self.param_groups = [group for group in everything if group["params"][0].grad is not None]
        try:
            super().step()
        finally:
            self.param_groups = everything
        return loss
