"""What a user sees of a mistake: one line, exit code 2, nothing on the disk."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from commands import Command, Outcome
from lsap import checkpoints as formats
from lsap.cli.arguments import left_to_members
from lsap.cli.help import examples
from lsap.cli.messages import fetching
from lsap.config.compose import composed, config_dir
from lsap.config.groups import groups
from lsap.stylegan2 import Generator

Photographs = Callable[..., Path]


@pytest.fixture
def refused(command: Command, tmp_path: Path) -> Callable[..., str]:
    """Run a command that must be refused; the one line that it printed."""

    def run(verb: str, *arguments: str) -> str:
        before = contents(tmp_path)
        outcome = command(verb, *arguments)
        assert contents(tmp_path) == before, "a refused command has written something"
        return the_line(outcome)

    return run


def contents(folder: Path) -> dict[str, int]:
    """Everything below a folder, with its time of change."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*")}


def the_line(outcome: Outcome) -> str:
    """What a refused command said, without the word in front: one line, unless it lists files."""
    assert outcome.code == 2
    lines = outcome.err.strip().splitlines()
    listed = lines[0].endswith("not there:")  # missing files, a line for each
    assert len(lines) == 1 or listed, f"one line was promised, these came:\n{outcome.err}"
    assert lines[0].startswith("error: ")
    return "\n".join(lines).removeprefix("error: ")


def own_domain(generator: Path, images: Path) -> list[str]:
    """Overrides that make a domain of the tiny generator and a folder."""
    return [
        "domain=church", f"generator.checkpoint={generator}", "generator.size=32", f"data.root={images}",
        "view.size=32", "image_size=[32,32]", "encoder._target_=lsap.embedding.SmallPyramidEncoder",
        "backbone.checkpoint=random", "lambda_lpips=0", "lambda_id=0", "space.samples=64",
    ]  # fmt: skip


# ---- settings


WRONG: list[tuple[list[str], str]] = [
    (["domain=cat"], r"domain=cat: there is no such domain; did you mean 'car'? (accepted: car, church, demo"),
    (["preset=release"], "preset=release: there is no such preset; did you mean 'released'?"),
    (["embedding=lsape"], "embedding=lsape: there is no such embedding; did you mean 'lsap_e'"),
    (["lambda_nsdc=1"], "unknown setting 'lambda_nsdc': did you mean 'lambda_nscd'"),
    (["domian=car"], "unknown setting 'domian': did you mean 'domain'"),
    (
        ["domain=car", "generator.chekpoint=a.pt"],
        "unknown setting 'generator.chekpoint': did you mean 'generator.checkpoint'?",
    ),
    (["steps=5"], "unknown setting 'steps' with embedding=lsap_e: it belongs to embedding=lsap_o_w or lsap_o_wplus or"),
    (["adversary.lr=3"], "unknown setting 'adversary.lr' with embedding=lsap_e: it belongs to embedding=e4e or"),
    (["zzz=1"], "unknown setting 'zzz': python -m lsap.train --help lists the settings"),
    (["--embedding", "lsap_o_w"], "--embedding: settings are typed without dashes, as embedding=lsap_o_w"),
    (["--lambda-nscd=1"], "--lambda-nscd=1: settings are typed without dashes, as lambda_nscd=1"),
    (["trainer.device=2"], "unknown setting 'trainer.device': did you mean 'trainer.devices'"),
    (["checkpoint=a.pt"], "checkpoint=a.pt names the encoder that a refinement is trained over"),
    (["lambda_nscd"], "cannot read 'lambda_nscd': write key=value"),
    (["lambda_nscd=0,0.5"], "a sweep needs -m, as in python -m lsap.train -m lambda_nscd=0,0.5, and a list brackets"),
    (["lambda_nscd=[0"], "cannot read 'lambda_nscd=[0': write key=value"),
    (["lambda_nscd=-1"], "lambda_nscd=-1: expected a number of at least 0"),
    (["lambda_lpips=nan"], "lambda_lpips=nan: expected a number of at least 0"),
    (["lambda_id=much"], "lambda_id=much: expected a number of at least 0"),
    (["lr=0"], "lr=0: expected a number above 0"),
    (["batch_size=0"], "batch_size=0: expected a whole number of at least 1"),
    (["batch_size=2.5"], "batch_size=2.5: expected a whole number of at least 1"),
    (["max_steps=abc"], "max_steps=abc: expected a whole number of at least 1"),
    (["max_steps=true"], "max_steps=True: expected a whole number of at least 1"),
    (["seed=-1"], "seed=-1: expected a whole number of at least 0"),
    (["stages.start=-1", "space.samples=16"], "stages.start=-1: expected a number of steps of at least 0 or, below 1"),
    (
        ["stages.start=late", "space.samples=16"],
        "stages.start=late: expected a number of steps of at least 0 or, below 1",
    ),
    (["view.size=wide"], "view.size=wide: expected a whole number of at least 1"),
    (
        ["+encoder.depth=3", "space.samples=16"],
        "encoder (lsap.embedding.encoders.SmallPyramidEncoder) does not take these",
    ),
    (["embedding=e4e", "adversary.lr=slow", "space.samples=16"], "adversary.lr=slow: expected a number above 0"),
    (
        [*(f"lambda_{name}=0" for name in ("l2", "lpips", "id", "delta", "nscd")), "space.samples=16"],
        "nothing to minimise",
    ),
    (["trainer.devices=0"], "trainer.devices=0: expected auto, a number of processes of at least 1, or"),
    (["trainer.devices=2.5"], "trainer.devices=2.5: expected auto, a number of processes of at least 1, or"),
    (["trainer.devices=two"], "trainer.devices=two: without a CUDA device, expected auto or a number of at least 1"),
    (["trainer.num_nodes=0"], "trainer.num_nodes=0: expected a whole number of at least 1"),
    (["trainer.precision=bf16-mixd"], "trainer.precision=bf16-mixd: did you mean 'bf16-mixed'"),
    (
        ["trainer.accelerator=mps"],
        "trainer.accelerator=mps: accepted: auto, cpu, cuda, gpu",
    ),
    (
        ["trainer.accumulate_grad_batches=0"],
        "trainer.accumulate_grad_batches=0: expected a whole",
    ),
    (
        ["trainer.gradient_clip_val=-1"],
        "trainer.gradient_clip_val=-1: expected a number above 0, or null to clip nothing",
    ),
    (
        ["trainer.val_check_interval=often"],
        "trainer.val_check_interval=often: expected a number above 0 and at most 1",
    ),
    (["trainer.save_every=500"], "trainer.save_every=500: expected a number above 0 and at most 1"),
    (["trainer.recompute=maybe"], "trainer.recompute=maybe: expected true or false"),
    (["space.samples=0"], "space.samples=0: expected a whole number of at least 1"),
    (["space.samples=abc"], "space.samples=abc: expected a whole number of at least 1"),
    (["optimizer.lr=-1"], "optimizer.lr=-1: expected a number above 0"),
    (["+optimizer.betas=[2,2]"], "optimizer (lsap.embedding.Ranger) does not take these settings: "),
    (["data.root=photos"], "data.root=photos: domain=demo draws its own portraits; give domain=church (or another)"),
    (["data.train.family=poor"], "family=poor: there is no such family of portraits; accepted: far, plain, rich"),
    (["data.val_images=16384"], "val_images=16384 leaves none of 16384 images to train on"),
    (["backbone.checkpoint=none.pth"], "backbone.checkpoint=none.pth: there is no such file"),
    (["backbone.checkpoint=."], "backbone.checkpoint=. is a folder; name a file"),
    (["init=none.safetensors"], "init=none.safetensors: there is no such file"),
    (["generator.checkpoint=none.pt"], "none.pt does not exist; check the path"),
    (["view.size=48"], "an image of 64x64 px cannot be pooled to 48 px"),
    (["view.size=32"], "images come as 64x64 pixels (height x width), but the generator's are seen as 32x32"),
    (["encoder._target_=lsap.embedding.Pyramid"], "lsap.embedding.Pyramid"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_a_wrong_setting_is_one_line(refused: Callable[..., str], arguments: list[str], said: str) -> None:
    assert said in refused("train", *arguments)


def test_other_commands_refuse_alike(refused: Callable[..., str]) -> None:
    assert "did you mean 'generator'" in refused("pretrain", "target=genrator")
    assert "trainer.devices=0: expected auto, a number of processes" in refused("compare", "trainer.devices=0")
    assert "trainer.precision=8: accepted: 16-mixed" in refused("train", "refinement=hfgi", "trainer.precision=8")
    line = refused("evaluate", "runs=[runs/count=4,steps=5]")
    assert line.endswith("a path with a comma in it needs quotes, as in runs=['a,b']")
    assert "unknown setting 'lambdas_': did you mean 'lambdas'" in refused("compare", "lambdas_=[0,1]")


def test_settings_under_the_name_of_another_command_are_named(refused: Callable[..., str]) -> None:
    assert refused("evaluate", "inversions=x") == "unknown setting 'inversions': lsap.evaluate calls it runs"
    assert refused("edit", "runs=[x]") == "unknown setting 'runs': lsap.edit calls it inversions"


@pytest.mark.parametrize("verb", sorted(path.stem for path in config_dir().glob("*.yaml")))
def test_help_begins_with_usage_and_examples(command: Command, verb: str) -> None:
    outcome = command(verb, "--help")
    assert outcome.code == 0, outcome.err
    usage, _, what, *_ = outcome.out.splitlines()
    assert usage.startswith(f"usage: python -m lsap.{verb} [setting=value …]")
    assert what[0].isupper()
    assert f"examples:\n  python -m lsap.{verb}" in outcome.out
    assert "settings (a.b=value sets b of a" in outcome.out


def test_examples_of_the_help_compose() -> None:
    for verb in (path.stem for path in config_dir().glob("*.yaml")):
        for line in examples(verb):
            settings = line.split()[3:]
            if "-m" in settings or "|" in line:
                continue
            assert composed(verb, settings), line


def test_choices_of_the_help_are_the_groups_of_the_command() -> None:
    assert set(groups("invert")) == {"embedding", "domain", "refinement", "trainer", "preset", "logger"}
    assert groups("nscd") == {}


def test_the_version_is_that_of_lsap(command: Command) -> None:
    assert command("train", "--version").out == f"lsap {version('lsap')}\n"


def test_debug_shows_the_traceback(command: Command) -> None:
    with pytest.raises(ValueError, match="batch_size=0"):  # what reaches the top is what Python prints
        command("train", "batch_size=0", "debug=true")


def test_a_mistake_of_ours_keeps_its_traceback(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("lsap.pipelines.training.check", broken)
    with pytest.raises(ZeroDivisionError):
        command("train")


# ---- files


def test_all_missing_files_are_listed_at_once(refused: Callable[..., str]) -> None:
    line = refused("train", "domain=car", "lambda_nscd=0.5")
    assert line.startswith("domain=car needs 5 files that are not there:\n")
    assert len(line.splitlines()) == 1 + 5 + 2, "each on a line of its own, then what to do"
    assert line.endswith("\nor: python -m lsap.assets domain=car method=lsap_e fetch=true")
    for said in (
        "generator.checkpoint=weights/stylegan2-car-config-f.pt (StyleGAN2 car generator, 512 px; https://github.com/NV",
        "perceptual.checkpoint=weights/alexnet-owt-7be5be79.pth (AlexNet trunk of LPIPS; https://download.pytorch.org/",
        "similarity.checkpoint=weights/moco_v2_800ep_pretrain.pth.tar (MoCo v2 ResNet-50, 800 epochs; https://",
        "backbone.checkpoint=weights/model_ir_se50.pth (ArcFace IR-SE50",
        "data.root=data/car/train (Stanford Cars training images, or the data set with its devkit; https://",
        "name where they lie, e.g. generator.checkpoint=/path/to/file",
    ):
        assert said in line


@pytest.mark.parametrize(
    ("verb", "typed", "method"),
    [
        ("invert", ["embedding=lsap_o_w"], "optimisation"),
        ("invert", ["embedding=restyle_e4e"], "restyle"),
        ("train", ["weights=there", "embedding=psp"], "psp fetch=true weights=there"),
        ("discover", ["method=sefa"], "editing"),
    ],
)
def test_files_are_fetched_for_the_method_that_lacks_them(verb: str, typed: list[str], method: str) -> None:
    config = composed(verb, ["domain=church", *typed])
    told = fetching(config, "needs 1 file:\n  generator.checkpoint=weights/stylegan2-church-config-f.pt")
    assert f"or: python -m lsap.assets domain=church method={method}" in str(told)
    assert fetching(config, "needs 1 file:\n  data.root=data/church") is None, "nobody fetches photographs"


def test_files_that_take_no_part_are_not_asked_for(
    refused: Callable[..., str], generator_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSAP_WEIGHTS", "/elsewhere")
    line = refused(
        "train", "domain=car", "lambda_id=0", "backbone.checkpoint=random", f"generator.checkpoint={generator_file}"
    )
    assert line.startswith("domain=car needs 2 files")
    assert "perceptual.checkpoint=/elsewhere/alexnet-owt-7be5be79.pth" in line
    assert "data.root=" in line


def test_a_generator_of_another_size_is_refused(
    refused: Callable[..., str], generator_file: Path, photographs: Photographs, tmp_path: Path
) -> None:
    images = photographs(tmp_path / "photos", 4)
    line = refused("train", *own_domain(generator_file, images), "generator.size=64")
    assert f"{generator_file} holds a 32-px generator (8 rows); this domain asks for 64" in line


@pytest.mark.parametrize("kind", ["cut short", "not a checkpoint", "empty", "another network"])
def test_a_damaged_generator_is_named(
    refused: Callable[..., str], generator_file: Path, photographs: Photographs, tmp_path: Path, kind: str
) -> None:
    images = photographs(tmp_path / "photos", 4)
    file = tmp_path / "generator.pt"
    whole = generator_file.read_bytes()
    if kind == "another network":
        torch.save({"g_ema": {"weight": torch.zeros(3)}}, file)
    else:
        file.write_bytes({"cut short": whole[: len(whole) // 2], "not a checkpoint": b"<html>", "empty": b""}[kind])
    line = refused("train", *own_domain(file, images))
    assert str(file) in line


def test_a_damaged_backbone_is_named_before_anything_is_written(refused: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "model_ir_se50.pth"
    file.write_bytes(b"PK\x03\x04 and then nothing")
    assert str(file) in refused("train", f"backbone.checkpoint={file}", "space.samples=16")


def test_a_path_of_our_own_run_folders_needs_no_quotes(refused: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "batch_size=2,max_steps=3" / "encoder.safetensors"
    assert f"init={file}: there is no such file" in refused("train", f"init={file}", "space.samples=16")


@pytest.mark.parametrize("node", ["optimisation", "view", "refinement"])
def test_a_class_that_is_not_there_is_named(command: Command, node: str) -> None:
    outcome = command("invert", "embedding=lsap_o_w", f"{node}._target_=lsap.nope", "refinement=pti", "count=1")
    assert outcome.code == 2
    assert the_line(outcome).startswith("_target_=lsap.nope: there is no such class")


SWEEP = ["-m", "embedding=stylegan2_w,lsap_o_w", "count=2"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([*SWEEP, "steps=2"], [*SWEEP, "steps=choice(2)"]),
        ([*SWEEP, "patience=null"], [*SWEEP, "patience=choice('null')"]),
        ([*SWEEP, "steps=2,3"], [*SWEEP, "steps=2,3"]),
        ([*SWEEP, "trainer.devices=1", "domain=demo"], [*SWEEP, "trainer.devices=1", "domain=demo"]),
        (["-m", "embedding=lsap_o_w", "seed=0,1", "steps=2"], ["-m", "embedding=lsap_o_w", "seed=0,1", "steps=2"]),
        ([*SWEEP, "++anything=2", "hydra.launcher.n_jobs=2"], [*SWEEP, "++anything=2", "hydra.launcher.n_jobs=2"]),
    ],
    ids=["of the choices alone", "nothing", "swept itself", "of all", "no group is swept", "added, and Hydra's own"],
)
def test_settings_of_swept_choices_are_left_to_the_members(arguments: list[str], expected: list[str]) -> None:
    assert left_to_members(arguments, "invert") == expected


def test_a_misspelt_setting_of_swept_choices_is_named(command: Command) -> None:
    outcome = command("invert", *SWEEP, "stepps=2")
    assert outcome.code == 2
    assert "unknown setting 'stepps': did you mean 'steps'" in outcome.err


def test_weights_to_start_from_must_fit(refused: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "encoder.safetensors"
    formats.write_state(file, {"weight": torch.zeros(3)}, {})
    assert f"init={file}" in refused("train", f"init={file}", "space.samples=16")


def test_folders_without_images_are_refused(
    refused: Callable[..., str], generator_file: Path, photographs: Photographs, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("no picture")
    assert f"data.root={empty} holds no image" in refused("train", *own_domain(generator_file, empty))
    missing = tmp_path / "missing"
    line = refused("train", *own_domain(generator_file, missing))
    assert line.startswith(f"domain=church needs 1 file that is not there:\n  data.root={missing} (")
    images = photographs(tmp_path / "photos", 4)
    assert "cannot be listed" not in (line := refused("train", *own_domain(generator_file, images / "000.png")))
    assert (
        line
        == f"data.root={images / '000.png'} is a file; give the folder that holds the images, or a zip archive of them"
    )
    one = photographs(tmp_path / "one", 1)
    assert "at least 2 are needed" in refused("train", *own_domain(generator_file, one))
    line = refused("train", *own_domain(generator_file, images), f"data.test_root={empty}")
    assert f"data.test_root={empty} holds no image" in line


def test_a_folder_where_every_image_is_broken_is_refused(
    refused: Callable[..., str], generator_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_bytes(b"no picture")
    arguments = own_domain(generator_file, folder)
    assert f"{folder}/a.png cannot be read" in refused("train", *arguments, "data.strict=true")


def test_runs_that_cannot_be_put_there_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written to" in refused("train", "outputs=file/runs", "space.samples=16")


# ---- devices


def test_several_processes_within_a_sweep_are_refused(command: Command, tmp_path: Path) -> None:
    outcome = command("train", "-m", "seed=0,1", "trainer.accelerator=cpu", "trainer.devices=2")
    assert outcome.code == 2
    assert "error: trainer.devices=2 within a multirun: every process would start the whole sweep" in outcome.err
    assert set(contents(tmp_path)) <= {"outputs", "outputs/multirun", "outputs/multirun/multirun.yaml"}  # Hydra's plan


def test_a_device_that_is_not_there_is_one_line(command: Command) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    line = the_line(command("train", "trainer.accelerator=gpu", "space.samples=16", "data.train.count=300"))
    assert "gpu" in line.lower()


def test_a_batch_that_processes_cannot_share_is_refused(refused: Callable[..., str]) -> None:
    line = refused("train", "trainer.accelerator=cpu", "trainer.devices=2", "batch_size=3")
    assert "batch_size=3 cannot be shared equally by 2 processes" in line


def test_help_and_the_plan_are_shown_without_running(command: Command, tmp_path: Path) -> None:
    shown = command("train", "--cfg", "job", "domain=car")
    assert (shown.code, shown.err) == (0, "")
    assert "lambda_nscd: 0.5" in shown.out
    assert "image_size:\n- 192\n- 256\n" in shown.out
    assert contents(tmp_path) == {}


def test_the_tiny_generator_is_a_generator(generator_file: Path) -> None:
    generator = formats.load_generator(generator_file, size=32)
    assert isinstance(generator, Generator)
    assert (generator.n_latent, generator.style_dim) == (8, 16)
