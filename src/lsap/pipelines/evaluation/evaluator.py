"""The evaluator: methods, the images that they are compared on, the metrics, and the table of results."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torchmetrics.image.fid import FrechetInceptionDistance

from lsap.checkpoints import fingerprint, read_state
from lsap.config.checks import present
from lsap.config.containers import editable
from lsap.embedding import LatentDiscriminator
from lsap.errors import BadValue, LsapError
from lsap.evaluation.cache import MetricCache, Rows
from lsap.evaluation.codes import LatentDistances
from lsap.evaluation.columns import measures
from lsap.evaluation.distribution import Inception, frechet_distance
from lsap.evaluation.editability import published_lec
from lsap.evaluation.metrics import Identity, ImageMetric, image_metrics, image_values, labels, mse, psnr
from lsap.evaluation.protocols import Pairs, Protocol, ShownFaces, picture
from lsap.evaluation.ranks import Correlation, rank_correlations
from lsap.evaluation.rows import by_name, seven_digits, synthetic_row
from lsap.evaluation.set_metrics import SetMetrics
from lsap.evaluation.tables import ResultsTable, Summary, of_the_set, summary
from lsap.pipelines.build import Parts
from lsap.pipelines.devices import device_of
from lsap.pipelines.evaluation.edit_metrics import EditMetrics, edit_metrics
from lsap.pipelines.evaluation.methods import MethodOutputs, methods
from lsap.pipelines.images import Chosen, chosen_images
from lsap.reports.evaluation_report import SYNTHETIC, THEMSELVES
from lsap.runs import content_digest, files_digest, image_digests
from lsap.stylegan2 import freeze

PROGRESS_EVERY = 15.0  # seconds between two lines of progress
CODES = 64  # codes that are measured at once


@dataclass
class Evaluator:
    """Methods, the images that they are compared on, and who measures them.

    Attributes:
        config: completed.
        parts: generator, view, style space.
        chosen: the images, read at the protocol's size.
        methods: the methods.
        names: of the images that are compared, in order.
        protocol: how.
        notes: what could not be measured, and why.
    """

    config: DictConfig
    parts: Parts
    chosen: Chosen
    methods: Sequence[MethodOutputs]
    names: Sequence[str]
    protocol: Protocol
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, config: DictConfig) -> Evaluator:
        """The evaluator that a completed configuration describes; raises as `evaluate`."""
        parts = Parts(config, device_of(config.accelerator))
        protocol: Protocol = instantiate(config.protocol, _convert_="all")
        chosen = _images(config, protocol.size or (64, 64))
        found, names = methods(config, parts, chosen)
        if protocol.size is None:
            height, width = picture(found[0].pictures[names[0]]).shape[-2:]
            chosen = _images(config, (height, width))
        return cls(config, parts, chosen, found, names, protocol)

    # ---- who measures

    @cached_property
    def metrics(self) -> dict[str, ImageMetric]:
        """The metrics of pictures by the key of their column; without its network a metric is left out, with a note."""
        networks = (self._network("distance", "lpips"), self._network("embedder", "identity"))
        return {"mse": mse, "psnr": psnr} | image_metrics(*networks, self.faces)

    def _network(self, key: str, column: str) -> Any:
        node = self.config[key]
        if node is None:
            return None
        if "checkpoint" in node and not present(self.config, f"{key}.checkpoint"):
            self.notes.append(f"{column}, as {node.checkpoint} is not there ({key}.checkpoint=)")
            return None
        return instantiate(node).to(self.parts.device)

    @cached_property
    def digests(self) -> dict[str, str]:
        """What decides the numbers of each metric, by the key of its column; a network is hashed once for all."""
        return {key: _network_digest(metric) for key, metric in self.metrics.items()}

    @cached_property
    def faces(self) -> ShownFaces | None:
        """Who tells whether there is a face; None where nobody looks, with a note where somebody should."""
        wanted = self.protocol.faces
        if wanted in (None, "null"):
            return None
        if wanted != "landmarks":
            raise BadValue(f"protocol.faces={wanted}: accepted are landmarks, and null where nobody looks for faces")
        try:
            return ShownFaces()
        except BadValue as error:
            self.notes.append(f"which images show no face ({error})")
            return None

    @cached_property
    def labels(self) -> dict[str, str]:
        """Titles of the columns that depend on a network, by their key."""
        return labels(self.metrics) | ({"fid": Inception.label} if self._inception is not None else {})

    @cached_property
    def latent_distances(self) -> LatentDistances | None:
        """Where codes lie; None where no method has any."""
        if not any(one.codes for one in self.methods):
            return None
        file = self.config.discriminator
        network = None if file is None else discriminator(file, self.parts.generator.style_dim).to(self.parts.device)
        return LatentDistances(self.parts.space, network)

    @cached_property
    def edit_metrics(self) -> EditMetrics | None:
        """The edits; None where no method can be edited."""
        if not any(one.source is not None for one in self.methods):
            return None
        identity = self.metrics.get("identity")
        assert identity is None or isinstance(identity, Identity)
        return edit_metrics(self.config, self.parts, self.chosen, identity, self.protocol)

    @property
    def not_measured(self) -> list[str]:
        """What was left out, and why."""
        return self.notes + ([] if self.edit_metrics is None else self.edit_metrics.notes)

    @property
    def edits(self) -> list[str]:
        """Names of the edits."""
        return [] if self.edit_metrics is None else self.edit_metrics.names

    @cached_property
    def _inception(self) -> Inception | None:
        path = self.config.inception
        if path is None or not Path(path).is_file():
            why = "no file is named" if path is None else f"{path} is not there"
            self.notes.append(f"FID, as {why} (inception=)")
            return None
        try:
            return Inception(path).to(self.parts.device)
        except BadValue as error:
            self.notes.append(f"FID ({error})")
            return None

    @cached_property
    def _distance(self) -> FrechetInceptionDistance:
        """FID, which keeps what it has seen of the photographs when it is reset."""
        assert self._inception is not None
        return frechet_distance(self._inception).to(self.parts.device)

    # ---- one method

    def measured(self, one: MethodOutputs) -> Rows:
        """All numbers of a method's images, by image."""
        rows: Rows = {name: {} for name in self.names}
        for found in (self.pictures(one), self.codes(one), self.edited(one)):
            for name, row in found.items():
                rows[name] |= row
        return rows

    def cache(self, one: MethodOutputs, kind: str, **settings: Any) -> MetricCache:
        """Where numbers of a method are kept, under these settings and the images."""
        about = {"run": one.digest, "images": self.images_digest, "names": _digest(self.names)}
        return MetricCache(self.folder / "kept", kind, about | settings)

    @cached_property
    def images_digest(self) -> str:
        """Digest of the images that are compared."""
        digests = image_digests(self.chosen.source, self.names)
        return _digest(self.names) if digests is None else content_digest(digests)

    def pairs(self, one: MethodOutputs) -> Pairs:
        """Images and pictures of a method."""
        return Pairs(self.read, one.pictures, self.protocol)

    def read(self, names: Sequence[str]) -> torch.Tensor:
        _, images, skipped = self.chosen.read(names)
        if images is None or skipped:
            why = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
            raise BadValue(f"images that were inverted cannot be read any more: {why}")
        return images

    @property
    def chunks(self) -> list[Sequence[str]]:
        """The names, cut into what is measured at once."""
        size = self.config.chunk
        return [self.names[first : first + size] for first in range(0, len(self.names), size)]

    @torch.no_grad()
    def pictures(self, one: MethodOutputs) -> Rows:
        """The numbers of its pictures."""
        files = files_digest([one.pictures[name] for name in self.names])
        faces = None if self.faces is None else self.faces.label
        settings = {"protocol": self.protocol.described, "metrics": self.digests, "files": files, "faces": faces}
        cache = self.cache(one, "pictures", chunk=self.config.chunk, **settings)
        rows: Rows = {}
        todo = [number for number in range(len(self.chunks)) if cache.find(number) is None]
        drawn = self.pairs(one).chunks([self.chunks[number] for number in todo], self.config.workers)
        for number, (images, shown) in zip(todo, _told(drawn, len(todo), f"{one.name}: pictures"), strict=True):
            images, shown = images.to(self.parts.device), shown.to(self.parts.device)
            cache.keep(number, by_name(self.chunks[number], image_values(self.metrics, shown, images)))
        for number in range(len(self.chunks)):
            rows |= cache.find(number) or {}
        return rows

    @torch.no_grad()
    def codes(self, one: MethodOutputs) -> Rows:
        """Where its codes lie."""
        if self.latent_distances is None or not one.codes:
            return {}
        rows: Rows = {}
        known = [name for name in self.names if name in one.codes]
        for first in range(0, len(known), CODES):
            part = known[first : first + CODES]
            stacked = torch.stack([one.codes[name] for name in part]).to(self.parts.device)
            rows |= by_name(part, self.latent_distances(stacked))
        return rows

    def edited(self, one: MethodOutputs) -> Rows:
        """What its edits do."""
        if self.edit_metrics is None:
            return {}
        network, settings = self.digests.get("identity"), self.edit_metrics.settings

        def where(again: bool) -> MetricCache:
            return self.cache(one, "edits", judge=network, again=again, **settings)

        return self.edit_metrics.run(one, self.names, where)

    @torch.no_grad()
    def fid(self, one: MethodOutputs) -> float | None:
        """Fréchet Inception distance of its pictures to the images."""
        if self._inception is None or len(self.names) < 2:
            return None
        files = files_digest([one.pictures[name] for name in self.names])
        inception = self._inception.digest
        cache = self.cache(one, "fid", protocol=self.protocol.described, files=files, inception=inception)
        found = cache.find("fid")
        if found is None:
            (metric := self._distance).reset()
            fresh = not metric.real_features_num_samples  # the photographs of the first method are those of all
            drawn = self.pairs(one).chunks(self.chunks, self.config.workers)
            for images, shown in _told(drawn, len(self.chunks), f"{one.name}: FID"):
                if fresh:
                    metric.update(images.to(self.parts.device), real=True)
                metric.update(shown.to(self.parts.device), real=False)
            found = cache.keep("fid", {"all": {"fid": seven_digits(metric.compute())}})
        return float(found["all"]["fid"])

    def diversity(self, one: MethodOutputs) -> float | None:
        """How varied its codes are."""
        known = [one.codes[name] for name in self.names if name in one.codes]
        if not known:
            return None
        found = SetMetrics(self.parts.space)
        with torch.no_grad():
            for part in torch.stack(known).split(CODES):
                found.update(styles=self.parts.space.styles(part.to(self.parts.device)))
        return float(found.compute()["diversity"])

    # ---- all of them

    def results_table(self, rows: Mapping[str, Rows]) -> ResultsTable:
        """The table."""
        table: dict[str, dict[str, Summary | None]] = {}
        columns = measures(self.labels, self.edits)
        seed = self.config.seed
        for one in self.methods:
            mine = [rows[one.name][name] for name in self.names]
            n = len(self.names)
            row = {m.key: summary([each.get(m.key) for each in mine], seed) for m in columns}
            row["fid"] = of_the_set(self.fid(one), n)
            row["diversity"] = of_the_set(self.diversity(one), n)
            row["seconds"] = of_the_set(one.seconds, n)
            for edit in self.edits:
                values = [each.get(f"lec/{edit}") for each in mine]
                row[f"lec_mean/{edit}"] = summary(values, seed)
                row[f"lec/{edit}"] = of_the_set(published_lec(values, self.config.lec_batch), n)
            table[one.name] = row
        kinds: dict[str, Any] = {}
        if self.latent_distances is not None:
            known = synthetic_row(self.parts.space)
            table[SYNTHETIC] = {k: of_the_set(known[k], known["n"]) for k in ("nscd", "nscd_raw", "diversity")}
            kinds[SYNTHETIC] = "reference"
        own = next((found for found in rows.values() if any("own_error" in row for row in found.values())), {})
        if own:
            errors = [own[name].get("own_error") for name in self.names]
            table[THEMSELVES] = {"factor_error": summary(errors, seed)}
            kinds[THEMSELVES] = "reference"
        return ResultsTable(columns, table, kinds)

    def correlations(self, rows: Mapping[str, Rows]) -> list[Correlation]:
        """Rank correlations of where codes lie with what edits did: leakage, true leakage where the domain knows it."""
        if self.latent_distances is None or not self.edits:
            return []
        methods = {}
        targets = [f"{kind}/{edit}" for kind in ("excess", "leakage") for edit in self.edits]
        for method, found in rows.items():
            numbers: dict[str, list[float | None]] = {
                key: [found[name].get(key) for name in self.names] for key in (*self.latent_distances.labels, *targets)
            }
            for kind in ("excess", "leakage"):
                each = [numbers[f"{kind}/{edit}"] for edit in self.edits]
                numbers[kind] = [_mean(values) for values in zip(*each, strict=True)]
            methods[method] = numbers
        able = {
            method: numbers for method, numbers in methods.items() if any(v is not None for v in numbers["leakage"])
        }
        kind = "excess" if any(v is not None for m in able.values() for v in m["excess"]) else "leakage"
        wanted = ([kind] if len(self.edits) > 1 else []) + [f"{kind}/{edit}" for edit in self.edits]
        predictors = [key for key in self.latent_distances.labels if key != "nscd_raw"]
        return rank_correlations(able, predictors, wanted, self.config.seed) if able else []

    @property
    def folder(self) -> Path:
        """Of all evaluations of the domain."""
        return Path(self.config.outputs) / self.config.domain.name / "evaluations"

    @cached_property
    def path(self) -> Path:
        """Where the results go."""
        if self.config.save_to is not None:
            return Path(self.config.save_to)
        about: dict[str, Any] = {"runs": {one.name: one.digest for one in self.methods}, "names": list(self.names)}
        about |= {
            "protocol": self.protocol.described,
            "edits": {} if self.edit_metrics is None else self.edit_metrics.settings,
        }
        return (
            self.folder / f"{self.chosen.label}-{self.protocol.name}-{_digest(json.dumps(about, sort_keys=True))[:8]}"
        )


def discriminator(path: str | Path, style_dim: int) -> LatentDiscriminator:
    """e4e's latent discriminator from a published checkpoint or from a training of ours, frozen.

    Raises:
        MissingFile, BadValue: no such file, or none in it.
    """
    state = read_state(path)
    own_training = state.get("adversary")
    if isinstance(own_training, Mapping):
        state = dict(own_training.get("discriminator", {}))
    prefixes = {name.removesuffix("mlp.0.weight") for name in state if name.endswith("mlp.0.weight")}
    if len(prefixes) != 1:
        raise BadValue(f"discriminator={path} holds no latent discriminator; name a checkpoint of e4e")
    (prefix,) = prefixes
    network = LatentDiscriminator(style_dim)
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(f"{prefix}mlp.")}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        raise BadValue(f"discriminator={path} does not fit codes of {style_dim} channels") from error
    return freeze(network)


def _images(config: DictConfig, size: tuple[int, int]) -> Chosen:
    """The images, read at a size."""
    sized = editable(config)
    if "image_size" in sized:
        sized.image_size = list(size)
    try:
        return chosen_images(sized, size)
    except LsapError as error:
        raise BadValue(f"the images that were inverted are not found ({error}); name them with images=") from error


def _network_digest(metric: ImageMetric) -> str:
    """Name of a metric, and fingerprint of its network."""
    network = getattr(metric, "embedder", metric)
    name = getattr(metric, "label", getattr(metric, "__name__", ""))
    return f"{name} {fingerprint(network)[:12]}" if isinstance(network, torch.nn.Module) else str(name)


def _told(drawn: Iterator[Any], count: int, what: str) -> Iterator[Any]:
    """The same, with a line of progress now and then."""
    printed = time.monotonic()
    for number, one in enumerate(drawn):
        if time.monotonic() - printed > PROGRESS_EVERY:
            printed = time.monotonic()
            print(f"{what}: {number} of {count} chunks", file=sys.stderr)
        yield one


def _digest(value: str | Sequence[str]) -> str:
    return hashlib.sha256((value if isinstance(value, str) else "/".join(value)).encode()).hexdigest()


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
