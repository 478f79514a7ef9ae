"""Is it the same thing? MoCo-v2, the similarity judge of every domain that is not faces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn
from torch.nn import functional as F

from lsap.pretrained.frozen import FrozenNetwork, load_weights

QUERY = "module.encoder_q."  # where the published training file keeps the network that is wanted


class MoCo(FrozenNetwork):
    """Embeds images by a ResNet-50 that was trained without labels (MoCo v2, Chen et al. 2020).

    As in the published losses, images of any size and shape become 224 x 224 by nearest neighbour and keep their range
    [-1, 1]: there is no ImageNet normalisation.
    """

    label = "similarity (MoCo v2 ResNet-50)"
    size = 2048
    image_size = 224

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet50  # a slow import

        self.network = resnet50(weights=None)
        self.network.fc = nn.Identity()
        self.freeze()

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build from the content of `moco_v2_800ep_pretrain.pth.tar`, or from a torchvision ResNet-50's state dict.

        Args:
            state: the published training file (whole, or its `state_dict`), or bare tensors by torchvision's names; the
                classifier, the key encoder and the queue are left aside.

        Raises:
            BadValue: there is no ResNet-50 in it.
        """
        tensors: Mapping[str, Tensor] = state.get("state_dict", state)
        prefix = QUERY if any(name.startswith(QUERY) for name in tensors) else ""
        judge = cls()
        what = "a MoCo-v2 ResNet-50 (moco_v2_800ep_pretrain.pth.tar)"
        load_weights(judge.network, tensors, what, filed_as=lambda name: prefix + name)
        return judge

    def embed(self, images: Tensor) -> Tensor:
        """Unit vectors [N, 2048] of images [N, 3, H, W] in [-1, 1]."""
        return F.normalize(self.network(F.interpolate(images, size=self.image_size, mode="nearest")).float(), dim=1)

    forward = embed
