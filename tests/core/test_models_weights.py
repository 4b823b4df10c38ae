"""Weights of published models: from the hub, from a copy, and what is said if neither is there."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from clipit_lib.encoders import registry, weights
from clipit_lib.encoders.weights import Published, Sources
from clipit_lib.errors import ClipItError
from clipit_lib.files import file_digest
from clipit_lib.settings import Probe, RunSpec
from companion.doctor import hub_size
from companion.profile import Profile, load_profile, sources_of_profile

NAME = "kaiko_vits16"
MODEL, UNI, CONCH, KEEP = (registry.published()[name] for name in (NAME, "uni", "conch", "keep"))
CONTENT = b"weights of the stub"


@dataclass
class StubHub:
    """A hub of one file: what it answers, and what it was asked."""

    status: int = 200
    code: str = ""
    url: str = ""
    commit: str = MODEL.revision
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StubHub]:
    """A hub on this machine, an empty cache for its library, and no token."""
    state = StubHub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            state.asked.append((self.command, self.path, self.headers.get("authorization")))
            self.send_response(state.status)
            if state.code:
                self.send_header("X-Error-Code", state.code)
            if state.status == 200:
                self.send_header("ETag", '"0123456789abcdef"')
                self.send_header("X-Repo-Commit", state.commit)
                self.send_header("Content-Length", str(len(CONTENT)))
            else:
                self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            if state.status == 200:
                self.wfile.write(CONTENT)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    huggingface_hub.close_session()
    yield state
    huggingface_hub.close_session()
    server.shutdown()
    server.server_close()
    thread.join()


def profile(**changes: object) -> Profile:
    return load_profile("smoke").model_copy(update=changes)


def test_a_file_is_fetched_once_from_its_revision(stub: StubHub) -> None:
    assert weights.on_disk(MODEL, {}) is None
    path = weights.hub_download(MODEL, stub.url)
    assert path.read_bytes() == CONTENT and weights.on_disk(MODEL, {}) == path
    assert stub.asked[0][1] == f"/{MODEL.repo}/resolve/{MODEL.revision}/{MODEL.file}"
    asked = len(stub.asked)
    assert weights.hub_download(MODEL, stub.url) == path and len(stub.asked) == asked
    # Found in the cache of the hub's library, its digest is that of the file.
    assert weights.locate(MODEL, Sources(download=False)) == path
    assert weights.published_hash(MODEL, Sources()) == file_digest(path)[:16]


def test_a_vocabulary_is_fetched_as_the_weights_are(
    stub: StubHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ClipItError, match=r"the weights of keep have not been downloaded yet"):
        weights.files(KEEP, Sources(download=False))
    real, stub.commit = weights.hub_download, KEEP.revision
    monkeypatch.setattr(weights, "hub_download", lambda model: real(model, stub.url))
    file, vocabulary = weights.files(KEEP, Sources())
    assert (file.name, vocabulary.name) == ("model.safetensors", "vocab.txt")
    asked = {path for _, path, _ in stub.asked}
    assert asked == {
        f"/{KEEP.repo}/resolve/{KEEP.revision}/{path.name}" for path in (file, vocabulary)
    }
    assert weights.files(KEEP, Sources(download=False)) == [file, vocabulary]
    vocabulary.unlink()
    with pytest.raises(ClipItError, match=r"the word pieces of keep have not been downloaded yet"):
        weights.published_hash(KEEP, Sources(download=False))
    stub.status, stub.code = 404, "EntryNotFound"
    with pytest.raises(
        ClipItError, match=r"word pieces of keep are.*vocab.txt and model.safetensors"
    ):
        weights.files(KEEP, Sources())


@pytest.mark.parametrize(
    ("model", "status", "code", "words"),
    [
        (UNI, 401, "GatedRepo", r"refuses the weights of uni \(CC-BY-NC-ND.*Ask for access"),
        (UNI, 403, "GatedRepo", r"Ask for access at https://huggingface.co/MahmoodLab/UNI and log"),
        (UNI, 403, "", r"hf auth login"),
        (UNI, 401, "", r"`weights: \{uni: PATH\}`.*copy of pytorch_model.bin"),
        (MODEL, 401, "", r"Log in with `hf auth login`; a token that has expired is no use"),
        (UNI, 404, "EntryNotFound", r"uni are not here.*404.*Look at its page"),
        (UNI, 404, "RevisionNotFound", r"does not give them: 404"),
        (UNI, 404, "RepoNotFound", r"does not give them: 404"),
        (UNI, 400, "", r"does not give them.*the connection"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(
    stub: StubHub, model: Published, status: int, code: str, words: str
) -> None:
    stub.status, stub.code = status, code
    for attempt in (weights.hub_download, hub_size):
        with pytest.raises(ClipItError, match=words) as caught:
            attempt(model, stub.url)
        assert "\n" not in str(caught.value)
    assert {method for method, *_ in stub.asked} == {"HEAD"}  # nothing was downloaded


def test_no_answer_and_no_copy(stub: StubHub, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "http://127.0.0.1:9"
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    for attempt in (weights.hub_download, hub_size):
        with pytest.raises(ClipItError, match=rf"not here.*`weights: \{{{NAME}: PATH\}}`"):
            attempt(MODEL, nobody)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ClipItError, match=r"offline mode is enabled.*HF_HUB_OFFLINE"):
        weights.hub_download(MODEL, stub.url)


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(ClipItError, match=r"No space left.*HF_HOME"):
        weights.hub_download(CONCH)


def test_a_token_is_used_and_never_shown(
    stub: StubHub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_stub_of_a_token")
    assert hub_size(MODEL, stub.url) == len(CONTENT)
    assert stub.asked[-1][2] == "Bearer hf_stub_of_a_token"
    stub.status, stub.code = 403, "GatedRepo"
    with pytest.raises(ClipItError) as caught:
        weights.hub_download(UNI, stub.url)
    assert stub.asked[-1][2] == "Bearer hf_stub_of_a_token"
    assert "hf_stub" not in str(caught.value) + "".join(capfd.readouterr())


def test_asking_for_the_size_downloads_nothing(stub: StubHub, tmp_path: Path) -> None:
    assert hub_size(MODEL, stub.url) == len(CONTENT)
    assert [method for method, *_ in stub.asked] == ["HEAD"] and not weights.on_disk(MODEL, {})


def test_a_copy_is_a_file_or_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(CONTENT)
    monkeypatch.delenv("CLIPIT_DATA", raising=False)  # not asked where the path is whole
    for given in (file, tmp_path):
        assert weights.locate(MODEL, Sources(copies={NAME: str(given)})) == file
    monkeypatch.setenv("CLIPIT_DATA", str(tmp_path))
    assert weights.locate(MODEL, Sources(copies={NAME: "model.safetensors"})) == file
    with pytest.raises(ClipItError, match=r"no weights of uni here.*`weights`"):
        weights.locate(UNI, Sources(copies={"uni": str(tmp_path)}))  # lacks pytorch_model.bin
    with pytest.raises(ClipItError, match=r"`weights`: unknown published model 'UNI'"):
        sources_of_profile(profile(weights={"UNI": str(file)}))


def test_weights_of_a_profile_of_the_user_lie_beside_it(tmp_path: Path) -> None:
    text = Path("profiles/smoke.yaml").read_text(encoding="utf-8")
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace("name: smoke", "name: mine") + "weights: {uni: models/uni}\n")
    assert load_profile(str(mine)).weights == {"uni": str(tmp_path / "models" / "uni")}


def test_a_large_file_is_read_for_its_digest_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, read = tmp_path / "model.safetensors", []
    file.write_bytes(CONTENT)
    monkeypatch.setattr(weights, "file_digest", lambda path: read.append(path) or file_digest(path))
    sources = Sources(copies={NAME: str(file)})
    first = weights.published_hash(MODEL, sources)
    assert weights.published_hash(MODEL, sources) == first and len(read) == 1
    file.write_bytes(b"other weights, alike in length")
    os.utime(file, ns=(1, 1))
    other = weights.published_hash(MODEL, sources)
    assert other == file_digest(file)[:16] != first and len(read) == 2
    # A stored run names no path: its copy is the file seen before with the digest it states.
    spec = RunSpec(
        kernels="those of the run", dataset="d", data_hash="h", setting="unimodal", seed=0,
        probe=Probe(), pretraining=None, normalisation="own", backbone=NAME, backbone_hash=other,
    )  # fmt: skip
    assert weights.sources_of(spec).copies == {NAME: str(file)}
    assert weights.sources_of(spec).kernels == spec.kernels
    file.unlink()
    assert weights.sources_of(spec).copies == {}
