"""`python -m lsap.check domain=church`: look at a data set before days of training depend on it.

Counts against the paper's, sizes, the names of images that cannot be read, a contact sheet. What differs is a warning:
nobody has to use the paper's data sets. A path that cannot be read at all is an error, the same as in training.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader, Dataset

from lsap.config.checks import check_root
from lsap.config.containers import editable
from lsap.data import Photographs, Source, UnreadableImage
from lsap.data.batches import as_it_is
from lsap.data.storage import counted as by_suffix
from lsap.data.storage import left_out
from lsap.reports.pictures import save, sheet
from lsap.runs import write_json

Size = tuple[int, int]  # height, width
MANY = 2000  # images of a split: from there on it is said before they are read


class Look(NamedTuple):
    """What one image turned out to be: its size, or why it cannot be read."""

    number: int
    size: Size | None
    reason: str


class Looks(Dataset[Look]):
    """Each of these images of a source decoded once."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.source = source
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Look:
        index = self.indices[place]
        try:
            if isinstance(self.source, Photographs):
                picture = self.source.picture(index)
                return Look(index, (picture.height, picture.width), "")
            height, width = self.source.read([index]).shape[-2:]
            return Look(index, (height, width), "")
        except UnreadableImage as error:
            return Look(index, None, error.reason)


@dataclass
class Report:
    """What was found in one split."""

    split: str
    root: str
    data_set: str  # the recognised one, or empty
    images: int
    looked_at: int
    sizes: dict[str, int] = field(default_factory=dict)  # "height x width": how many, most frequent first
    unreadable: dict[str, str] = field(default_factory=dict)  # name: reason
    left_out: dict[str, int] = field(default_factory=dict)  # suffix of files that are not read: how many
    warnings: list[str] = field(default_factory=list)
    contact_sheet: str = ""


def check(config: DictConfig) -> list[Report]:
    """Look at every split of a domain; writes `check.json` and a contact sheet per split, prints what was found.

    Raises:
        BadValue, MissingFile: images cannot be opened at all, as in training.
    """
    check_root(config)
    config = editable(config)
    if "strict" in config.data:
        config.data.strict = False  # all broken images are wanted, not the first
    folder = Path(config.outputs) / config.domain.name / "check"
    reports: list[Report] = []
    found = sources(config.data)
    for split, source in found.items():
        indices = spread(len(source), config.sample)
        if len(indices) > MANY:
            how = "reads" if isinstance(source, Photographs) else "renders"
            print(f"{split}: {how} {len(indices)} images, for minutes; sample=500 looks at fewer", file=sys.stderr)
        looks = list(progress(split, len(indices), look(source, indices, config.data.num_workers)))
        report = described(split, source, looks)
        report.warnings += differences(report, config)
        readable = [one.number for one in looks if one.size is not None]
        if readable:
            shown = [readable[place] for place in spread(len(readable), config.shown)]
            images = torch.cat([source.read([index]) for index in shown])
            report.contact_sheet = str(save(sheet(images), folder / f"{split.replace('/', '-')}.png"))
        reports.append(report)
    mixed_up(reports, found)
    write_json(folder / "check.json", {"domain": config.domain.name, "splits": [asdict(report) for report in reports]})
    for report in reports:
        print(report_text(config.domain.name, report))
    warned = sum(len(report.warnings) for report in reports)
    print(f"{folder}/check.json: {warned or 'no'} warning{'' if warned == 1 else 's'}")
    return reports


def sources(data: DictConfig) -> dict[str, Source]:
    """The sources of a domain by the names that training gives them."""
    found: dict[str, Source] = {"train": instantiate(data.train, _convert_="all")}
    found |= {f"test/{name}": instantiate(node, _convert_="all") for name, node in data.tests.items()}
    test = instantiate(data.test, _convert_="all") if "test" in data else None
    return found if test is None else found | {"test": test}


def spread(total: int, wanted: int | None) -> list[int]:
    """`wanted` indices (or all) evenly spread over `total`, the first included."""
    if wanted is None or wanted >= total:
        return list(range(total))
    return [number * total // wanted for number in range(wanted)]


def look(source: Source, indices: Sequence[int], num_workers: int) -> Iterable[Look]:
    """Decode images in worker processes, in order."""
    return DataLoader(
        Looks(source, indices), batch_size=None, num_workers=num_workers, collate_fn=as_it_is,
        generator=torch.Generator(),
    )  # fmt: skip


def progress(split: str, total: int, looks: Iterable[Look]) -> Iterator[Look]:
    """Pass looks on and say every ten seconds how far they are."""
    printed = time.monotonic()
    for done, one in enumerate(looks, 1):
        if time.monotonic() - printed > 10:
            printed = time.monotonic()
            print(f"{split}: {done} of {total} images", file=sys.stderr)
        yield one


def described(split: str, source: Source, looks: Sequence[Look]) -> Report:
    """The facts about a split, without judgement."""
    photographs = source if isinstance(source, Photographs) else None
    sizes = Counter(one.size for one in looks if one.size is not None)
    return Report(
        split,
        root=str(photographs.root) if photographs else "rendered",
        data_set=photographs.title if photographs else "",
        images=len(source),
        looked_at=len(looks),
        sizes={f"{height}x{width}": count for (height, width), count in sizes.most_common()},
        unreadable={source.names[one.number]: one.reason for one in looks if one.size is None},
        left_out=left_out(photographs.storage) if photographs and not photographs.title else {},
    )


def differences(report: Report, config: DictConfig) -> list[str]:
    """What is not as published, or not as it should be."""
    found = []
    split = "train" if report.split == "train" else "test"
    published: list[dict[str, Any]] = []
    if "published" in config.data:
        published = OmegaConf.to_container(config.data.published[split], resolve=True)  # type: ignore[assignment]
    names = {entry["set"] for entry in published}
    if published and report.data_set and report.data_set not in names:
        found.append(f"this is {report.data_set}, but domain={config.domain.name} is {' or '.join(sorted(names))}")
    if published and report.images not in {entry["count"] for entry in published}:
        nearest = min((entry["count"] for entry in published), key=lambda count: abs(count - report.images))
        amount = f"{abs(report.images - nearest)} {'fewer' if report.images < nearest else 'more'}"
        found.append(f"{counted(report.images)}, but {' or '.join(map(_described, published))}: {amount}")
    readable = report.looked_at - len(report.unreadable)
    expected = {f"{entry['size'][0]}x{entry['size'][1]}" for entry in published if "size" in entry}
    others = {size: count for size, count in report.sizes.items() if expected and size not in expected}
    if others:
        found.append(
            f"{sum(others.values())} of {readable} images are not {' or '.join(sorted(expected))} as published, "
            f"most of them {max(others, key=lambda size: others[size])}"
        )
    if "image_size" in config:
        height, width = config.image_size
        small = sum(
            n for size, n in report.sizes.items() if int(size.split("x")[0]) < height or int(size.split("x")[1]) < width
        )
        if small:
            found.append(f"{small} of {readable} images are smaller than the encoder's input, {height}x{width}")
    if report.unreadable:
        found.append(f"{len(report.unreadable)} of {report.looked_at} images cannot be read; training leaves them out")
    return found


def _described(entry: dict[str, Any]) -> str:
    """One published split in words."""
    version = f" (version {entry['version']})" if "version" in entry else ""
    return f"{entry['set']}{version} has {entry['count']}"


def counted(images: int) -> str:
    """A number of images in words."""
    return "1 image" if images == 1 else f"{images} images"


def mixed_up(reports: Sequence[Report], found: dict[str, Source]) -> None:
    """Warn of images that are trained on and tested with."""
    trained = {(report.root, name) for report in reports if report.split == "train" for name in found["train"].names}
    for report in reports:
        if report.split != "train":
            both = [name for name in found[report.split].names if (report.root, name) in trained]
            if both:
                report.warnings.append(f"{len(both)} of its images are trained on too (the first: {both[0]})")


def report_text(domain: str, report: Report) -> str:
    """A report for the terminal."""
    where = f"{report.root} ({report.data_set})" if report.data_set else report.root
    looked = "all read" if report.looked_at == report.images else f"{report.looked_at} of them read"
    sizes = [f"{count} of {size}" for size, count in list(report.sizes.items())[:3]]
    if len(report.sizes) > 3:
        sizes.append(f"{len(report.sizes) - 3} other sizes")
    lines = [f"{domain} {report.split}: {where}", f"  {counted(report.images)}, {looked}: {', '.join(sizes) or 'none'}"]
    if report.left_out:
        lines.append(f"  left out: {by_suffix(report.left_out)}")
    lines += [f"  warning: {warning}" for warning in report.warnings]
    lines += [f"    {name}: {reason}" for name, reason in list(report.unreadable.items())[:10]]
    if len(report.unreadable) > 10:
        lines.append(f"    and {len(report.unreadable) - 10} more, all in check.json")
    if report.contact_sheet:
        lines.append(f"  contact sheet: {report.contact_sheet}")
    return "\n".join(lines)
