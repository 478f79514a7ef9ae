"""What cannot be read here, named: files that hold no weights, by how they begin; other networks, by their tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsap.errors import BadValue

AGAIN = "download the file itself again"
CONVERT = "save its weights as safetensors or with torch.save in the program that it belongs to"
BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, which stands for the file", "run git lfs pull in its repository"),
    (b"<", "a web page or XML, as servers send it in place of a file", AGAIN),
    (b"\x1f\x8b", "compressed with gzip", "unpack it with gunzip or tar first"),
    (b"BZh", "compressed with bzip2", "unpack it first"),
    (b"\xfd7zXZ\x00", "compressed with xz", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"\x89HDF", "an HDF5 file, as Keras writes it", CONVERT),
    (b"GGUF", "a GGUF file", CONVERT),
    (b"\x08\x07\x12", "an ONNX graph", CONVERT),
    (b"\x08\x08\x12", "an ONNX graph", CONVERT),
    (b"\x93NUMPY", "one NumPy array", "a network is a file of many named tensors: name that file"),
    (b"\x89PNG", "a picture", "name the file of weights"),
    (b"\xff\xd8\xff", "a picture", "name the file of weights"),
)
# Tensors of generators that are not read, of networks that lie beside one, and of what is taken for one by mistake.
NETWORKS: tuple[tuple[str, str], ...] = (
    (r"synthesis\.input\.(freqs|weight|transform)", "a StyleGAN3 generator"),
    (r"progression\.\d+\.", "a generator of the first StyleGAN"),
    (r"style_mlp\.\d+\.", "a generator in the names of BasicSR or GFPGAN"),
    (r"style_mapping\.\d+\.", "a generator in the names of MMGeneration"),
    (r"synthesis\.layer\d+\.", "a generator in the names of GenForce"),
    (r"blocks\.conv4\.affine\.", "the tensors of an lsap generator without its settings (use save_generator)"),
    (r"b4\.(fc|out)\.", "a discriminator"),
    (r"final_(conv|linear)\.\d+\.", "a discriminator"),
    (r"(down|input)_blocks\.\d+\.", "a diffusion model"),
    (r"hypernet\.", "HyperStyle's hypernetwork"),
)
TAR = b"ustar"  # from byte 257 on
PICKLES = (b"(", b"c", b"}", b"]")  # how a pickle begins that is text


def check_known(path: Path) -> None:
    """Refuse a file that begins as no file of weights does.

    Raises:
        BadValue: what it is and what to do.
    """
    with path.open("rb") as file:
        head = file.read(262)
    if not head:
        raise BadValue(f"is empty (0 bytes); {AGAIN}")
    begun = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for beginning, what, mend in BEGINNINGS:
        if begun.startswith(beginning):
            raise BadValue(f"is {what}; {mend}")
    text = " ".join(begun.decode("ascii", "replace").split())
    if text.replace("\ufffd", "\0").isprintable() and not begun.startswith(PICKLES):
        raise BadValue(f"is text, not weights (it begins {text[:40]!r}); {AGAIN}")
    if head[257:] == TAR:
        raise BadValue("is a tar archive; unpack it and name the file of weights inside")


def known_network(content: Mapping[str, Any]) -> str | None:
    """What the tensors of a checkpoint, or of a dict in it, are known as; None where they are not."""
    names = [str(name) for name in content]
    names += [str(name) for box in content.values() if isinstance(box, Mapping) for name in box]
    return next((what for form, what in NETWORKS if any(re.match(rf"(.*\.)?{form}", name) for name in names)), None)
