"""The table of published files: complete, true about what is there, and able to fetch."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from commands import Command
from lsap.checkpoints.paths import SUFFIXES
from lsap.config.compose import composed, config_dir
from lsap.errors import BadValue, StoppedRun
from lsap.pipelines.assets import Asset, fetch, known

CONTENT = b"weights" * 5000
REAL = sorted({path.stem for path in (config_dir() / "domain").glob("*.yaml")} - {"demo"})


@pytest.fixture
def server() -> Iterator[str]:
    """A web server with one file, at /weights.pt; everything else is not found."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/weights.pt"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(CONTENT) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(CONTENT)

        def log_message(self, *_: object) -> None:
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def asset(url: str | None, sha256: str | None = None) -> Asset:
    return Asset("sub/weights.pt", "some weights", ("face",), ("psp",), "https://example.org", "MIT", url, sha256)


# --- the table itself


def test_every_entry_is_complete() -> None:
    entries = known(composed("assets"))
    assert len({entry.file for entry in entries}) == len(entries)
    for entry in entries:
        assert set(entry.domains) <= set(REAL)
        assert entry.source.startswith("https://")
        assert entry.url is None or entry.url.startswith("https://")
        assert entry.sha256 is None or re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}", entry.sha256)
        assert entry.what
        assert entry.licence


@pytest.mark.parametrize("domain", REAL)
def test_every_file_that_a_domain_needs_is_in_the_table(domain: str) -> None:
    config = composed("train", [f"domain={domain}", "weights=weights"])
    served = [entry for entry in known(composed("assets")) if domain in entry.domains]
    stems = {Path(entry.file).name.removesuffix(Path(entry.file).suffix) for entry in served}
    for need in config.domain.needs:
        if need.key != "data.root":
            path = Path(OmegaConf.select(config, need.key))
            assert path.suffix in (*SUFFIXES, ".tar")
            assert path.stem in stems, f"{path.name} of domain={domain} is not in conf/assets.yaml"


@pytest.mark.parametrize("domain", REAL)
def test_a_domain_names_the_source_that_the_table_names(domain: str) -> None:
    needs = {need.key: need for need in composed("train", [f"domain={domain}"]).domain.needs}
    (generator,) = (e for e in known(composed("assets")) if domain in e.domains and e.file.startswith("stylegan2"))
    assert needs["generator.checkpoint"].source == generator.source
    assert needs["generator.checkpoint"].what == generator.what


# --- the command


def test_what_is_there_and_what_is_missing(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "stylegan2-church-config-f.safetensors").touch()  # converted; it serves for the published file
    out = command("assets", "domain=church", "method=lsap_e", f"weights={folder}")
    assert out.code == 0
    assert re.search(r"^present  stylegan2-church-config-f\.pkl  \(.*f\.safetensors\)", out.out, re.MULTILINE)
    assert re.search(r"^MISSING  moco_v2_800ep_pretrain\.pth\.tar$", out.out, re.MULTILINE)
    assert "licence: CC BY-NC 4.0; sha256: not published" in out.out
    assert f"looked for: {folder}/alexnet-owt-7be5be79.pth, {folder}/alexnet-owt-7be5be79.safetensors" in out.out
    assert f"{tmp_path}/hub/hub/checkpoints/alexnet-owt-7be5be79.pth" in out.out
    assert "e4e_church_encode" not in out.out, "that is for other methods"
    assert "3 missing; 3 of them have a direct address: add fetch=true" in out.out


def test_fetching_gets_what_has_an_address_and_names_the_rest(command: Command, tmp_path: Path, server: str) -> None:
    files = (
        "files=[{file: b.pt, what: b, domains: [face], methods: [psp], source: 'https://example.org', licence: l},"
        f"{{file: a.pt, what: a, domains: [face], methods: [psp], source: s, licence: l, url: '{server}/weights.pt'}}]"
    )
    out = command("assets", files, "domain=face", "fetch=true", f"weights={tmp_path}/w")
    assert out.code == 0, out.err
    assert (tmp_path / "w" / "a.pt").read_bytes() == CONTENT
    assert f"sha256 {hashlib.sha256(CONTENT).hexdigest()} (none is published to compare with)" in out.out
    assert f"needs a browser: b.pt from https://example.org; put it into {tmp_path}/w" in out.out
    again = command("assets", files, "domain=face", "fetch=true", f"weights={tmp_path}/w")
    assert "0 fetched, 1 to be got by hand" in again.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("domain=cars",), "domain=cars: there is no such domain; did you mean 'car'?"),
        (("domain=demo",), "domain=demo: accepted: car, church, face, wild"),
        (("method=e4",), "method=e4: did you mean 'e4e'?"),
        (("name=age",), "name=age: did you mean"),
        (("domain=face", "fetch=maybe"), "fetch=maybe: expected true or false"),
        (("fetch=true",), "fetch=true would get every file of the table; name a domain"),
        (
            ("domain=wild", "method=editing", "name=age.pt"),
            "no file serves domain=wild, method=editing, name=age.pt together",
        ),
    ],
)
def test_wrong_choices_are_one_line(command: Command, arguments: tuple[str, ...], message: str) -> None:
    out = command("assets", *arguments)
    assert (out.code, out.out, out.err.count("\n")) == (2, "", 1)
    assert message in out.err


# --- one download


def test_a_checked_download_is_put_in_place_whole(server: str, tmp_path: Path) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    for sha256 in (digest, digest[:8]):
        path = fetch(asset(f"{server}/weights.pt", sha256), tmp_path)
        assert path.read_bytes() == CONTENT
        assert list(path.parent.iterdir()) == [path]


def test_a_download_of_other_bytes_is_not_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(BadValue, match=r"sub/weights\.pt: sha256 begins [0-9a-f]{12}, expected 7be5be79; .* not kept"):
        fetch(asset(f"{server}/weights.pt", "7be5be79"), tmp_path)
    assert not list((tmp_path / "sub").iterdir())


def test_an_address_that_is_gone_and_no_network_are_one_line(server: str, tmp_path: Path) -> None:
    with pytest.raises(StoppedRun, match=r"/gone\.pt answered 404; look for it at https://example\.org"):
        fetch(asset(f"{server}/gone.pt"), tmp_path)
    with pytest.raises(
        StoppedRun, match=r"could not be fetched: no connection to http://127\.0\.0\.1:9/.*carry the file"
    ):
        fetch(asset("http://127.0.0.1:9/weights.pt"), tmp_path)
    assert not list((tmp_path / "sub").iterdir())
