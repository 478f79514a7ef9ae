"""Files that want to do harm: every one is refused in one line, and nothing of what they ask for happens."""

from __future__ import annotations

import ast
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

import lsap
from lsap import checkpoints as formats
from lsap.checkpoints import read_codes, read_state, write_state
from lsap.errors import BadValue
from lsap.inversion import restored


def call(name: str, *arguments: object) -> bytes:
    """A pickle that calls `module.name` with arguments, made by hand."""
    module, _, attribute = name.rpartition(".")
    return b"\x80\x02" + f"c{module}\n{attribute}\n".encode() + pickle.dumps(arguments, 2)[2:-1] + b"R."


def torch_zip(data: bytes, extra: dict[str, bytes] | None = None, compress: bool = False) -> bytes:
    """A file with the outside of torch's: `archive/data.pkl` and what belongs to it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for name, content in {"archive/data.pkl": data, "archive/version": b"3\n", **(extra or {})}.items():
            archive.writestr(name, content)
    return file.getvalue()


def older(data: bytes) -> bytes:
    """Torch's older layout around a pickle."""
    file = io.BytesIO()
    torch.save({}, file, _use_new_zipfile_serialization=False)
    whole = file.getvalue()
    start = whole.rindex(b"\x80\x02}q\x00.")
    return whole[:start] + data + whole[start + 6 :]


def huge_tensor(protocol: int = 2) -> bytes:
    """A torch zip whose only number is said to be 10^12 of them."""
    file = io.BytesIO()
    torch.save(torch.zeros(1).expand(10**12), file, pickle_protocol=protocol)
    return file.getvalue()


def reference(*parts: object) -> bytes:
    """A torch zip that refers to something else than its own numbers; only our own reader takes protocol 4."""
    return torch_zip(b"\x80\x04" + pickle.dumps(parts, 2)[2:-1] + b"Q.")


def endless_key(depth: int = 60) -> bytes:
    """A dict whose key is a tuple of two equal tuples of two equal tuples …: its hash takes 2^60 steps."""
    return b"\x80\x02)q\x000" + b"h\x00h\x00\x86q\x000" * depth + b"}h\x00K\x01s."


def endless_list(depth: int = 60) -> bytes:
    """A list of two equal lists of two equal lists …: 2^60 values that are 60 lists."""
    return b"\x80\x02}X\x01\x00\x00\x00a](]q\x00" + b"](h\x00h\x00eq\x00" * depth + b"es."


def persistent(source: str) -> bytes:
    """One of NVIDIA's objects, whose source text would be executed by its own reader."""
    meta = {"type": "class", "version": 6, "class_name": "Harm", "state": {}, "module_src": source}
    return call("torch_utils.persistence._reconstruct_persistent_obj", meta)


def twice() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("archive/data.pkl", "archive/data.pk2"):
            archive.writestr(name, b"\x80\x02}.")
    return file.getvalue().replace(b"data.pk2", b"data.pkl")


def array(shape: tuple[int, int]) -> bytes:
    """The pickle of an array of one number that claims another shape."""
    claimed = b"J" + struct.pack("<i", shape[0]) + b"J" + struct.pack("<i", shape[1]) + b"\x86"
    return pickle.dumps(np.zeros(1), 2).replace(b"K\x01\x85", claimed, 1)


def array_of_objects(trace: Path) -> bytes:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (trace,)

    file = io.BytesIO()
    np.save(file, np.array([Harm()], dtype=object), allow_pickle=True)
    return file.getvalue()


def system(trace: Path) -> bytes:
    return call("os.system", f"touch {trace}")


def by_stack(trace: Path) -> bytes:
    arguments = pickle.dumps((f"open({str(trace)!r}, 'w')",), 4)
    return b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93" + arguments[11:-1] + b"R."  # without the frame around it


EMPTY = b"\x80\x02}."
OUTSIDE = "would lie outside"

# kind → (the file, given the trace that its code would leave; what the refusal says)
HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "os.system": (system, r"wants to run code .*asks for os\.system"),
    "builtins.eval": (lambda t: call("builtins.eval", f"open({str(t)!r}, 'w')"), r"asks for builtins\.eval"),
    "builtins.exec by the stack": (by_stack, r"asks for builtins\.exec"),
    "code behind a torch module": (lambda t: call("torch.serialization.os.system", f"touch {t}"), r"asks for torch\.s"),
    "attribute of an accepted class": (lambda _: call("collections.OrderedDict.__init__", 1), r"OrderedDict\.__init__"),
    "reduce within reduce": (
        lambda t: b"\x80\x02ccollections\nOrderedDict\n" + system(t)[2:-1] + b"\x85R.",
        r"asks for os\.system",
    ),
    "hostile source of NVIDIA's objects": (
        lambda t: persistent(f"open({str(t)!r}, 'w')"),
        "holds a Harm, not a checkp",
    ),
    "torch bytes inside a pickle": (lambda t: call("torch.storage._load_from_bytes", system(t)), "no torch file"),
    "older torch bytes inside a pickle": (
        lambda t: call("torch.storage._load_from_bytes", older(system(t))),
        "cannot be read|refused",
    ),
    "persistent id": (lambda _: b"\x80\x02X\x01\x00\x00\x00aQ.", "opcode BINPERSID"),
    "instance by the oldest opcode": (lambda t: f"(S'touch {t}'\nios\nsystem\n.".encode(), "opcode INST"),
    "extension code": (lambda _: b"\x80\x02\x82\x01.", "opcode EXT1"),
    "os.system in a torch zip": (lambda t: torch_zip(system(t)), r"wants to run code .*asks for os\.system"),
    "os.system in the older layout": (lambda t: older(system(t)), r"wants to run code .*asks for os\.system"),
    "path traversal": (lambda t: torch_zip(EMPTY, {f"../../{t.name}": b"x"}), rf"'\.\./\.\./trace' {OUTSIDE}"),
    "absolute path": (lambda t: torch_zip(EMPTY, {str(t): b"x"}), OUTSIDE),
    "a zip that unfolds": (lambda _: torch_zip(EMPTY, {"archive/data/0": bytes(10**7)}, True), "it is compressed"),
    "a part twice": (lambda _: twice(), r"holds the part 'archive/data\.pkl' twice"),
    "a tensor larger than its numbers": (lambda _: huge_tensor(), r"shape \[1000000000000\] is said to lie in 4 bytes"),
    "the same in protocol 4": (lambda _: huge_tensor(4), r"shape \[1000000000000\] is said to lie in 1 numbers"),
    "a reference to no numbers": (lambda t: reference(str(t)), "cannot be read|refers to something else"),
    "numbers outside of the file": (
        lambda t: reference("storage", "os.system", f"../../{t.name}", "cpu", 1),
        "no numbers of a known type|cannot be read",
    ),
    "os.system in a torch zip of protocol 4": (lambda t: torch_zip(by_stack(t)), r"asks for builtins\.exec"),
    "hostile source in a torch zip": (
        lambda t: torch_zip(persistent(f"open({str(t)!r}, 'w')")),
        "holds a Harm, not a checkp",
    ),
    "a key that takes for ever": (lambda _: endless_key(), "as a key"),
    "the same in a torch zip": (lambda _: torch_zip(endless_key()), "as a key"),
    "a place in memory beyond all": (lambda _: b"\x80\x02}r\xff\xff\xff\xff0.", "cannot be read"),
    "bytes that are not there": (lambda _: b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", "cannot be read"),
    "an array larger than its bytes": (lambda _: array((10**6, 10**6)), r"\[1000000, 1000000\] comes with 8 bytes"),
    "an array of objects": (array_of_objects, "holds Python objects instead of numbers"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_and_nothing_runs(tmp_path: Path, kind: str) -> None:
    path, trace = tmp_path / "weights.pt", tmp_path / "trace"
    make, message = HOSTILE[kind]
    path.write_bytes(make(trace))
    with pytest.raises(BadValue, match=rf"weights\.pt.*({message})") as error:
        read_codes(path, n_latent=6, style_dim=8) if kind == "an array of objects" else read_state(path)
    assert "\n" not in str(error.value)
    assert not trace.exists()


@pytest.mark.parametrize("kind", ["os.system", "builtins.eval", "builtins.exec by the stack", "reduce within reduce"])
def test_the_files_would_do_harm_if_they_were_simply_opened(tmp_path: Path, kind: str) -> None:
    trace = tmp_path / "trace"
    with suppress(TypeError):  # what came back may be of no use to the caller
        pickle.loads(HOSTILE[kind][0](trace))
    assert trace.exists()


def test_a_doubling_list_is_read_in_no_time(tmp_path: Path) -> None:
    """Harmless, unless somebody walks through all of it."""
    (tmp_path / "bomb.pt").write_bytes(torch_zip(endless_list()))
    (tmp_path / "bomb.pkl").write_bytes(endless_list())
    for path in tmp_path.iterdir():
        assert set(read_state(path)) == {"a"}
        with pytest.raises(BadValue, match="holds no generator"):
            formats.load_generator(path)


# --- our own outputs


def test_a_card_cannot_choose_what_is_built(tmp_path: Path) -> None:
    """Settings in a generator's card are two numbers; whatever else is written there changes nothing."""
    trace = tmp_path / "trace"
    settings = {"_target_": "pathlib.Path.touch", "mapping_lr": {"_target_": "os.system", "_args_": [f"touch {trace}"]}}
    card = {"kind": "lsap generator", "settings": json.dumps(settings | {"clamp": None}), "card": "{}"}
    path = write_state(tmp_path / "g.safetensors", {"constant": torch.zeros(1, 2, 4, 4)}, card)
    with pytest.raises(BadValue, match=r"g\.safetensors: its card does not say how to build it"):
        formats.load_generator(path)
    assert not trace.exists()


def test_a_stored_inversion_names_its_renderer_by_key_only(tmp_path: Path) -> None:
    card = {
        "format": "lsap.inversion/1", "names": '["a"]', "generator": "0", "history": "[]",
        "renderer": json.dumps({"key": "os.system", "settings": {"_target_": "os.system"}}),
    }  # fmt: skip
    with pytest.raises(BadValue, match=r"there is no renderer 'os\.system' here"):
        restored({"codes": torch.zeros(1, 2, 3)}, card, generator=None)  # type: ignore[arg-type]


def test_no_target_is_read_from_an_output_folder() -> None:
    """YAML is read by Hydra, from our own conf/ and the user's --config-dir.

    A run's `config.yaml` is read by `config.stored` alone, which takes values and no classes: `test_hostile_runs`.
    `config.groups` reads our own conf/, for keys alone.
    The stages of an experiment, which the user names, are verbs of a fixed list. Modules are imported by name for
    `imports=` alone, which a command line or the user's --config-dir says, before any stored file is read.
    """
    package = Path(lsap.__file__).parent
    readers = {"config/stored.py", "config/groups.py", "pipelines/reproduction/stages.py"}
    unsafe = {"pickle.loads", "cloudpickle", "dill", "joblib", "importlib", "shelve", "marshal"}
    for path in package.rglob("*.py"):
        file = path.relative_to(package).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                reads = name == "OmegaConf.load" or name.startswith("yaml.")
                assert not reads or file in readers, (
                    f"{file}:{node.lineno}: {name} could read a class to build from a file"
                )
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert file in readers or "yaml" not in names, file
                assert not names & (unsafe - {"importlib"} if file == "cli/command.py" else unsafe), file


def test_what_a_run_leaves_behind_is_plain(tmp_path: Path) -> None:
    """Every kind of file that the formats write opens with a reader that runs nothing."""
    write_state(tmp_path / "a.safetensors", {"x": torch.ones(2)}, {"card": "text"})
    formats.states.save_torch(tmp_path / "a.pt", {"g_ema": {"x": torch.ones(2)}})
    assert torch.equal(torch.load(tmp_path / "a.pt", weights_only=True)["g_ema"]["x"], torch.ones(2))
    assert torch.equal(read_state(tmp_path / "a.safetensors")["x"], torch.ones(2))


def test_codes_in_endlessly_nested_lists_are_refused(tmp_path: Path) -> None:
    depth = 100_000
    (tmp_path / "deep.pkl").write_bytes(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")
    with pytest.raises(BadValue, match="holds no codes"):
        read_codes(tmp_path / "deep.pkl", n_latent=6, style_dim=8)
