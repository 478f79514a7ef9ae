"""Judges and trunks from their files, wherever those lie, and the files of other kinds that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from comparison import assert_close_l2, assert_published
from golden import fill
from lsap.checkpoints import load_bisenet, load_curricularface, load_lpips, located, write_state
from lsap.checkpoints.paths import places
from lsap.config.compose import composed
from lsap.errors import BadValue, MissingFile
from lsap.pipelines.conversion import convert
from lsap.pretrained import CurricularFace, FaceParser
from lsap.refinement.segments import segmenter


@pytest.fixture(scope="module")
def curricular() -> dict[str, torch.Tensor]:
    return fill.state_dict("curricularface_ir101", "facenet")


@torch.no_grad()
def test_curricularface_agrees_with_the_published_judge(curricular: dict[str, torch.Tensor], tmp_path: Path) -> None:
    spec = fill.load("curricularface_ir101")
    torch.save(curricular, tmp_path / "CurricularFace_Backbone.pth")
    judge = load_curricularface(tmp_path / "CurricularFace_Backbone.pth")
    assert_published(spec, "embedding", judge.embed_faces(fill.inputs(spec)["face_112"]), 1e-4)
    assert not any(module.training for module in judge.modules())
    assert judge.label == "identity (CurricularFace IR-101)"


def test_curricularface_knows_every_published_name_and_no_other(curricular: dict[str, torch.Tensor]) -> None:
    with torch.device("meta"):
        ours = CurricularFace().state_dict()
    assert ours.keys() == curricular.keys()
    assert all(ours[name].shape == tensor.shape for name, tensor in curricular.items())


def test_curricularface_refuses_arcface_and_images_of_another_size() -> None:
    face = fill.load("arcface_irse50")["models"]["facenet"]["tensors"]
    state = {name: torch.zeros(()).expand(entry.get("shape", [])) for name, entry in face.items()}
    with pytest.raises(BadValue, match=r"not those of a CurricularFace IR-101.*missing"):
        CurricularFace.from_state(state)
    with torch.device("meta"), pytest.raises(BadValue, match=r"256 x 256 pixels, but the images are 192 x 256"):
        CurricularFace().embed(torch.zeros(1, 3, 192, 256))


@torch.no_grad()
def test_a_trunk_is_found_where_torch_hub_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    spec = fill.load("lpips_alex")
    wanted = tmp_path / "weights" / "alexnet-owt-7be5be79.pth"
    with pytest.raises(MissingFile, match=r"alexnet-owt-7be5be79\.pth does not exist"):
        load_lpips("alex", wanted)
    hub = tmp_path / "cache" / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    hub.parent.mkdir(parents=True)
    torch.save(fill.state_dict(spec, "backbone"), hub)
    assert located(wanted) == hub
    distance = load_lpips("alex", wanted)
    x = fill.inputs(spec)
    assert_close_l2(distance(x["x"], x["y"]), distance.package(x["x"], x["y"]).flatten(), 1e-5)


def test_a_file_is_found_under_the_suffix_of_its_lineage(tmp_path: Path) -> None:
    wanted = tmp_path / "stylegan2-car-config-f.pt"
    assert located(wanted) is None
    (tmp_path / "stylegan2-car-config-f.pkl").touch()
    assert located(wanted) == tmp_path / "stylegan2-car-config-f.pkl"
    write_state(tmp_path / "stylegan2-car-config-f.safetensors", {"a": torch.zeros(1)}, {})
    assert located(wanted) == tmp_path / "stylegan2-car-config-f.safetensors", "our own is preferred"
    wanted.touch()
    assert located(wanted) == wanted, "what was named comes first"
    assert places(tmp_path / "images") == [tmp_path / "images"], "a folder is looked for only as it is"


def parser_file(folder: Path) -> Path:
    """A seeded parser by the published names, with the two auxiliary outputs that training leaves in the file."""
    torch.manual_seed(0)
    state = FaceParser().state_dict()
    for name, tensor in state.items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
    auxiliary = {
        f"conv_out{size}.{name}": torch.zeros(shape)
        for size in (16, 32)
        for name, shape in (("conv.conv.weight", (64, 128, 3, 3)), ("conv_out.weight", (19, 64, 1, 1)))
    }
    torch.save(state | auxiliary, folder / "79999_iter.pth")
    return folder / "79999_iter.pth"


@torch.no_grad()
def test_bisenet_labels_every_pixel_at_the_size_of_the_image(tmp_path: Path) -> None:
    parser = load_bisenet(parser_file(tmp_path))
    images = torch.nn.functional.interpolate(torch.rand(2, 3, 6, 8) * 2 - 1, size=(48, 64), mode="nearest")
    labels = parser.parts(images)
    assert labels.shape == (2, 48, 64)
    assert labels.min() >= 0
    assert labels.max() < 19
    assert labels.unique().numel() > 2, "it looks"
    alike = parser.parts(images[1:]) == labels[1:]
    assert alike.float().mean() > 0.999, "each image by itself, up to near ties of two labels"
    bigger = torch.nn.functional.interpolate(images, size=(512, 512), mode="bilinear", antialias=True)
    assert torch.equal(parser(bigger), parser(images)), "whatever the size"


def test_bisenet_has_the_published_names() -> None:
    names = FaceParser().state_dict().keys()
    assert {
        "cp.resnet.layer4.1.bn2.running_var", "cp.arm16.conv.conv.weight", "cp.arm32.bn_atten.bias",
        "cp.conv_head32.bn.weight", "cp.conv_avg.conv.weight", "ffm.convblk.conv.weight", "ffm.conv2.weight",
        "conv_out.conv.bn.bias", "conv_out.conv_out.weight",
    } <= names  # fmt: skip
    assert {name.split(".")[0] for name in names} == {"cp", "ffm", "conv_out"}


def test_bisenet_refuses_another_network(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet.pth")
    with pytest.raises(BadValue, match=r"resnet\.pth.*not those of a BiSeNet face parser"):
        load_bisenet(tmp_path / "resnet.pth")


def test_bisenet_converts(tmp_path: Path) -> None:
    source, target = parser_file(tmp_path), tmp_path / "parser.safetensors"
    convert(composed("convert", [f"source={source}", f"save_to={target}"]))
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    assert torch.equal(load_bisenet(target)(image), load_bisenet(source)(image))
    parts = segmenter(faces=target)(image, ["a"])
    assert torch.equal(parts, load_bisenet(source).parts(image))
    with pytest.raises(BadValue, match="segments come from one of them"):
        segmenter(folder=tmp_path, faces=target)
