"""Paths are taken as they are typed, whatever letters are in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from commands import Command
from lsap.config.compose import composed
from lsap.config.paths import literal
from lsap.config.stored import stored_text
from lsap.errors import BadValue

PATHS = [
    "photos (1)", "été", "新加卷", "a#b & c", "l'album", 'a"b', "x,y", "${x}", "~tilde", " trailing  ", "a=b", "2024",
    "true", "a:b", "[1] a", "{x}", "a\\b", "a\\", "it\\'s", "C:\\x\\", "100%", "a;b", "$HOME", "a*b?", "-dash",
    "tab\tin", "a\nb",
]  # fmt: skip


def read(argument: str, command: str, *, sweep: bool = False) -> object:
    """What Hydra reads of an argument, after it was made literal."""
    (made,) = literal([argument], command, sweep=sweep)
    assert literal([made], command, sweep=sweep) == [made], "other ranks get the command line a second time"
    override = OverridesParser.create().parse_override(made)
    if not override.is_sweep_override():
        return override.value()
    return [getattr(value, "text", value) for value in override.value().list]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_the_text_behind_the_equals_sign(path: str) -> None:
    assert composed("invert", [f"images={path}"]).images == path
    assert composed("train", [f"data.root={path}", f"init={path}"]).data.root == path
    assert composed("nscd", [f"generator={path}"]).generator == path


@pytest.mark.parametrize("path", [path for path in PATHS if path.strip() == path and "," not in path])
def test_lists_of_paths_hold_them_as_typed(path: str) -> None:
    assert composed("evaluate", [f"runs=[{path},second]"]).runs[0] == path
    assert composed("evaluate", [f"runs={{a: {path},b: second}}"]).runs.a == path


def test_commas_separate_the_values_of_lists_and_sweeps_outside_of_quotes() -> None:
    assert read("runs=[photos (1),'x,y',\"l'album\"]", "evaluate") == ["photos (1)", "x,y", "l'album"]
    assert read("images=photos (1),l'album", "invert", sweep=True) == ["photos (1)", "l'album"]
    assert read("images='x,y',b", "invert", sweep=True) == ["x,y", "b"]
    assert read("images='x,y'", "invert", sweep=True) == "x,y"
    assert read("images=choice(a,b)", "invert", sweep=True) == ["a", "b"]
    assert read("images=x,y", "invert") == "x,y"


def test_null_and_the_home_folder() -> None:
    assert composed("invert", ["images=null"]).images is None
    assert composed("invert", ["images=~/x"]).images == os.path.expanduser("~/x")
    assert composed("invert", ["images=./null"]).images == "./null"


def test_quotes_of_ones_own_stay_possible() -> None:
    for typed in ("'photos (1)'", '"photos (1)"', "photos (1)"):
        assert composed("invert", [f"images={typed}"]).images == "photos (1)"


def test_a_quote_that_is_not_closed_is_named() -> None:
    with pytest.raises(BadValue, match=r"^runs=\['a\]: a quote \('\) is not closed$"):
        literal(["runs=['a]"], "evaluate")


@pytest.mark.parametrize(
    "argument", ["-m", "--config-dir=a=1/b", "lambda_nscd=0,0.5", "+edits={smile:1}", "x=[a=1,b=2]", "~images"]
)
def test_other_arguments_are_read_as_typed(argument: str) -> None:
    assert literal([argument], "train") == [argument]


def test_text_with_an_equals_sign_needs_no_quotes() -> None:
    assert literal(["logger.group=a=b", "a='b=c'"], "train") == ["logger.group='a=b'", "a='b=c'"]


@pytest.mark.parametrize("name", [path for path in PATHS if path not in ("a\nb", "tab\tin") and "/" not in path])
def test_photographs_are_inverted_wherever_they_lie(
    name: str, command: Command, own: list[str], photographs: Callable[..., Path], tmp_path: Path
) -> None:
    photographs(tmp_path / name, 1)
    outcome = command(
        "invert", *own, "embedding=stylegan2_w", "lambda_lpips=0", "lambda_l2=1", "steps=1", f"images={name}",
        f"save_to=results/{name}",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "results" / name / "codes.safetensors").is_file()


def test_a_stored_run_of_images_below_a_dollar_sign_is_read_again(
    command: Command, own: list[str], photographs: Callable[..., Path], tmp_path: Path
) -> None:
    photographs(tmp_path / "${x}", 2)
    embedded = ["embedding=stylegan2_w", "lambda_lpips=0", "lambda_l2=1", "steps=1", "images=${x}", "save_to=inv"]
    evaluated = ["direction=[]", "space.samples=64", "accelerator=cpu", "correlations=false"]
    assert command("invert", *own, *embedded).code == 0
    outcome = command("evaluate", "runs=inv", *evaluated)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("value", ["${oc.env:HOME}", r"\\${oc.env:HOME}", r"a\${x}${oc.env:HOME}", r"\\\\${x}"])
def test_references_in_a_stored_run_stay_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="is not taken from a run folder"):
        stored_text({"images": value}, "images", tmp_path / "config.yaml")
    assert stored_text({"images": r"a/\${x}"}, "images", tmp_path / "config.yaml") == r"a/\${x}"
