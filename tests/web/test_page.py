"""`python -m lsap.app`: what the page does, without a browser; and the page in a real one."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from commands import Command
from image_files import stripes
from lsap.checkpoints import Direction, read_card, read_codes, write_direction
from lsap.config.compose import composed
from lsap.demo.weights import load_generator, load_reader
from lsap.errors import BadValue, MissingFile
from lsap.runs import write_json
from lsap.runs.folder import Record
from lsap.web import page as app
from lsap.web.session import SHOWN, Playground, Turn, shown, trained_encoders

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NOTHING = SimpleNamespace(  # stands in for gradio: what the page's values are told to be
    skip=lambda: "unchanged", Radio=lambda there, value: (there, value), DownloadButton=lambda **changes: changes
)


def settings(own: list[str], *more: str) -> DictConfig:
    """The configuration of the page for a domain of one's own."""
    domain, *others = own
    config = composed("app", [f"source={domain.removeprefix('domain=')}", "steps=2", "samples=3", *more])
    config.settings = [*others, "lambda_lpips=0", "lambda_l2=1", "lambda_id=0"]
    return config


@pytest.fixture(scope="module")
def tiny(own: list[str], tmp_path_factory: pytest.TempPathFactory) -> Playground:
    """A playground of a tiny generator, with one direction."""
    config = settings(own, "embeddings=[lsap_o_wplus,stylegan2_w]")
    outputs = tmp_path_factory.mktemp("outputs")
    config.settings = [*config.settings, f"outputs={outputs}"]
    found = Playground(config)
    generator = found.first._parts
    red = Direction(name="red", vector=torch.ones(16), generator=generator.fingerprint, usable=(-2.0, 2.5))
    write_direction(red, outputs / "church" / "directions" / "red.safetensors")
    return found


def test_an_encoder_that_is_not_there_is_named_whatever_its_domain(tmp_path: Path) -> None:
    config = composed("app", [f"source={tmp_path / 'e4e.pt'}", "shows=face"])
    with pytest.raises(MissingFile, match=r"e4e\.pt.*no such file"):
        Playground(config)


@pytest.fixture
def turn(tiny: Playground) -> Turn:
    return tiny.invert(tiny.upload(png()), "lsap_o_wplus")


def png(size: tuple[int, int] = (40, 30), colour: str = "teal") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


# ---- settings


def test_nobody_but_this_machine_sees_it_by_default() -> None:
    config = composed("app")
    assert (config.host, config.source, config.upload_mb) == ("127.0.0.1", "demo", 10)


def test_without_gradio_there_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = command("app", "open=false")
    assert (done.code, done.out) == (2, "")
    assert done.err.strip() == "error: the page needs gradio (gradio is not installed): pip install 'lsap[app]'"


@pytest.mark.parametrize("setting", ["steps=0", "upload_mb=-1", "port=high", "samples=null"])
def test_numbers_are_checked(setting: str) -> None:
    with pytest.raises(BadValue, match=setting.split("=")[0]):
        Playground(composed("app", [setting]))


def test_what_gradio_keeps_is_removed_at_the_end() -> None:
    before = {name: os.environ.get(name) for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED")}
    with app.own_folder() as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        (folder / "upload.png").write_bytes(png())
    assert not folder.exists()
    assert {name: os.environ.get(name) for name in before} == before
    seen: list[Path] = []

    def killed() -> None:
        with app.own_folder() as folder:
            seen.append(folder)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert not seen[0].exists()


# ---- what is offered


def test_embeddings_that_work_are_offered(tiny: Playground, own: list[str]) -> None:
    assert tiny.embeddings == ["lsap_o_wplus", "stylegan2_w"]
    assert tiny.inverter("stylegan2_w").config.steps == 2
    some = Playground(settings(own, "embeddings=null", "candidates=[lsap_e,lsap_o_w]"))
    assert some.embeddings == ["lsap_o_w"], "no encoder was trained"
    with pytest.raises(MissingFile, match="has not been trained"):
        Playground(settings(own, "embeddings=[lsap_e]"))
    with pytest.raises(BadValue, match="embedding=lsap_e is not offered here"):
        tiny.inverter("lsap_e")


def run(folder: Path, status: str = "finished", **settings: Any) -> Path:
    """What is read of a training to list it: its record, and that there is an encoder."""
    folder.mkdir(parents=True)
    (folder / "encoder.safetensors").touch()
    write_json(folder / "run.json", asdict(Record(settings, cast(Any, status))))
    return folder


def test_every_trained_encoder_is_listed_by_its_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usual = {"lambda_nscd": 0.5, "seed": 0, "max_steps": 900, "generator": "19b61f", "view.size": 64}
    plain = run(tmp_path / "demo/lsap_e/default", **usual)
    without = run(tmp_path / "demo/lsap_e/lambda_nscd=0.0", **usual | {"lambda_nscd": 0.0})
    short = run(tmp_path / "demo/e4e/a", **usual | {"lambda_nscd": 0.0, "max_steps": 30, "seed": 2})
    other = run(tmp_path / "demo/e4e/b", **usual | {"lambda_nscd": 0.0, "max_steps": 30, "seed": 2, "images": "19b6"})
    hostile = run(tmp_path / "demo/psp/c", **usual | {"seed": "<img src=x>", "lr": ["${oc.env:HOME}"]})
    run(tmp_path / "demo/psp/running", "running", **usual)
    run(tmp_path / "demo/unknown/d", **usual)
    damaged = run(tmp_path / "demo/psp/damaged") / "run.json"
    damaged.write_text("{")
    assert trained_encoders("demo", [f"outputs={tmp_path}"]) == {
        "lsap_e, lambda_nscd=0.5": plain,
        "e4e, lambda_nscd=0, seed=2, max_steps=30": short,
        "e4e, lambda_nscd=0, seed=2, max_steps=30 (b)": other,
        "lsap_e, lambda_nscd=0": without,
        "psp, lambda_nscd=0.5": hostile,
    }
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert f"{damaged.parent} is not offered" in said[0]
    assert f"{tmp_path / 'demo/unknown/d'} is not offered: embedding=unknown: there is no such embedding" in said[1]
    assert trained_encoders("demo", [f"outputs={tmp_path / 'none'}"]) == {}


def test_an_encoder_that_cannot_be_loaded_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tmp_path / "demo/lsap_e/default", lambda_nscd=0.5)
    demo = Playground(composed("app", ["candidates=[lsap_o_wplus]", f"settings=['outputs={tmp_path}']"]))
    assert demo.embeddings == ["lsap_o_wplus"]
    assert f"{folder} is not offered" in capsys.readouterr().err


def test_refinements_that_work_are_offered(tiny: Playground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert tiny.refinements("lsap_o_wplus") == ["none"], "the judge that PTI looks through is not here"
    demo = Playground(composed("app", ["embeddings=[lsap_o_wplus]"]))
    assert demo.refinements("lsap_o_wplus") == ["none", "pti"], "the networks of SAM and HFGI were not trained"
    assert {"smile", "pose"} <= {slider.direction.name for slider in demo.sliders}


def test_directions_have_sliders_over_their_usable_range(tiny: Playground) -> None:
    (slider,) = tiny.sliders
    assert (slider.direction.name, slider.low, slider.high) == ("red", -2.0, 2.5)
    assert tiny.samples is None, "this domain has no test images at hand"


# ---- what a visitor does


def test_a_picture_that_is_sent_is_read(tiny: Playground) -> None:
    photo = tiny.upload(png())
    assert photo.images.shape == (1, 3, 32, 32)
    teal = torch.tensor([0, 128, 128]) / 127.5 - 1
    assert torch.equal(photo.images[0, :, 5, 5], teal)


def test_what_is_no_picture_is_refused(tiny: Playground) -> None:
    for data, told in (
        (b"\x89PNG\r\n\x1a\n and then nothing", "no picture that can be read"),
        (png()[:60], "no picture that can be read"),
        (b"", "no picture that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "no picture that can be read"),
        (b"import os", "no picture that can be read"),
        (bytes(10_000_001), r"this file has 10\.0 MB; at most 10 MB"),
        (png((8000, 6000)), "8000x6000 pixels; at most 40 million"),
    ):
        with pytest.raises(BadValue, match=told):
            tiny.upload(data)


def test_an_inversion_has_numbers_beside_the_generators_own(tiny: Playground, turn: Turn) -> None:
    rows = tiny.numbers(turn, turn.inversion)
    assert [row[0] for row in rows] == ["inversion", "edit", "synthetic"]
    assert rows[0] == ("inversion", f"{turn.row['mse']:.4f}", "–", f"{turn.row['nscd']:.4f}"), "there is no judge here"
    assert rows[1][3] == rows[0][3], "nothing is edited yet"
    assert rows[2][3] == f"{turn.inverter.synthetic:.4f}"
    assert tiny.changes(turn, turn.inversion) == {}


def test_sliders_act_together_and_start_from_the_inversion(tiny: Playground, turn: Turn) -> None:
    assert tiny.edited(turn, [0.0]) is turn.inversion
    moved = tiny.edited(turn, [1.5])
    assert torch.allclose(moved.codes, turn.inversion.codes + 1.5)
    assert shown(turn.inverter, moved).size == (SHOWN, SHOWN)


def test_codes_can_be_taken_away_and_go_with_the_turn(tiny: Playground) -> None:
    turn = tiny.invert(tiny.upload(png()), "stylegan2_w")
    assert turn.inversion.history == ("stylegan2_w",)
    for edited, names in ((turn.inversion, ("upload",)), (tiny.edited(turn, [1.0]), ("upload", "upload edited"))):
        file = tiny.file(turn, edited)
        assert read_codes(file, n_latent=8, style_dim=16).names == names
        assert read_card(file)["generator"] == turn.inversion.generator
    del turn
    assert not file.parent.exists()


def test_the_progress_of_both_stages_is_one() -> None:
    demo = Playground(composed("app", ["embeddings=[lsap_o_wplus]", "steps=2", "refinement_steps=2"]))
    assert app.Acts(NOTHING, demo).sample(SimpleNamespace(index=1))[0].names == ("rich-test-00001",)
    shares: list[float] = []
    turn = demo.invert(demo.sample(0), "lsap_o_wplus", "pti", lambda share, _: shares.append(share))
    assert turn.inversion.history == ("lsap_o_wplus", "pti")
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    place = [slider.direction.name for slider in demo.sliders].index("smile")
    strengths = [0.0] * len(demo.sliders)
    strengths[place] = 2.0
    assert demo.changes(turn, demo.edited(turn, strengths))["smile"] > 0.5


# ---- the page's values


def test_a_mistake_is_a_line_on_the_page_and_changes_nothing(tiny: Playground, tmp_path: Path) -> None:
    acts = app.Acts(NOTHING, tiny)
    file = tmp_path / "sent.png"
    file.write_bytes(b"no <picture>")
    field, *others, told = acts.upload(str(file))
    assert (field, others) == (None, ["unchanged"] * 8)
    assert told.startswith('<span class="wrong">this is no picture that can be read')
    assert not file.exists(), "what was sent is not kept"
    *others, told = acts.invert(lambda *_, **__: None, None, "lsap_o_wplus", "none", 0.0)
    assert set(others) == {"unchanged"}
    assert "Choose a sample or upload an image first." in told
    *others, told = acts.invert(lambda *_, **__: None, tiny.upload(png()), "lsap<o", "none", 0.0)
    assert set(others) == {"unchanged"}
    assert "embedding=lsap&lt;o is not offered here" in told
    assert acts.edit(None, None, 1.0) == ("unchanged",) * 4 + ("",)
    assert acts.embedding("lsap_e", "none")[0] == "unchanged"


def test_a_new_picture_clears_the_results_of_the_one_before(tiny: Playground, turn: Turn, tmp_path: Path) -> None:
    acts = app.Acts(NOTHING, tiny)
    file = tmp_path / "sent.png"
    file.write_bytes(png(colour="red"))
    field, photo, picture, *cleared, codes, told = acts.upload(str(file))
    assert (field, photo.names, picture.size, told) == (None, ("sent.png",), (SHOWN, SHOWN), "")
    assert cleared == [None, None, None, "", ""], "turn, inversion, edit, numbers, changes"
    assert codes == {"value": None, "interactive": False}
    assert acts.edit(photo, turn, 1.0) == ("unchanged",) * 4 + ("",), "this inversion is of another picture"


def test_a_visit_from_picture_to_codes(tiny: Playground, tmp_path: Path) -> None:
    acts = app.Acts(NOTHING, tiny)
    file = tmp_path / "sent.png"
    file.write_bytes(png())
    _, photo, picture, *_ = acts.upload(str(file))
    assert picture.size == (SHOWN, SHOWN)
    said: list[str] = []
    turn, inverted, edited, numbers, changes, codes, told = acts.invert(
        lambda share, desc: said.append(desc), photo, "lsap_o_wplus", "none", 1.0
    )
    assert set(said) == {"lsap_o_wplus"}
    assert np.any(np.asarray(inverted) != np.asarray(edited)), "sliders that stand elsewhere count at once"
    assert "synthetic" in numbers
    assert "lsap_o_wplus" in numbers
    assert changes == ""
    assert told == app.warned(turn.warning)
    assert Path(codes["value"]).is_file()
    assert len(acts.edit(photo, turn, 0.0)) == 5
    assert acts.embedding("stylegan2_w", "pti") == ((["none"], "none"), "")


# ---- the page in a browser


@contextmanager
def served(folder: Path, *settings: str, url: str) -> Iterator[str]:
    """The page as a user starts it in a folder, until it answers; what it says while it runs is in `folder/log`."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is of the extra app")
    environment, log = os.environ | {"TMPDIR": str(folder), "BROWSER": "true"}, folder / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "lsap.app", *settings], cwd=folder, env=environment, stdout=out, stderr=out
        )
    limit = time.monotonic() + 900
    try:
        while time.monotonic() < limit:
            assert server.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(url, timeout=10).close()
                break
            except OSError:
                time.sleep(1)
        yield url
    finally:
        server.terminate()
        server.wait(60)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The page of the demo with short optimisations, and the folder for its temporary files."""
    folder, port = tmp_path_factory.mktemp("temporary"), free_port()
    short = ["steps=20", "refinement_steps=5", "samples=4", "embeddings=[lsap_o_wplus,stylegan2_wplus]", "upload_mb=1"]
    with served(folder, f"port={port}", "open=false", *short, url=f"http://127.0.0.1:{port}") as url:
        yield url, folder
    assert [path.name for path in folder.iterdir() if path.name.startswith("lsap-app-")] == [], "nothing is kept"


@contextmanager
def opened(url: str) -> Iterator[Any]:
    """The page in a browser."""
    if BROWSER is None:
        pytest.skip("no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is of the extra dev")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(url)
        yield page
        browser.close()


@pytest.fixture
def page(address: tuple[str, Path]) -> Iterator[Any]:
    """The page of `address`, opened in a browser."""
    with opened(address[0]) as page:
        yield page


Look = Callable[[str], torch.Tensor]


@pytest.fixture
def look(page: Any, address: tuple[str, Path]) -> Look:
    """`look("edit")`: what the visitor sees there, [1, 3, 64, 64] in [-1, 1]."""

    def seen(name: str) -> torch.Tensor:
        source = page.locator(f"#{name} img").first.get_attribute("src")
        data = page.request.get(source if source.startswith("http") else address[0] + source).body()
        picture = Image.open(io.BytesIO(data)).convert("RGB").resize((64, 64), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1

    return seen


def take(page: Any, name: str) -> None:
    """A screenshot, where LSAP_SCREENSHOTS names a folder for them."""
    if folder := os.environ.get("LSAP_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@pytest.mark.slow
def test_a_sample_is_inverted_and_the_slider_moves_the_smile(page: Any, look: Look) -> None:
    from playwright.sync_api import expect

    page.locator("#samples button img").first.click()
    expect(page.locator("#input img")).to_be_visible()
    take(page, "chosen")
    page.locator("#invert").click()
    expect(page.locator("#edit img")).to_be_visible(timeout=300_000)
    expect(page.locator("#numbers")).to_contain_text("synthetic")
    take(page, "inverted")
    before, source = look("edit"), page.locator("#edit img").first.get_attribute("src")
    assert (before - look("inversion")).abs().mean() < 0.01, "nothing is edited yet"
    number = page.locator("#slider-smile input[type=number]")
    number.fill("2")
    number.press("Tab")
    expect(page.locator("#edit img").first).not_to_have_attribute("src", source)
    expect(page.locator("#changes")).to_contain_text("smile")
    after, reader = look("edit"), load_reader()
    assert (after - before).abs().mean() > 0.005, "the picture changes"
    smile = list(reader.names).index("smile")
    assert (reader(after) - reader(before))[0, smile] > 0.5, "and the reader sees the smile"
    take(page, "smiling")
    with page.expect_download() as download:
        page.locator("#codes").click()
    assert download.value.suggested_filename.startswith("codes-lsap_o_wplus")
    generator = load_generator()
    kept = read_codes(download.value.path(), n_latent=generator.n_latent, style_dim=generator.style_dim)
    assert kept.names == ("rich-test-00000", "rich-test-00000 edited")


@pytest.mark.slow
def test_a_corrupt_upload_gets_a_message_and_is_not_kept(page: Any, address: tuple[str, Path]) -> None:
    from playwright.sync_api import expect

    field = page.locator("#upload input[type=file]")
    field.set_input_files({"name": "secret.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n broken"})
    expect(page.locator("#notice")).to_contain_text("this is no picture that can be read")
    take(page, "corrupt")
    page.locator("#upload input[type=file]").set_input_files(
        {"name": "mine.png", "mimeType": "image/png", "buffer": png()}
    )
    expect(page.locator("#input img")).to_be_visible()
    expect(page.locator("#notice")).not_to_contain_text("no picture")
    take(page, "uploaded")
    assert not [path for path in address[1].rglob("*.png") if path.name in ("secret.png", "mine.png")]


@pytest.mark.slow
def test_files_that_are_too_large_or_none_of_the_pages_are_refused(page: Any, address: tuple[str, Path]) -> None:
    from playwright.sync_api import expect

    page.locator("#upload input[type=file]").set_input_files(
        {"name": "large.png", "mimeType": "image/png", "buffer": bytes(1_500_000)}
    )
    expect(page.get_by_text("exceed the maximum allowed size", exact=False).first).to_be_visible()
    take(page, "large")
    for path in ("/etc/hostname", str(Path(app.__file__))):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address[0]}/gradio_api/file={path}", timeout=20)
        assert refused.value.code in (403, 404)


def is_cleared(page: Any) -> None:
    """Nothing is shown of an earlier picture."""
    from playwright.sync_api import expect

    for name in ("inversion", "edit"):
        expect(page.locator(f"#{name} img")).to_have_count(0)
    for name in ("numbers", "changes", "notice"):
        expect(page.locator(f"#{name}")).not_to_contain_text(re.compile(r"\w"))
    expect(page.locator("#codes")).to_be_disabled()


@pytest.mark.slow
def test_the_documented_command_serves_the_page_in_an_empty_folder(tmp_path: Path) -> None:
    from playwright.sync_api import expect

    with served(tmp_path, url="http://127.0.0.1:7860") as url, opened(url) as page:
        expect(page.get_by_role("radio", name="lsap_o_wplus", exact=True)).to_be_checked()
        expect(page.locator("#samples button img")).to_have_count(8)
        take(page, "start")
        page.locator("#invert").click()
        expect(page.locator("#notice")).to_have_text("Choose a sample or upload an image first.")
        page.locator("#samples button img").first.click()
        expect(page.locator("#input img")).to_be_visible()
        page.locator("#invert").click()
        expect(page.locator("#edit img")).to_be_visible(timeout=600_000)
        take(page, "start-inverted")
    assert (tmp_path / "log").read_text().startswith(url)


@pytest.mark.slow
def test_another_picture_clears_the_results_also_while_an_inversion_runs(page: Any, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    sample = page.locator("#samples button img")
    sample.first.click()
    expect(page.locator("#input img")).to_be_visible()
    page.locator("#invert").click()
    expect(page.locator("#edit img")).to_be_visible(timeout=300_000)
    sample.nth(1).click()
    is_cleared(page)
    take(page, "cleared")
    page.locator("#invert").click()
    expect(page.locator("#inversion")).to_contain_text("lsap_o_wplus", timeout=60_000)  # its progress
    page.locator("#upload input[type=file]").set_input_files(stripes(tmp_path / "stripes.png"))
    is_cleared(page)
    page.wait_for_timeout(15_000)  # the inversion that was running ends meanwhile
    is_cleared(page)
    page.locator("#invert").click()
    expect(page.locator("#edit img")).to_be_visible(timeout=300_000)
    expect(page.locator("#notice")).to_contain_text("stripes.png: the error of its inversion is near or above")
    take(page, "warned")
    before = page.locator("#input img").first.get_attribute("src")
    sample.nth(1).click()  # the one that was chosen before the upload
    expect(page.locator("#input img").first).not_to_have_attribute("src", before)
    is_cleared(page)


@pytest.mark.slow
def test_a_trained_encoder_is_offered_and_works(tmp_path: Path) -> None:
    from playwright.sync_api import expect

    typed = ["-m", "lsap.train", "lambda_nscd=0", "max_steps=2", "data.train.count=64", "data.val_images=16"]
    subprocess.run([sys.executable, *typed], cwd=tmp_path, check=True, capture_output=True, timeout=900)
    port = free_port()
    with served(tmp_path, f"port={port}", "open=false", url=f"http://127.0.0.1:{port}") as url, opened(url) as page:
        expect(page.get_by_role("radio", name="lsap_e, lambda_nscd=0, max_steps=2", exact=True)).to_be_checked()
        page.locator("#samples button img").first.click()
        expect(page.locator("#input img")).to_be_visible()
        page.locator("#invert").click()
        expect(page.locator("#edit img")).to_be_visible(timeout=300_000)
        expect(page.locator("#numbers caption")).to_have_text("lsap_e, lambda_nscd=0, max_steps=2")
        take(page, "trained")
