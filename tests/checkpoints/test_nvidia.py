"""NVIDIA's pickles, PyTorch's and TensorFlow's: read without their code, equal to what was put into them."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch

from comparison import assert_close_l2, assert_published
from golden import fill
from layouts import nvidia_names, nvidia_objects, write_nvidia, write_tensorflow
from lsap.checkpoints import fingerprint, load_generator, read_state
from lsap.checkpoints.pickles import Record
from lsap.errors import BadValue
from lsap.stylegan2 import Generator, freeze


@pytest.fixture
def generator() -> Generator:
    """16 px, two mapping layers, widths that all differ, no value at its start."""
    made = Generator(16, 8, 2, {4: 6, 8: 5, 16: 4}, mapping_lr=0.01, clamp=256)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    torch.nn.init.normal_(made.latent_avg)
    return freeze(made)


def test_a_pytorch_pickle_gives_the_generator_that_was_put_into_it(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_nvidia(tmp_path / "network.pkl", nvidia_names(generator), monkeypatch, lr=0.02)
    again = load_generator(path, size=16)
    assert fingerprint(again) == fingerprint(generator)
    assert (again.clamp, again.mapping_lr) == (256, 0.02)
    z = torch.randn(2, 8)
    assert not torch.equal(again.mapping(z), generator.mapping(z)), "another learning-rate multiplier is another map"
    w_plus = torch.randn(2, 6, 8)
    assert torch.equal(again(w_plus), generator(w_plus))


def test_objects_of_a_pickle_are_inert_records(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = read_state(write_nvidia(tmp_path / "n.pkl", nvidia_names(generator), monkeypatch))
    assert content["training_set_kwargs"] == {"path": "x.zip"}
    assert isinstance(content["G_ema"], Record)
    assert content["G_ema"].name == "Generator"
    assert content["G"] is content["G_ema"], "one object that was stored twice stays one"
    assert not callable(content["D"])


def test_a_pickle_without_mean_latent_clamp_and_noise_is_complete(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = nvidia_names(generator)
    kept = {name: t for name, t in state.items() if not re.search(r"w_avg|noise", name)}
    again = load_generator(write_nvidia(tmp_path / "n.pkl", kept, monkeypatch, clamp=None))
    assert again.clamp is None
    assert again.latent_avg.any()
    w_plus = torch.randn(1, 6, 8)
    assert torch.equal(again(w_plus), again(w_plus, noise="none"))
    assert_close_l2(again(w_plus), generator(w_plus, noise="none"), 1e-5)


def test_a_bare_state_dict_of_nvidias_names_loads(generator: Generator, tmp_path: Path) -> None:
    torch.save(nvidia_names(generator), tmp_path / "extracted.pt")
    assert fingerprint(load_generator(tmp_path / "extracted.pt")) == fingerprint(generator)


def test_a_generator_saved_alone_loads_as_its_pickle_does(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PTI saves its tuned generator by `torch.save(G, …)`; the source text in it must not run."""
    objects = nvidia_objects(nvidia_names(generator), monkeypatch)
    for protocol in (2, 5):
        torch.save(objects["G_ema"], tmp_path / f"tuned{protocol}.pt", pickle_protocol=protocol)
        torch.save(objects, tmp_path / f"all{protocol}.pt", pickle_protocol=protocol)
        (tmp_path / f"alone{protocol}.pkl").write_bytes(pickle.dumps(objects["G_ema"], protocol))
    torch.save(objects["D"], tmp_path / "d.pt")
    for path in sorted(tmp_path.glob("*[25].p*")):
        again = load_generator(path)
        assert (fingerprint(again), again.clamp) == (fingerprint(generator), 256), path.name
    with pytest.raises(BadValue, match=r"d\.pt: its network is a Discriminator and no StyleGAN2 generator"):
        load_generator(tmp_path / "d.pt")


def test_the_network_in_training_is_taken_with_a_line_where_its_average_is_missing(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"G": nvidia_objects(nvidia_names(generator), monkeypatch)["G"]}, tmp_path / "g.pt")
    assert fingerprint(load_generator(tmp_path / "g.pt")) == fingerprint(generator)
    assert "g.pt: takes 'G', the generator in training: the file holds no average" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("mapping.embed.weight", (8, 3), r"takes class labels \(c_dim > 0\)"),
        (
            "synthesis.b16.skip.weight",
            (4, 5, 1, 1),
            r"the architecture 'resnet'; lsap supports 'skip' only",
        ),
        ("synthesis.b16.conv0.resample_filter", (12, 12), r"another filter than StyleGAN2's"),
        ("synthesis.b16.conv0.bias", (9,), r"no complete 16-px generator: 1 of .*blocks\.up16\.bias"),
    ],
)
def test_networks_of_another_kind_are_refused(
    generator: Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    shape: tuple[int, ...],
    message: str,
) -> None:
    state = nvidia_names(generator) | {name: torch.randn(shape)}
    path = write_nvidia(tmp_path / "n.pkl", state, monkeypatch)
    with pytest.raises(BadValue, match=rf"n\.pkl.*{message}"):
        load_generator(path)


def test_stylegan3_is_named_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_nvidia(tmp_path / "n.pkl", {"synthesis.input.weight": torch.zeros(2, 2)}, monkeypatch)
    with pytest.raises(BadValue, match=r"n\.pkl: its network is a StyleGAN3 and no StyleGAN2 generator"):
        load_generator(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_tensorflow_pickle_gives_the_generator_that_was_put_into_it(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    again = load_generator(write_tensorflow(tmp_path / "g.pkl", generator, monkeypatch, protocol=protocol))
    ours = again.state_dict()
    for name, tensor in generator.state_dict().items():
        if name.endswith("affine.bias"):  # 1 was taken off and put back
            assert_close_l2(ours[name], tensor, 1e-6)
        else:
            assert torch.equal(ours[name], tensor), name
    w_plus = torch.randn(2, 6, 8)
    assert_close_l2(again(w_plus), generator(w_plus), 1e-5)
    assert again.clamp is None


def test_a_tensorflow_network_of_another_architecture_is_refused(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tensorflow(tmp_path / "g.pkl", generator, monkeypatch, architecture="resnet")
    with pytest.raises(BadValue, match=r"g\.pkl: its synthesis has the architecture 'resnet'"):
        load_generator(path)


# --- the recipe's numbers


@pytest.fixture(scope="module")
def recipe() -> tuple[fill.Spec, dict[str, torch.Tensor]]:
    spec = fill.load("stylegan2_ada_256")
    return spec, fill.state_dict(spec, "G_ema")


def test_the_recipe_in_a_pytorch_pickle_gives_the_published_codes_and_image(
    recipe: tuple[fill.Spec, dict[str, torch.Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, state = recipe
    generator = load_generator(write_nvidia(tmp_path / "ada.pkl", state, monkeypatch), size=256)
    x = fill.inputs(spec)
    w = generator.mapping(x["z"])
    assert_published(spec, "w", w, 1e-5)
    assert_published(spec, "w_psi07", generator.truncate(w, 0.7), 1e-5)
    truncated = generator.truncate(w, 0.5, cutoff=8)
    assert_published(spec, "w_psi05_cutoff8_last_row", truncated[:, -1], 1e-5)
    assert torch.equal(truncated[:, 7], generator.truncate(w, 0.5))
    assert torch.equal(truncated[:, 8], w)
    with torch.no_grad():
        image = generator(x["w_plus"][:1], noise="none")
    assert_published(spec, "image_w_plus_no_noise", image, 1e-4)


@pytest.mark.slow
def test_the_recipe_in_a_tensorflow_pickle_gives_the_published_images(
    recipe: tuple[fill.Spec, dict[str, torch.Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, state = recipe
    torch.save(state, tmp_path / "state.pt")
    path = write_tensorflow(tmp_path / "g.pkl", load_generator(tmp_path / "state.pt"), monkeypatch, conv_clamp=256)
    generator = load_generator(path, size=256)
    assert generator.clamp == 256
    x = fill.inputs(spec)
    with torch.no_grad():
        assert_published(spec, "image_w_plus_no_noise", generator(x["w_plus"][:1], noise="none"), 1e-4)
        image = generator(generator.mapping(x["z"]))
    assert_published(spec, "image_w", image, 1e-4)
