"""`lsap.load`: from a name or a file to an object that inverts, scores, edits, refines and keeps."""

from __future__ import annotations

import doctest
import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import lsap
from commands import Command
from comparison import assert_close_l2
from layouts import published, pyramid, sixteen_pixels
from lsap.api import image_inputs as given
from lsap.api import inverter, loading
from lsap.api.inverter import Inverter
from lsap.checkpoints import Direction, fingerprint, read_codes, write_direction, write_state
from lsap.config.compose import composed
from lsap.errors import BadValue, MissingFile
from lsap.pipelines.build import Parts
from lsap.pipelines.devices import device_of
from lsap.pipelines.inversion import invert
from lsap.pipelines.run_identity.encoders import run_folder
from lsap.pipelines.training import train
from pages import ROOT
from small_runs import ENCODER

SHORT = ["lambda_lpips=0", "lambda_l2=1", "steps=3", "images_per_batch=3"]
PTI = {"lambda_lpips": 0, "steps": 3}


@pytest.fixture(scope="module")
def tiny(own: list[str]) -> Inverter:
    """An inverter of a domain of one's own, by an optimisation of three steps."""
    domain, *settings = own
    return lsap.load(domain.removeprefix("domain="), *settings, *SHORT, embedding="lsap_o_wplus")


@pytest.fixture(scope="module")
def inversion(tiny: Inverter, images: Path) -> lsap.inversion.Inversion:
    return tiny.embed(images)


@pytest.fixture(scope="module")
def red(tiny: Inverter) -> Direction:
    vector = torch.randn(16, generator=torch.Generator().manual_seed(3))
    return Direction(name="red", vector=vector, generator=fingerprint(tiny._parts.generator))


# ---- the package


def test_importing_lsap_loads_nothing_else() -> None:
    told = "import lsap, sys; print(sorted(m for m in sys.modules if m in ('torch', 'hydra', 'numpy')), lsap.__all__)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[] ['Inverter', 'Pictures', 'load']"


def test_the_front_door_of_the_package() -> None:
    assert (lsap.load, lsap.Inverter, lsap.Pictures) == (loading.load, inverter.Inverter, given.Pictures)
    assert {"load", "Inverter", "Pictures", "__version__"} <= set(dir(lsap))
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        lsap.lod  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("module", [inverter, loading])
def test_the_examples_run(module: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.failed == 0
    assert result.attempted


def test_everything_public_is_typed() -> None:
    for name, member in vars(Inverter).items():
        called = member.fget if isinstance(member, property) else member
        if callable(called) and not name.startswith("_"):
            assert "return" in called.__annotations__, name
            assert called.__doc__, name


# ---- images


def test_the_same_images_in_any_form(tiny: Inverter, images: Path) -> None:
    files = sorted(images.iterdir())
    folder = tiny.images(images)
    assert folder.names == tuple(file.name for file in files)
    assert folder.images.shape == (7, 3, 32, 32)
    opened = [Image.open(file) for file in files]
    forms = [files, [str(file) for file in files], opened, folder.images, folder]
    for form in forms:
        assert torch.equal(tiny.images(form).images, folder.images)
    assert tiny.images(opened).names == folder.names, "pictures keep the names of their files"
    assert tiny.images([picture.copy() for picture in opened]).names[:2] == ("0000", "0001")
    assert tiny.images(files[2]).names == (files[2].name,)
    assert tiny.images(opened[2]).names == (files[2].name,)
    assert tiny.images(images, count=2).names == folder.names[:2]


def test_pictures_are_read_as_a_viewer_shows_them(tiny: Inverter) -> None:
    picture = Image.new("RGBA", (32, 32), (200, 0, 0, 0))
    assert (tiny.images(picture).images == 1).all(), "transparency is white"
    cmyk = Image.new("RGB", (32, 32), (255, 0, 0)).convert("CMYK")
    assert torch.equal(tiny.images(cmyk).images[0, :, 0, 0], torch.tensor([1.0, -1.0, -1.0]))


def test_tensors_are_resized_and_checked(tiny: Inverter) -> None:
    assert tiny.images(torch.zeros(2, 3, 64, 48)).images.shape == (2, 3, 32, 32)
    for wrong, told in (
        (torch.zeros(3, 32, 32), r"shape \[3, 32, 32\]"),
        (torch.full((1, 3, 32, 32), 255.0), r"from 255 to 255; images are in \[-1, 1\]"),
        (torch.full((1, 3, 32, 32), float("nan")), "nan"),
    ):
        with pytest.raises(BadValue, match=told):
            tiny.images(wrong)


def test_a_broken_image_is_left_out_and_named(
    tiny: Inverter,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG no more")
    found = tiny.images([bad, *sorted(images.iterdir())[:1]])
    assert found.names == ("000.png",)
    assert list(found.skipped) == ["bad.png"]
    assert "bad.png cannot be read (" in capsys.readouterr().err
    with pytest.raises(BadValue, match=r"bad\.png cannot be read \(no image"):
        tiny.images(bad)


def test_what_cannot_be_images_is_refused(tiny: Inverter, tmp_path: Path) -> None:
    for wrong, told in (
        (tmp_path / "nowhere", "no such folder"),
        ([tmp_path / "nowhere.png"], "no such image"),
        ([], "no image in this list"),
        ([3], "not int"),
    ):
        with pytest.raises((BadValue, MissingFile), match=told):
            tiny.images(wrong)  # type: ignore[arg-type]
    with pytest.raises(BadValue, match="count=0"):
        tiny.images(count=0)
    with pytest.raises(BadValue, match="split=rich"):
        tiny.images(torch.zeros(1, 3, 32, 32), split="rich")


# ---- codes


def test_codes_are_those_of_the_command(
    optimised: list[str], inversion: lsap.inversion.Inversion, tmp_path: Path
) -> None:
    run = invert(composed("invert", [*optimised, f"outputs={tmp_path}"]))
    stored = read_codes(run.folder / "codes.safetensors", n_latent=8, style_dim=16)
    assert stored.names == inversion.names
    assert torch.equal(stored.codes, inversion.codes)


def test_the_watch_runs_from_nothing_to_all(tiny: Inverter, images: Path) -> None:
    shares: list[float] = []
    tiny.embed(images, watch=lambda share, losses: shares.append(share))
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == pytest.approx(1)


def test_a_refinement_draws_better_and_leaves_what_it_was_given(
    tiny: Inverter,
    inversion: lsap.inversion.Inversion,
    images: Path,
) -> None:
    before = inversion.codes.clone()
    tuned = tiny.refine(inversion, images, "pti", **PTI)
    assert tuned.history == ("lsap_o_wplus", "pti")
    assert torch.equal(inversion.codes, before)
    errors = [sum(row["mse"] for row in tiny.measure(one, images).values()) for one in (inversion, tuned)]
    assert errors[1] < errors[0]
    assert tiny.refine(inversion, images, "none") is inversion
    part = inversion.select([4, 1])
    assert tiny.refine(part, images, "pti", **PTI).names == part.names, "images are found again by their names"


def test_refinements_are_checked(tiny: Inverter, inversion: lsap.inversion.Inversion, images: Path) -> None:
    for name, options, told in (
        ("ptl", {}, "did you mean 'pti'"),
        ("pti", {"step": 3}, "no option 'step': did you mean 'steps'"),
        ("pti", {"lambda_lpips": 1}, r"perceptual\.checkpoint"),
        ("sam", {"lambda_lpips": 0}, "train it: python -m lsap.train domain=church refinement=sam"),
    ):
        with pytest.raises((BadValue, MissingFile), match=told):
            tiny.refine(inversion, images, name, **options)
    with pytest.raises(BadValue, match=r"no image '000\.png' among those given"):
        tiny.refine(inversion, torch.zeros(7, 3, 32, 32), "pti", **PTI)


def test_scores_are_those_of_the_tables(tiny: Inverter, inversion: lsap.inversion.Inversion, images: Path) -> None:
    rows = tiny.measure(inversion, images)
    scores = tiny.nscd(inversion)
    assert scores.tolist() == pytest.approx([rows[name]["nscd"] for name in inversion.names], rel=1e-5)
    assert torch.equal(tiny.nscd(inversion.codes), scores)
    assert rows["000.png"]["lpips"] is None, "there is no judge here"
    samples = tiny.nscd(tiny._parts.generator.sample_w(2000))
    assert samples.mean().item() == pytest.approx(tiny.synthetic, rel=0.1)


# ---- edits


def test_edits_move_codes_and_nothing_else(tiny: Inverter, inversion: lsap.inversion.Inversion, red: Direction) -> None:
    moved = tiny.edit(inversion, red, 2)
    assert_close_l2(moved.codes - inversion.codes, (2 * red.vector).expand_as(moved.codes), 1e-5)
    assert moved.history[-1] == "red +2"
    assert moved.state.keys() == inversion.state.keys()
    assert torch.equal(tiny.edit(inversion, red, 0).codes, inversion.codes)
    back = tiny.edit(moved, red, -2)
    assert_close_l2(back.codes, inversion.codes, 1e-5)


def test_directions_have_names_and_files(tiny: Inverter, red: Direction, tmp_path: Path) -> None:
    file = write_direction(red, tmp_path / "red.safetensors")
    assert torch.equal(tiny.direction(file).vector, red.vector)
    assert tiny.directions == [], "this domain ships none"
    with pytest.raises(MissingFile, match="direction=smile: there is no such direction of domain=church"):
        tiny.direction("smile")
    foreign = write_direction(replace(red, generator="f" * 64), tmp_path / "other.safetensors")
    with pytest.raises(BadValue, match="belongs to generator"):
        tiny.direction(foreign)


def test_the_demo_knows_directions_and_has_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    demo = lsap.load("demo", "space.samples=64", embedding="lsap_o_wplus")
    assert {"age", "pose", "smile"} <= set(demo.directions)
    assert demo.direction("smile").attribute == "smile"
    assert demo.images(count=3, split="plain").names[0] == "plain-test-00000"
    assert len(demo.images()) == 8
    assert demo.refinements == ["none", "pti"], "the networks of SAM and HFGI were not trained"


def test_the_reader_sees_what_an_edit_does(tiny: Inverter, inversion: lsap.inversion.Inversion, tmp_path: Path) -> None:
    demo = lsap.load("demo", "space.samples=64", embedding="lsap_o_wplus")
    torch.save(demo._parts.generator.sample_w(4, torch.Generator().manual_seed(0))[:, None], tmp_path / "w.pt")
    samples = demo.load(tmp_path / "w.pt")
    before, after = (demo.attributes(one)["smile"] for one in (samples, demo.edit(samples, "smile", 2)))
    assert (after - before).mean() > 0.5
    assert tiny.attributes(inversion) == {}, "nobody reads this domain"


# ---- files


def test_what_is_saved_is_drawn_again_to_the_bit(
    tiny: Inverter,
    inversion: lsap.inversion.Inversion,
    images: Path,
    tmp_path: Path,
) -> None:
    tuned = tiny.refine(inversion, images, "pti", **PTI)
    for name, one in (("plain", inversion), ("tuned", tuned)):
        folder = tiny.save(one, tmp_path / name)
        assert tiny.save(one, folder) == folder, "the same again changes nothing"
        again = tiny.load(folder)
        assert (again.names, again.history) == (one.names, one.history)
        assert torch.equal(again.render(), one.render())
        assert len(list((folder / "images").glob("*.png"))) == 7
    assert tiny.draw(inversion)[0].size == (32, 32)
    with pytest.raises(BadValue, match="holds inversions of other settings: content"):
        tiny.save(tuned, tmp_path / "plain")


def test_the_edit_command_reads_what_was_saved(
    tiny: Inverter, inversion: lsap.inversion.Inversion, red: Direction, command: Command, tmp_path: Path
) -> None:
    folder, file = tiny.save(inversion, tmp_path / "kept"), write_direction(red, tmp_path / "red.safetensors")
    done = command("edit", f"inversions={folder}", f"direction={file}", "strength=2", "accelerator=cpu")
    assert done.code == 0, done.err
    (codes,) = tmp_path.glob("outputs/church/edits/*/*/codes/red/+2.safetensors")
    found = read_codes(codes, n_latent=8, style_dim=16).codes
    assert torch.equal(found, tiny.edit(inversion, red, 2).codes)


def test_codes_of_any_tool_are_drawn(tiny: Inverter, tmp_path: Path) -> None:
    w = tiny._parts.generator.sample_w(2)
    torch.save(w[:, None], tmp_path / "w.pt")
    found = tiny.load(tmp_path / "w.pt")
    assert found.codes.shape == (2, 8, 16)
    assert_close_l2(found.render(), tiny._parts.generator(w), 1e-5)
    with pytest.raises(MissingFile, match="nowhere"):
        tiny.load(tmp_path / "nowhere")
    with pytest.raises(BadValue, match="belong to generator"):
        tiny.draw(replace(found, generator="f" * 64))


def test_a_grid_shows_images_and_inversions(tiny: Inverter, inversion: lsap.inversion.Inversion, images: Path) -> None:
    picture = tiny.grid({"input": images, "inversion": inversion}, longest=40)
    assert picture.width > 80
    assert picture.height > 7 * 40


# ---- from a name or a file


def test_the_demo_embeds_without_training_where_nothing_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = lsap.load("demo")
    assert (found.embedding, found.config.steps, found.config.lambda_nscd) == ("lsap_o_wplus", 100, 20)
    assert lsap.load("demo", "steps=7").config.steps == 7
    with pytest.raises(MissingFile, match="has not been trained with these settings"):
        lsap.load("demo", embedding="lsap_e")
    assert list(tmp_path.iterdir()) == []


def test_the_demo_takes_the_encoder_that_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parts = Parts(composed("invert", ["domain=demo", "embedding=lsap_e"]), device_of("cpu"))
    folder = run_folder(parts.config, parts, parts.data().train)
    encoder = parts.encoder()
    card = {"embedding": "lsap_e", "encoder": "e4e", "domain": "demo", "generator": parts.fingerprint}
    write_state(folder.path / "encoder.safetensors", encoder.state_dict(), card)
    (folder.path / "run.json").write_text(json.dumps(asdict(replace(folder.record, status="finished"))))
    found = lsap.load("demo", "trainer.accelerator=cpu")
    assert found.embedding == "lsap_e"
    photos = found.images(count=1)
    with torch.no_grad():
        assert_close_l2(found.embed(photos).codes, encoder.eval()(photos.images), 1e-4)


@pytest.fixture(scope="module")
def run(own: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of four steps, with settings of its own."""
    outputs = tmp_path_factory.mktemp("trained")
    return train(composed("train", [*own, *ENCODER, f"outputs={outputs}"])).folder


def test_a_run_is_found_by_its_folder_alone(run: Path, images: Path, generator_file: Path) -> None:
    for source in (run, run / "encoder.safetensors"):
        found = lsap.load(source, "images_per_batch=2")
        assert (found.domain, found.embedding) == ("church", "lsap_e")
        assert found.config.generator.checkpoint == str(generator_file), "of the run's own configuration"
        assert found.config.images_per_batch == 2, "what is typed counts more"
        assert found.embed(images).history == ("lsap_e",)


def test_the_decoder_of_a_published_checkpoint_is_the_generator(tmp_path: Path) -> None:
    path = published(tmp_path, pyramid(), sixteen_pixels(), encoder_type="Encoder4Editing", stylegan_size=16)
    config = loading._of_encoder(path, [], "face", None)
    assert (config.embedding.name, config.checkpoint) == ("e4e", str(path))
    assert config.generator.checkpoint == str(path)
    config = loading._of_encoder(path, ["generator.checkpoint=other.pt"], "face", "lsap_e")
    assert (config.embedding.name, config.generator.checkpoint) == ("lsap_e", "other.pt")
    with pytest.raises(BadValue, match="'psp' was asked for"):
        loading._of_encoder(path, [], "face", "psp")
    with pytest.raises(BadValue, match="lsap_o_w has no encoder"):
        loading._of_encoder(path, [], "face", "lsap_o_w")
    with pytest.raises(BadValue, match=r"published\.pt does not say what its images show; give domain="):
        lsap.load(path)


def test_what_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    for told, call in (
        ("no such file, and no such domain; did you mean 'demo'", lambda: lsap.load("demmo")),
        ("unknown setting 'stepps': did you mean", lambda: lsap.load("demo", "stepps=3", embedding="lsap_o_w")),
        ("embedding=lsap_f: there is no such embedding", lambda: lsap.load("demo", embedding="lsap_f")),
        ("two domains", lambda: lsap.load("demo", domain="face")),
        (r"generator\.checkpoint=", lambda: lsap.load("face", f"weights={tmp_path}")),
    ):
        with pytest.raises((BadValue, MissingFile), match=told):
            call()


def test_without_photographs_of_the_domain_ones_own_can_be_inverted(
    own: list[str], images: Path, tmp_path: Path
) -> None:
    settings = [setting for setting in own[1:] if not setting.startswith("data.root")] + [
        f"data.root={tmp_path / 'none'}"
    ]
    found = lsap.load("church", *settings, *SHORT, embedding="lsap_o_wplus")
    assert len(found.embed(found.images(images, count=1))) == 1
    with pytest.raises(MissingFile, match=r"data\.root=\S+none"):
        found.images()
    with pytest.raises(MissingFile, match=r"data\.root=\S+none"):
        lsap.load("church", *settings)


def test_a_saved_configuration_is_whole(tiny: Inverter, inversion: lsap.inversion.Inversion, tmp_path: Path) -> None:
    kept = OmegaConf.load(tiny.save(inversion, tmp_path / "kept") / "config.yaml")
    assert (kept.domain.name, kept.images, kept.generator.size) == ("church", None, 32)


def test_the_lines_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "python.md"
    first, *others = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    shortened = first.replace('load("demo")', 'load("demo", "steps=2", "space.samples=500")').replace(
        "count=4", "count=1"
    )
    assert "steps=2" in shortened
    assert "count=1" in shortened
    exec(compile(shortened, str(page), "exec"), {})
    assert Image.open(tmp_path / "smiling.png").width > 300
    for block in others:  # these need weights or a training
        compile(block, str(page), "exec")


def test_every_public_name_is_on_the_page() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    table = page[page.index("## `Inverter`") :]
    names = [name for name in vars(Inverter) if not name.startswith("_")]
    assert not [name for name in names if not re.search(rf"`{name}[(`]", table)]


# ---- mistakes, one line each


@pytest.mark.parametrize("strength", ["strong", float("nan"), None, [1, 2], True, torch.ones(2)])
def test_a_strength_is_one_finite_number(
    tiny: Inverter, inversion: lsap.inversion.Inversion, red: Direction, strength: Any
) -> None:
    with pytest.raises(BadValue, match="a strength is one finite number") as caught:
        tiny.edit(inversion, red, strength)
    assert "\n" not in str(caught.value)


def test_what_is_no_inversion_is_refused_by_every_verb(tiny: Inverter, images: Path, red: Direction) -> None:
    photos = tiny.images(images, count=2)
    for verb in (
        lambda: tiny.edit(photos, red, 2), lambda: tiny.nscd(photos), lambda: tiny.attributes(photos),
        lambda: tiny.draw(photos), lambda: tiny.measure(photos, photos), lambda: tiny.save(photos, "nowhere"),
        lambda: tiny.refine(photos, photos), lambda: tiny.outside(photos, photos),
    ):  # fmt: skip
        with pytest.raises(BadValue, match=r"an inversion is expected, not Pictures; embed\(images\) makes one"):
            verb()
    with pytest.raises(BadValue, match=r"codes of shape \[1, 3, 8, 8\]; this generator takes \[N, 16\]"):
        tiny.nscd(torch.zeros(1, 3, 8, 8))


def test_what_is_no_image_is_refused(tiny: Inverter, inversion: lsap.inversion.Inversion, tmp_path: Path) -> None:
    with pytest.raises(BadValue, match=r"this is an inversion, and images are expected; draw\(inversion\)"):
        tiny.embed(inversion)  # type: ignore[arg-type]
    with pytest.raises(BadValue, match=r"not ndarray; Image\.fromarray makes a picture"):
        tiny.images(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(BadValue, match=r"caf\\xe9\.png: the name is not UTF-8"):
        tiny.images([os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")])


def test_an_edit_out_of_range_is_warned_of(tiny: Inverter, inversion: lsap.inversion.Inversion, red: Direction) -> None:
    ranged = replace(red, usable=(-3.0, 2.0))
    with pytest.warns(UserWarning, match="direction=red: strength 50 is outside of its usable range, -3 to 2"):
        tiny.edit(inversion, ranged, 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny.edit(inversion, ranged, 2)
        tiny.edit(inversion, ranged, 50, warn=False)
        tiny.edit(inversion, red, 50)  # no range is known, and its unit is a length


def test_a_direction_is_a_name_a_file_or_an_object(
    tiny: Inverter, inversion: lsap.inversion.Inversion, tmp_path: Path
) -> None:
    torch.save({"Eyes": torch.randn(1, 16), "Smile": torch.randn(1, 16)}, tmp_path / "boundaries.pt")
    assert tiny.edit(inversion, f"{tmp_path}/boundaries.pt:Smile", 1).history[-1] == "Smile +1"
    with pytest.raises(BadValue, match=r"2 directions \(Eyes, Smile\)"):
        tiny.direction(tmp_path / "boundaries.pt")
    with pytest.raises(BadValue, match=r"a direction is a name, a file or a Direction .* not Tensor"):
        tiny.edit(inversion, torch.randn(16), 1)  # type: ignore[arg-type]


def test_settings_may_be_keywords(own: list[str]) -> None:
    domain, *settings = own
    named = {"steps": 7, "lambda_lpips": 0.0, "debug": True, "save_to": None, "outputs": "a b/it's"}
    found = lsap.load(domain.removeprefix("domain="), *settings, embedding="lsap_o_wplus", **named).config
    assert {key: found[key] for key in named} == named
    for wrong, told in (
        ({"stepz": 7}, "unknown setting 'stepz'"),
        ({"space": {"samples": 3}}, "dict is no value of a setting; give it as text"),
    ):
        with pytest.raises(BadValue, match=told):
            lsap.load("demo", **wrong)  # type: ignore[arg-type]
    with pytest.raises(BadValue, match=r"300.*: a setting is text with '='"):
        lsap.load("demo", 300)  # type: ignore[arg-type]


def test_pictures_and_directions_are_shown_without_their_numbers(tiny: Inverter, images: Path, red: Direction) -> None:
    shown = repr(tiny.images(images, count=2))
    assert re.fullmatch(r"Pictures\(\[2, 3, \d+, \d+\], names 000\.png, 001\.png\)", shown)
    assert "tensor" not in repr(red)


def test_codes_of_w_are_drawn_where_they_are_said_to_be(tiny: Inverter, tmp_path: Path) -> None:
    rows = tiny._parts.generator.n_latent
    w = torch.randn(rows, 16)
    np.save(tmp_path / "w.npy", w.numpy())
    assert len(tiny.load(tmp_path / "w.npy")) == 1
    found = tiny.load(tmp_path / "w.npy", codes_in="w")
    assert torch.equal(found.codes, w[:, None].expand(-1, rows, -1))
    for number in range(2):
        np.save(tmp_path / f"{number}.png.npy", w[number].numpy())
    (tmp_path / "w.npy").unlink()
    assert tiny.load(tmp_path).names == ("0.png", "1.png")
