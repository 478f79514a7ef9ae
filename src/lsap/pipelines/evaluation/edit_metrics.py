"""What an evaluation does to inversions: edits at equal effect, and the way there and back through the encoder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from lsap.checkpoints import fingerprint
from lsap.config.checks import optimises
from lsap.config.compose import composed, searchpath
from lsap.config.containers import editable
from lsap.editing.directions import Unreadable
from lsap.editing.effects import Reader, incremental
from lsap.embedding import Embedding
from lsap.errors import BadValue, LsapError
from lsap.evaluation import protocols
from lsap.evaluation.cache import MetricCache, Rows
from lsap.evaluation.editability import round_trip
from lsap.evaluation.metrics import Identity
from lsap.evaluation.rows import by_name
from lsap.inversion import Inversion
from lsap.pipelines.build import Parts
from lsap.pipelines.editing import setup as editors
from lsap.pipelines.editing.edits import Edit, Work, digest, out_of_reach, reader_label, searched, strengths_on
from lsap.pipelines.evaluation.methods import Bare, MethodOutputs, embedding_config
from lsap.pipelines.images import Chosen
from lsap.runs import Store

Embed = Callable[[Tensor, Sequence[str]], Tensor]


class Truth(Protocol):
    """What a domain knows of its images beyond their pictures; named by `domain.truth`."""

    def inversion(self, output: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        """Numbers [N] about inversions [N, 3, H, W] of these images."""
        ...

    def edit(self, before: Tensor, after: Tensor, attribute: str, names: Sequence[str]) -> Mapping[str, Tensor]:
        """Numbers [N] about an edit of one attribute."""
        ...


@dataclass(frozen=True)
class EditMetrics:
    """The edits of an evaluation, the same for every method, and who judges them.

    Attributes:
        parts: generator and view.
        chosen: the images.
        edits: directions, each with one step.
        reader: of attributes, or None.
        truth: or None.
        identity: compares edits with the images, or None.
        protocol: how edits are seen for it.
        matched_on: images that the strength of a method is searched on.
        settings: of all this, for what is kept.
        notes: what could not be measured, and why.
    """

    parts: Parts
    chosen: Chosen
    edits: Sequence[Edit]
    reader: Reader | None
    truth: Truth | None
    identity: Identity | None
    protocol: protocols.Protocol
    matched_on: int
    settings: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """What the edits are called."""
        return [one.direction.name for one in self.edits]

    def run(self, method: MethodOutputs, names: Sequence[str], where: Callable[[bool], MetricCache]) -> Rows:
        """The numbers of every edit of a method's images, by image; empty where its inversions cannot be edited.

        An edit whose effect cannot be read has no numbers on that image. Where that is so on all, a note says it.

        Args:
            method: the method.
            names: of the images that are compared.
            where: where numbers of this method are kept, as it has an encoder that embeds again or none.
        """
        if method.source is None:
            if self.edits:
                self.notes.append(f"{method.name}: only pictures, so nothing that takes an edit")
            return {}
        if not self.edits and self.truth is None:
            return {}
        source = cast(Store, method.source)
        again = self.encoder(method)
        folder = where(again is not None)
        work = Work(self.parts, source, source, self.edits, self.reader, None)
        fixed: list[Edit] | None = None
        rows: Rows = {}
        for batch in source.batches:
            wanted = [name for name in batch.names if name in set(names)]
            cache = folder.find(batch.number)
            if cache is None and wanted:
                fixed = self._strengths(work, folder) if fixed is None else fixed
                inversion = source.load(batch, self.parts.generator)
                assert inversion is not None, "images without an inversion are not compared"
                shown = inversion.select([inversion.names.index(name) for name in wanted]).to(self.parts.device)
                cache = folder.keep(batch.number, self._batch(work, shown, fixed, again))
            rows |= cache or {}
        for one in self.edits if rows else ():
            keys = [f"{key}/{one.direction.name}" for key in ("strength", "effect")]
            edited = [(row.get(keys[0]), row.get(keys[1])) for row in rows.values()]
            if (line := out_of_reach(one, one.rule.steps[0], edited)) is not None:
                print(f"{method.name}: {line}", file=sys.stderr)
        for name in self.names if rows else ():
            if all(row.get(f"strength/{name}") is None for row in rows.values()):
                self.notes.append(f"{method.name}: {name}, as its effect cannot be read on any of the images")
        return rows

    def _strengths(self, work: Work, folder: MetricCache) -> list[Edit]:
        """The edits that can be read, with the strengths that hold for the whole method, where there are such."""
        found = []
        for one in self.edits:
            if one.column is None or self.settings["matched"] != "run":
                found.append(one)
                continue
            key = f"strength-{one.direction.name}"
            known = folder.find(key)
            if known is None:
                try:
                    values: list[float | None] = [*searched(work, one, self.matched_on)]
                except Unreadable:
                    values = [None for _ in one.labels]
                known = folder.keep(key, {"strength": dict(zip(one.labels, values, strict=True))})
            strengths = [known["strength"][label] for label in one.labels]
            if None not in strengths:
                found.append(Edit(one.direction, one.rule, one.column, torch.tensor(strengths)))
        return found

    @torch.no_grad()
    def _batch(self, work: Work, inversion: Inversion, edits: Sequence[Edit], again: Embed | None) -> Rows:
        """One batch: every edit drawn, read, compared with the images, embedded again."""
        names, parts = inversion.names, self.parts
        before = work.view(inversion.render())
        _, images, skipped = self.chosen.read(names)
        if images is None or skipped:
            raise BadValue(f"images that were inverted cannot be read any more: {', '.join(skipped)}")
        found: dict[str, Tensor] = dict(self.truth.inversion(before, names)) if self.truth is not None else {}
        for one in edits:
            name = one.direction.name
            strength = strengths_on(work, one, inversion)[:, 0].to(inversion.codes)
            moved = one.direction.moved(inversion.codes, strength)
            image = inversion.render(moved)
            after = work.view(image)
            mine = {"strength": strength}
            if self.identity is not None:
                seen = self.protocol.drawn(parts.picture_rows(image))
                mine["identity"] = self.identity(seen, images.to(seen.device))
            if one.column is not None and self.reader is not None:
                change = self.reader(after).float() - self.reader(before).float()
                others = torch.cat([change[:, : one.column], change[:, one.column + 1 :]], 1).abs()
                mine |= {"effect": change[:, one.column], "leakage": others.nanmean(1)}
                if self.truth is not None:
                    attribute = self.reader.names[one.column]
                    mine |= self.truth.edit(before, after, attribute, names)
            if again is not None:
                mine["lec"] = round_trip(
                    inversion.codes,
                    lambda codes, moved=moved: moved,  # type: ignore[misc]
                    lambda codes, one=one, s=strength: one.direction.moved(codes, -s),  # type: ignore[misc]
                    lambda codes, after=after: after,  # type: ignore[misc]
                    lambda drawn: again(drawn, names),
                )
            unread = strength == 0  # steps are not 0, so this image was not edited
            for key, value in mine.items():
                found[f"{key}/{name}"] = value.double().masked_fill(unread.to(value.device), torch.nan)
        return by_name(names, found)

    @torch.no_grad()
    def drawn(self, method: MethodOutputs, names: Sequence[str], rows: Rows) -> dict[str, Tensor]:
        """The edits of a few images, as their numbers were measured: name of the edit → [N, 3, h, w].

        One that was not made, as nobody can read its effect, is grey.
        """
        if method.source is None:
            return {}
        found: dict[str, dict[str, Tensor]] = {name: {} for name in self.names}
        for shown in selected(method, names, self.parts):
            for one in self.edits:
                known = [rows[name].get(f"strength/{one.direction.name}") for name in shown.names]
                strength = torch.tensor([0.0 if value is None else value for value in known])
                moved = one.direction.moved(shown.codes, strength.to(shown.codes))
                seen = self.parts.view(shown.render(moved)).float().cpu()
                seen[torch.tensor([value is None for value in known])] = 0.0
                found[one.direction.name] |= dict(zip(shown.names, seen, strict=True))
        return {edit: torch.stack([each[name] for name in names]) for edit, each in found.items()}

    # ---- who can embed again

    def encoder(self, method: MethodOutputs) -> Embed | None:
        """The encoder that a method's codes came from, as a function; None, and a note why, where there is none."""
        if not self.edits:
            return None
        try:
            embedding = reembedding(method, self.parts)
        except LsapError as error:
            embedding, reason = None, f"its encoder is not found ({' '.join(str(error).split())})"
        else:
            reason = "it has no encoder that could embed an edit again"
        if embedding is None:
            self.notes.append(f"{method.name}: no LEC, as {reason}")
            return None

        def embed(images: Tensor, names: Sequence[str]) -> Tensor:
            made = embedding.embed(images, list(names)).inversion
            codes = torch.full((len(names), *method.codes[names[0]].shape), torch.nan, device=images.device)
            for place, name in enumerate(() if made is None else made.names):
                assert made is not None
                codes[names.index(name)] = made.codes[place].to(codes)
            return codes

        return embed


def selected(method: MethodOutputs, names: Sequence[str], parts: Parts) -> Iterator[Inversion]:
    """The inversions of some images of a method, batch by batch, on the device of the parts."""
    source = method.source
    for batch in () if source is None else source.batches:
        wanted = [name for name in batch.names if name in names]
        inversion = source.load(batch, parts.generator) if source is not None and wanted else None
        if inversion is not None:
            yield inversion.select([inversion.names.index(name) for name in wanted]).to(parts.device)


def reembedding(method: MethodOutputs, parts: Parts) -> Embedding | None:
    """The embedding that made a stored run's codes, if it is an encoder and nothing refined them afterwards.

    Raises:
        BadValue, MissingFile: the encoder's file is not there any more, or another one is in its place.
    """
    source = method.source
    if source is None or isinstance(source, Bare) or method.summary.get("refinement") is not None:
        return None
    config = embedding_config(source)
    if optimises(config):
        return None
    made = Parts(config, parts.device)
    made.generator = parts.generator
    return made.embedding()


# ---- from a configuration


def edit_metrics(
    config: DictConfig, parts: Parts, chosen: Chosen, identity: Identity | None, protocol: protocols.Protocol
) -> EditMetrics:
    """The edits that a configuration asks for, by `direction`, `effect`, `strength` and `reader`.

    Raises:
        BadValue, MissingFile: as for `lsap.edit`; or more than one effect or strength.
    """
    asked = editable(config)
    published = composed("edit", [f"domain={config.domain.name}"], searchpath()).published
    OmegaConf.update(asked, "published", published, force_add=True)
    if asked.direction is None:
        asked.direction = [str(name) for name in config.domain.get("edits") or {}]
    if asked.strength is not None:
        asked.effect = None
    named = [asked.direction] if isinstance(asked.direction, str) else list(asked.direction)
    reader = editors.reader(asked, parts) if named else None
    edits = []
    for one in editors.directions(asked, parts) if named else ():
        place = editors.column(one.direction, reader, asked)
        rule = editors.strength_rule(asked, one, place is not None)
        if len(rule.steps) != 1 or not rule.steps[0]:
            raise BadValue(
                f"effect={config.effect}, strength={config.strength}: methods are compared at one effect other than 0; "
                "give one number"
            )
        edits.append(Edit(incremental(one.direction), rule, place))
    known = truth(config, chosen)
    settings = {
        "directions": [[e.direction.name, e.rule.name, list(e.rule.steps), digest(e.direction)] for e in edits],
        "reader": reader_digest(reader),
        "matched": asked.matched, "matched_on": asked.matched_on, "protocol": protocol.described,
        "generator": parts.fingerprint[:12], "truth": reader_digest(getattr(known, "reader", None)),
    }  # fmt: skip
    return EditMetrics(parts, chosen, edits, reader, known, identity, protocol, asked.matched_on, settings)


def truth(config: DictConfig, chosen: Chosen) -> Truth | None:
    """What the domain knows of these images; None where it knows nothing, or the images are not its own."""
    node = config.domain.get("truth")
    if node is None or config.images is not None:
        return None
    found: Truth = instantiate(OmegaConf.to_container(node, resolve=True), source=chosen.source)
    return found


def reader_digest(reader: Reader | None) -> str | None:
    """Fingerprint of a reader that is a network, else its label."""
    if reader is None:
        return None
    return fingerprint(reader)[:12] if isinstance(reader, torch.nn.Module) else reader_label(reader)
