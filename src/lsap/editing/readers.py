"""Who reads attributes off images where a domain ships no network for it: landmarks of a face, or a fit to labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lsap.checkpoints import read_card, read_state, write_state
from lsap.data.landmarks import DetectedLandmarks, Landmarks
from lsap.errors import BadValue
from lsap.pretrained import Embedder

KIND = "lsap probe"
LEFT, RIGHT, NOSE = 0, 16, 30  # ends of the jaw and tip of the nose among the 68 landmarks


class LandmarkPose:
    """How far a face is turned, by its landmarks: where the tip of the nose lies between the two ends of the jaw.

    0 in the middle, -1 and 1 at the ends as the picture shows them, left and right; NaN where no face is found.

    Args:
        landmarks: who finds them; None for the detector of the extra `faces`.
    """

    names: Sequence[str] = ("pose",)
    label = "pose by landmarks, in half widths of the face"

    def __init__(self, landmarks: Landmarks | None = None) -> None:
        self.landmarks = DetectedLandmarks() if landmarks is None else landmarks

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1] → [N, 1]."""
        pixels = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
        found = []
        for number, image in enumerate(pixels.permute(0, 2, 3, 1).contiguous().numpy()):
            faces = self.landmarks.find(str(number), Image.fromarray(image))
            found.append(self.turned(faces[0]) if faces else float("nan"))
        return torch.tensor(found)[:, None]

    @staticmethod
    def turned(points: np.ndarray) -> float:
        """The pose of landmarks [68, 2]; a tilted head changes nothing."""
        jaw = points[RIGHT] - points[LEFT]
        return float(2 * ((points[NOSE] - points[LEFT]) @ jaw) / (jaw @ jaw) - 1)


class Probe:
    """A linear reader of labels on what an embedding judge sees, fitted to a generator's labelled samples.

    Args:
        embedder: the judge.
        weight, bias: [A, D] and [A]; attributes come out in standard deviations of their labels.
        names: of the attributes.
        quality: name → share of the labels' variance that it explains on samples left out of the fit, one at a time.
    """

    def __init__(
        self, embedder: Embedder, weight: Tensor, bias: Tensor, names: Sequence[str], quality: Mapping[str, float]
    ) -> None:
        self.embedder, self.weight, self.bias = embedder, weight, bias
        self.names: Sequence[str] = tuple(names)
        self.quality = dict(quality)
        self.label = f"linear fit of labels on {embedder.label}, in standard deviations of the labels"

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1] → [N, A]."""
        features = self.embedder.embed(images).float()
        return features @ self.weight.to(features).T + self.bias.to(features)

    @classmethod
    def fit(cls, embedder: Embedder, features: Tensor, labels: Mapping[str, Tensor]) -> Probe:
        """Ridge regression, its strength chosen by leaving samples out.

        Args:
            embedder: the judge.
            features: [N, D], what it makes of the samples' images.
            labels: attribute → [N]; NaN where a sample has none.

        Raises:
            BadValue: fewer than ten labels of an attribute, or all equal.
        """
        from sklearn.linear_model import RidgeCV  # a slow import that only this needs

        rows, offsets, quality = [], [], {}
        for name, values in labels.items():
            known = ~values.isnan()
            x, y = features[known].double().cpu().numpy(), values[known].double().cpu().numpy()
            if len(y) < 10 or y.std() == 0:
                raise BadValue(f"probe: {len(y)} labels of {name!r}, and they must differ; label at least ten samples")
            machine = RidgeCV(np.logspace(-4, 3, 15)).fit(x, (y - y.mean()) / y.std())
            rows.append(machine.coef_)
            offsets.append(machine.intercept_)
            quality[name] = round(float(machine.best_score_) + 1, 3)  # best_score_ is minus the mean squared error
        weight, bias = torch.from_numpy(np.stack(rows)).float(), torch.tensor(offsets).float()
        return cls(embedder, weight, bias, list(labels), quality)

    def save(self, path: str | Path, embedder: str) -> Path:
        """Write as safetensors with the fingerprint of its judge; atomic."""
        card = {
            "kind": KIND,
            "embedder": embedder,
            "names": json.dumps(self.names),
            "quality": json.dumps(self.quality),
        }
        return write_state(path, {"weight": self.weight, "bias": self.bias}, card)

    @classmethod
    def load(cls, path: str | Path, embedder: Embedder, fingerprint: str) -> Probe:
        """Read one back.

        Args:
            path: what `save` wrote.
            embedder: the judge, whose fingerprint must be the one in the file.

        Raises:
            MissingFile: there is no such file.
            BadValue: another kind of file, or a probe of another judge.
        """
        card = read_card(path)
        if card.get("kind") != KIND:
            raise BadValue(f"reader={path} is no reader of attributes; lsap.discover labels=… probe=true makes one")
        if card["embedder"] != fingerprint:
            raise BadValue(
                f"reader={path} was fitted to judge {card['embedder'][:12]}, but this domain's is {fingerprint[:12]}; "
                "fit it again with lsap.discover labels=… probe=true"
            )
        state = read_state(path)
        return cls(embedder, state["weight"], state["bias"], json.loads(card["names"]), json.loads(card["quality"]))
