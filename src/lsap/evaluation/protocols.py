"""Under which rules saved pictures are compared with their images: a protocol with a name, and how both are read.

Results of different protocols cannot stand in one table, so a protocol's settings are written into every file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, resize

from lsap.data.landmarks import DetectedLandmarks, Landmarks
from lsap.data.storage import decoded, reason
from lsap.errors import BadValue

WORKERS = 2  # threads that decode; decoders and resizing let others run meanwhile
AHEAD = 2  # chunks that are read before they are asked for


@dataclass(frozen=True)
class Protocol:
    """How an image and the saved picture of its inversion are compared.

    Images are resized by Pillow's antialiased bilinear filter, without regard to their aspect ratio. Pictures are read
    from eight-bit files, or rounded to eight bits where they were never saved (edits), and resized by the same filter
    on tensors, without being rounded again, as the released evaluation does.

    Attributes:
        name: what results call it.
        size: (height, width) of what is compared; None for that of the saved pictures.
        faces: who tells whether a picture shows a face, for identity; None where nobody looks.

    Raises:
        BadValue: a size that is not two positive whole numbers.
    """

    name: str
    size: tuple[int, int] | None = None
    faces: str | None = None

    def __post_init__(self) -> None:
        if self.size is not None:
            sides = tuple(self.size)
            if len(sides) != 2 or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in sides):
                raise BadValue(f"protocol.size={list(sides)}: expected (height, width), two positive whole numbers")
            object.__setattr__(self, "size", sides)

    @property
    def described(self) -> dict[str, Any]:
        """Its settings, for files of results."""
        return asdict(self) | {"size": None if self.size is None else list(self.size)}

    def seen(self, pictures: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] in [-1, 1] at the size of the protocol; resized only, see `saved`."""
        if self.size is None or tuple(pictures.shape[-2:]) == self.size:
            return pictures
        return resize(pictures, list(self.size), InterpolationMode.BILINEAR, antialias=True)

    def drawn(self, images: Tensor) -> Tensor:
        """Images of a generator [N, 3, H, W] as their saved files would be seen."""
        return self.seen(saved(images))


def saved(images: Tensor) -> Tensor:
    """Images [N, 3, H, W] about in [-1, 1] as their eight-bit files hold them, in [-1, 1]."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def picture(path: Path) -> Tensor:
    """The picture [3, H, W] in [-1, 1] of an image file.

    Raises:
        BadValue: it cannot be read; the message names it.
    """
    try:
        pixels = np.array(decoded(path.read_bytes()))
    except Exception as error:  # on broken bytes decoders raise almost anything
        if isinstance(error, MemoryError):
            raise
        raise BadValue(f"{path} cannot be read ({reason(error)}); mend it, or make it again") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(127.5).sub_(1)


@dataclass(frozen=True)
class Pairs:
    """Images and saved pictures by name, read a few chunks ahead in threads.

    Attributes:
        read: names → images [N, 3, H, W] in [-1, 1] at the protocol's size.
        pictures: name → file of the picture.
        protocol: how the pictures are seen.
    """

    read: Callable[[Sequence[str]], Tensor]
    pictures: Mapping[str, Path]
    protocol: Protocol

    def chunk(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Images and pictures [N, 3, H, W] of these names.

        Raises:
            BadValue: a picture cannot be read, or images have another size than the protocol's.
        """
        images = self.read(names)
        shown = torch.stack([self.protocol.seen(picture(self.pictures[name])[None])[0] for name in names])
        if shown.shape != images.shape:
            raise BadValue(
                f"images come as {images.shape[-2]}x{images.shape[-1]} pixels (height x width) and pictures are seen "
                f"as {shown.shape[-2]}x{shown.shape[-1]} under protocol={self.protocol.name}; choose a protocol of the "
                "images' size, as protocol=demo64 for the demo's"
            )
        return images, shown

    def chunks(self, parts: Sequence[Sequence[str]], workers: int = WORKERS) -> Iterator[tuple[Tensor, Tensor]]:
        """`chunk` of each part in order, read by threads while the caller works on the ones before."""
        with ThreadPoolExecutor(workers) as pool:
            waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
            left = iter(parts)
            for part in left:
                waiting.append(pool.submit(self.chunk, part))
                if len(waiting) > AHEAD + workers - 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


class ShownFaces:
    """Tells whether pictures show a face.

    Args:
        landmarks: who finds them; None for the detector of the extra `faces`.

    Raises:
        BadValue: the extra is not installed.
    """

    label = "faces by landmarks"

    def __init__(self, landmarks: Landmarks | None = None) -> None:
        self.landmarks = DetectedLandmarks() if landmarks is None else landmarks

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1] → [N], true where at least one face is found."""
        pixels = (
            ((images.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        )
        return torch.tensor([bool(self.landmarks.find(str(n), Image.fromarray(p))) for n, p in enumerate(pixels)])
