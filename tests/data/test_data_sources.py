"""Where images may lie: archives and databases read as a folder is, by any number of processes, and what is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import lmdb
import pytest
import torch
from PIL import Image

import data_runs
from data_runs import fit
from image_files import Pictures, encoded, in_archive, in_database, in_folder
from lsap.data import ImageDataModule, ImageFolder, Photographs, Source, UnreadableImage, open_images
from lsap.data.archive import ZipArchive
from lsap.data.database import LmdbDatabase
from lsap.data.folder import Folder
from lsap.data.opening import open_storage
from lsap.errors import BadValue, MissingFile

SIZE = (6, 8)
WRITERS: dict[str, Callable[[Path, Pictures], Path]] = {
    "folder": in_folder,
    "archive": in_archive,
    "database": in_database,
}
twenty = {f"{number:02d}.png": encoded(10 * number) for number in range(20)}


@pytest.fixture(params=WRITERS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same twenty images in a folder, an archive and a database."""
    return WRITERS[request.param](tmp_path / "images", twenty)


# ---- the same images, wherever they lie


def test_what_lies_at_a_path_is_recognised(tmp_path: Path) -> None:
    kinds = {name: type(open_storage(write(tmp_path / name, twenty))) for name, write in WRITERS.items()}
    assert kinds == {"folder": Folder, "archive": ZipArchive, "database": LmdbDatabase}
    unnamed = in_archive(tmp_path / "download", twenty).rename(tmp_path / "download.php")
    assert isinstance(open_storage(unnamed), ZipArchive)
    assert isinstance(open_storage(tmp_path / "database" / "data.mdb"), LmdbDatabase)


def test_images_are_the_same_wherever_they_lie(root: Path, tmp_path: Path) -> None:
    found = open_images(root, SIZE)
    alike = ImageFolder(in_folder(tmp_path / "reference", twenty), SIZE)
    assert isinstance(found, Source)
    assert list(found.names) == alike.names
    assert torch.equal(found.read(range(20)), alike.read(range(20)))
    assert found.title == ""


def test_a_database_holds_webp_and_jpeg_under_keys_of_any_kind(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.mkdir()
    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"0a1f", encoded(40, "WEBP"))
        transaction.put(b"0b2e", encoded(40, "JPEG"))
        transaction.put(b"\xff\x00", encoded(40))
    images = open_images(path, SIZE)
    assert images.names == ["0a1f", "0b2e", "\\xff\x00"]
    webp, jpeg, png = images.read([0, 1, 2])
    assert (webp - png).abs().max() < 0.2
    assert (jpeg - png).abs().max() < 0.2


def test_an_archive_hides_what_a_folder_hides_and_what_a_mac_adds(tmp_path: Path) -> None:
    files = {
        "b/a.png": encoded(1),
        "a.JPG": encoded(2, "JPEG"),
        "__MACOSX/b/._a.png": b"",
        ".x/a.png": b"",
        "n.txt": b"",
    }
    storage = ZipArchive(in_archive(tmp_path / "images", files))
    assert storage.images == ["a.JPG", "b/a.png"]
    assert storage.files == ["a.JPG", "b/a.png", "n.txt"]


def test_a_source_may_be_sent_to_another_process(root: Path) -> None:
    images = open_images(root, SIZE)
    images.read([0])  # what is open here stays here
    again = pickle.loads(pickle.dumps(images))
    assert torch.equal(again.read([3]), images.read([3]))


@pytest.mark.parametrize("kind", ["archive", "database"])
def test_each_process_opens_for_itself(kind: str, tmp_path: Path) -> None:
    images = open_images(WRITERS[kind](tmp_path / "images", twenty), SIZE)
    expected = images.read(range(20))
    inherited = handle(images)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        fine = torch.equal(images.read(range(20)), expected) and handle(images) is not inherited
        os.write(write, str(fine).encode())
        os._exit(0)
    assert os.read(read, 100) == b"True"
    os.waitpid(child, 0)
    assert handle(images) is inherited
    assert torch.equal(images.read(range(20)), expected), "the child has closed nothing of ours"


def handle(images: Photographs) -> object:
    """What this process has open."""
    storage = images.storage
    assert isinstance(storage, ZipArchive | LmdbDatabase)
    return storage._archive() if isinstance(storage, ZipArchive) else storage._environment()


def test_two_sources_share_a_database_in_one_process(tmp_path: Path) -> None:
    path = in_database(tmp_path / "db", twenty)
    one, other = open_images(path, SIZE), open_images(path, (3, 4))
    assert other.read([1]).shape[-2:] == (3, 4)
    assert torch.equal(one.read([1]), open_images(path / "data.mdb", SIZE).read([1]))


def test_a_database_that_was_made_anew_is_opened_anew(tmp_path: Path) -> None:
    path = in_database(tmp_path / "db", {"a": encoded(10)})
    before = open_images(path, SIZE)
    before.read([0])
    in_database(tmp_path / "new", {"a": encoded(200), "b": encoded(0)})
    os.replace(tmp_path / "new" / "data.mdb", path / "data.mdb")
    assert len(open_images(path, SIZE)) == 2
    assert before.read([0])[0, 0].mean() > 0, "what was opened before sees the new file too"


# ---- the DataModule over them


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_and_a_start_anywhere_give_the_same_batches(root: Path, workers: int) -> None:
    def batches(num_workers: int, start: int) -> list[torch.Tensor]:
        data = ImageDataModule(open_images(root, SIZE), {}, batch_size=3, seed=5, num_workers=num_workers)
        data.batches_seen = lambda: start  # type: ignore[method-assign]
        return [batch["image"] for batch in islice(data.train_dataloader(), 12 - start)]

    alone = batches(0, 0)
    for start in (0, 7):
        helped = batches(workers, start)
        assert all(torch.equal(a, b) for a, b in zip(alone[start:], helped, strict=True))


@pytest.mark.parametrize("kind", WRITERS)
def test_broken_images_are_named_wherever_they_lie(kind: str, tmp_path: Path) -> None:
    files = twenty | {"03.png": twenty["03.png"][:-30], "07.png": b""}
    images = open_images(WRITERS[kind](tmp_path / "images", files), SIZE)
    with pytest.raises(UnreadableImage, match=r"03\.png cannot be read"):
        images.read([2, 3])
    data = ImageDataModule(images, {}, batch_size=4, seed=0, val_images=0, num_workers=2)
    for _ in islice(data.train_dataloader(), 6):
        pass
    assert data.skipped == {"train": ["03.png", "07.png"]}


def test_a_damaged_byte_in_an_archive_is_found(tmp_path: Path) -> None:
    path = in_archive(tmp_path / "images", twenty)
    bytes_ = bytearray(path.read_bytes())
    place = bytes_.index(twenty["05.png"]) + len(twenty["05.png"]) - 20
    bytes_[place] ^= 255
    path.write_bytes(bytes_)
    images = open_images(path, SIZE)
    assert images.read([4]).shape == (1, 3, *SIZE)
    with pytest.raises(UnreadableImage, match=r"05\.png cannot be read \(Bad CRC-32"):
        images.read([5])
    with pytest.raises(BadValue, match=r"images\.zip/05\.png cannot be read.*data\.strict=false"):
        open_images(path, SIZE, strict=True).read([5])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_stopped_in_mid_epoch_goes_on_alike_with_any_number_of_workers(root: Path, tmp_path: Path) -> None:
    def data(workers: int) -> ImageDataModule:
        return ImageDataModule(open_images(root, SIZE), {}, batch_size=4, seed=7, val_images=3, num_workers=workers)

    unbroken = fit(tmp_path / "a", data(0), 9)
    assert len(unbroken.shown) == 9
    for workers in (0, 1, 4):
        resumed = fit(tmp_path / str(workers), data(workers), 9, ckpt=tmp_path / "a" / "step=5.ckpt")
        assert resumed.shown == unbroken.shown[5:]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["archive", "database"])
def test_two_training_processes_with_workers_see_what_one_sees(kind: str, tmp_path: Path) -> None:
    """Forked after the main process has read: two trainers, each with a worker, on one archive or database."""
    path = WRITERS[kind](tmp_path / "images", twenty)
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import json, sys
from pathlib import Path
sys.path.insert(0, {str(Path(data_runs.__file__).parent)!r})
import data_runs
from lsap.data import ImageDataModule, open_images
out = Path({str(tmp_path)!r})

class Writer(data_runs.Watcher):
    def on_fit_end(self):
        (out / f"{{self.global_rank}}.json").write_text(json.dumps(self.shown))

images = open_images({str(path)!r}, {SIZE!r})
images.read([0])
data = ImageDataModule(images, {{}}, batch_size=4, seed=7, val_images=4, num_workers=1)
data_runs.fit(out, data, 6, model=Writer(), devices=2, strategy="ddp_fork")
"""
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(program)], env=environment, timeout=500, check=True)
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    alone = ImageDataModule(open_images(path, SIZE), {}, batch_size=4, seed=7, val_images=4)
    expected = [(b["index"].tolist(), float(b["image"].double().sum())) for b in islice(alone.train_dataloader(), 6)]
    assert [a[0] + b[0] for a, b in zip(one, other, strict=True)] == [indices for indices, _ in expected]
    sums = [a[1] + b[1] for a, b in zip(one, other, strict=True)]
    assert sums == pytest.approx([total for _, total in expected])


# ---- what cannot be used


def test_a_database_that_was_cut_short_is_refused_before_it_is_touched(tmp_path: Path) -> None:
    path = in_database(tmp_path / "db", {f"{i:03d}": os.urandom(5000) for i in range(50)})
    whole = (path / "data.mdb").read_bytes()
    for size, said in ((len(whole) // 2, "is cut short"), (9000, "is cut short"), (100, "cannot be opened"), (0, "")):
        copy = tmp_path / f"cut to {size}"
        copy.mkdir()
        (copy / "data.mdb").write_bytes(whole[:size])
        with pytest.raises(BadValue, match=f"^data.root={copy}: data.mdb {said}") as caught:
            open_images(copy, SIZE)
        assert "download or unpack it again" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_is_no_archive_or_an_empty_one_is_refused(tmp_path: Path) -> None:
    whole = in_archive(tmp_path / "images", twenty)
    short = tmp_path / "short.zip"
    short.write_bytes(whole.read_bytes()[:-100])
    empty = in_archive(tmp_path / "empty", {"notes.txt": b"none"})
    inner = in_archive(tmp_path / "church_outdoor_train_lmdb", {"church_outdoor_train_lmdb/data.mdb": b"x"})
    (tmp_path / "void").mkdir()
    with lmdb.open(str(tmp_path / "void"), map_size=2**20):
        pass
    cases: list[tuple[Path, type[Exception], str]] = [
        (short, BadValue, f"{short} cannot be read as a zip archive .* cut short: it has {short.stat().st_size} bytes"),
        (empty, BadValue, r"empty\.zip holds no image"),
        (inner, BadValue, "holds an LMDB, which cannot be read inside a zip archive: unpack it"),
        (tmp_path / "void", BadValue, "is an LMDB without entries"),
        (tmp_path / "absent", MissingFile, "absent: no such folder"),
    ]
    for path, kind, said in cases:
        with pytest.raises(kind, match=said) as caught:
            open_images(path, SIZE)
        assert str(caught.value).startswith("data.root=")
        assert "\n" not in str(caught.value)


def test_without_the_package_a_database_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = in_database(tmp_path / "db", twenty)
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(BadValue, match="needs the package lmdb: pip install lmdb"):
        open_images(path, SIZE)


def test_messages_name_the_setting_that_was_wrong(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"^data\.test_root=.*absent"):
        open_images(tmp_path / "absent", SIZE, setting="data.test_root")


def test_pictures_come_upright_at_their_own_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "JPEG", exif=exif)
    images = open_images(in_archive(tmp_path / "a", {"a.jpg": buffer.getvalue()}), SIZE)
    assert isinstance(images, Photographs)
    assert images.picture(0).size == (10, 20)
