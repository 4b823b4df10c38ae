"""Weights of published models: found, fetched, refused, checked and named."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clipit_lib.encoders import backbones, checkpoint, hub, published, vision, weights
from clipit_lib.encoders.sources import Sources
from clipit_lib.errors import ClipItError
from clipit_lib.files import file_digest
from clipit_lib.settings import Probe, Profile, RunSpec, load_profile

NAME = "kaiko_vits16"
CONTENT = b"weights of the stub"


@dataclass
class StubHub:
    """A hub of one file: what it answers, and what it was asked."""

    status: int = 200
    code: str = ""
    url: str = ""
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
                self.send_header("X-Repo-Commit", published.entry(NAME).revision)
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
    assert hub.cached(NAME) is None
    path = hub.download(NAME, stub.url)
    assert path.read_bytes() == CONTENT and hub.cached(NAME) == path
    model = published.entry(NAME)
    assert stub.asked[0][1] == f"/{model.repo}/resolve/{model.revision}/{model.file}"
    asked = len(stub.asked)
    assert hub.download(NAME, stub.url) == path and len(stub.asked) == asked
    # Found in the cache of the hub's library, its digest is that of the file.
    assert weights.locate(NAME, Sources(download=False)) == path
    assert weights.weights_hash(NAME, Sources()) == file_digest(path)[:16]


@pytest.mark.parametrize(
    ("status", "code", "failure", "words"),
    [
        (401, "GatedRepo", "refused", r"refuses the weights of uni \(CC-BY-NC-ND.*Ask for access"),
        (403, "GatedRepo", "refused", r"Ask for access at https://huggingface.co/MahmoodLab/UNI"),
        (403, "", "refused", r"hf auth login"),
        (401, "", "refused", r"`weights: \{uni: PATH\}`"),
        (404, "EntryNotFound", "absent", r"no pytorch_model.bin of uni at revision b55a5ec6cade"),
        (404, "RevisionNotFound", "absent", r"at revision"),
        (404, "RepoNotFound", "absent", r"the hub has no"),
        (400, "", "unreachable", r"cannot be reached"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(
    stub: StubHub, status: int, code: str, failure: str, words: str
) -> None:
    stub.status, stub.code = status, code
    for attempt in (hub.download, hub.size):
        with pytest.raises(hub.HubError, match=words) as caught:
            attempt("uni", stub.url)
        assert caught.value.failure == failure and "\n" not in str(caught.value)
    found = weights.reach("uni", profile(), stub.url)
    assert found.state == failure and found.bytes is None
    assert {method for method, *_ in stub.asked} == {"HEAD"}  # nothing was downloaded


def test_an_open_model_is_not_asked_for(stub: StubHub) -> None:
    stub.status, stub.code = 401, ""
    with pytest.raises(hub.HubError, match="remove a token that has expired"):
        hub.download(NAME, stub.url)


def test_no_answer_and_no_copy(stub: StubHub, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "http://127.0.0.1:9"
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    for attempt in (hub.download, hub.size):
        with pytest.raises(hub.HubError, match=rf"not here.*`weights: \{{{NAME}: PATH\}}`"):
            attempt(NAME, nobody)
    assert weights.reach(NAME, profile(), nobody).state == "unreachable"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(hub.HubError, match="unset HF_HUB_OFFLINE"):
        hub.download(NAME, stub.url)


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(hub.HubError, match=r"no space left.*HF_HOME"):
        hub.download("conch")


def test_a_token_is_used_and_never_shown(
    stub: StubHub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_stub_of_a_token")
    assert hub.size(NAME, stub.url) == len(CONTENT)
    assert stub.asked[-1][2] == "Bearer hf_stub_of_a_token"
    stub.status, stub.code = 403, "GatedRepo"
    with pytest.raises(ClipItError) as caught:
        hub.download("uni", stub.url)
    assert stub.asked[-1][2] == "Bearer hf_stub_of_a_token"
    assert "hf_stub" not in str(caught.value) + "".join(capfd.readouterr())


def test_reach_downloads_nothing(stub: StubHub, tmp_path: Path) -> None:
    found = weights.reach(NAME, profile(), stub.url)
    assert (found.state, found.bytes) == ("reachable", len(CONTENT))
    assert [method for method, *_ in stub.asked] == ["HEAD"] and hub.cached(NAME) is None
    copy = tmp_path / "model.safetensors"
    copy.write_bytes(b"abc")
    here = weights.reach(NAME, profile(weights={NAME: str(copy)}), stub.url)
    assert (here.state, here.bytes, here.words) == ("here", 3, str(copy))
    gone = weights.reach(NAME, profile(weights={NAME: str(tmp_path / "no")}), stub.url)
    assert gone.state == "absent" and "Mend its path" in gone.words
    with pytest.raises(ClipItError, match="unknown published model"):
        weights.reach("phantom_vit_s16", profile())


def test_a_copy_is_a_file_or_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(CONTENT)
    for given in (file, tmp_path):
        assert weights.locate(NAME, Sources(copies={NAME: str(given)})) == file
    monkeypatch.setenv("CLIPIT_DATA", str(tmp_path))
    assert weights.locate(NAME, Sources(copies={NAME: "model.safetensors"})) == file
    with pytest.raises(ClipItError, match=r"no weights of uni here.*`weights`"):
        weights.locate("uni", Sources(copies={"uni": str(tmp_path)}))  # lacks pytorch_model.bin
    with pytest.raises(ClipItError, match=r"`weights`: unknown published model 'UNI'"):
        Sources.of(profile(weights={"UNI": str(file)}))


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
    first = weights.weights_hash(NAME, sources)
    assert weights.weights_hash(NAME, sources) == first and len(read) == 1
    file.write_bytes(b"other weights, alike in length")
    os.utime(file, ns=(1, 1))
    other = weights.weights_hash(NAME, sources)
    assert other == file_digest(file)[:16] != first and len(read) == 2
    # A stored run names no path: its copy is the file seen before with the digest it states.
    fields = {"dataset": "d", "data_hash": "h", "setting": "unimodal", "seed": 0, "probe": Probe()}
    more = {"pretraining": None, "normalisation": "own", "backbone": NAME}
    spec = RunSpec(**fields, **more, backbone_hash=other)
    assert weights.sources_of(spec).copies == {NAME: str(file)}
    file.unlink()
    assert weights.sources_of(spec).copies == {}


class Runs:
    """What a pickle must not be allowed to do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.getenv, ("HOME",)


def test_a_checkpoint_that_runs_code_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"weight": torch.ones(2), "and": Runs()}, path)
    with pytest.raises(ClipItError, match=r"would run code when read, so it was not.*safetensors"):
        checkpoint.read(path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_damaged_checkpoint_is_said(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ClipItError, match=r"damaged|would run code"):
        checkpoint.read(tmp_path / name)


def test_wrapped_states_are_unwrapped(tmp_path: Path) -> None:
    path, inner = tmp_path / "w.pth", {"module.a": torch.ones(1), "module.b": torch.zeros(1)}
    torch.save({"state_dict": inner, "epoch": 3}, path)
    assert checkpoint.read(path).keys() == {"a", "b"}


def test_a_checkpoint_of_another_model_names_what_does_not_fit() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))
    state = model.state_dict()
    fitting = {k: v + 1 for k, v in state.items()}
    checkpoint.fill(model, fitting, "file")
    assert all(torch.equal(v, fitting[k]) for k, v in model.state_dict().items())
    bad = {k: v for k, v in state.items() if not k.startswith(("0", "1"))}
    bad |= {"head": torch.ones(1), "3.weight": torch.ones(3, 2)}
    with pytest.raises(ClipItError) as caught:
        checkpoint.check_fit(model, bad, "file")
    assert "4 weights missing, 1 unexpected, 1 of another shape" in str(caught.value)
    assert "(0.weight, 0.bias, 1.weight, 1.bias, head)" in str(caught.value)
    checkpoint.check_fit(model, bad, "file", r"[013]\..*|head")


def test_a_published_backbone_loads_its_own_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = vision.build(NAME, None).eval()
    save_file(model.state_dict(), path)
    sources = Sources(copies={NAME: str(path)})
    encoder = backbones.load(NAME, sources)
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.model(images), model(images))
    assert encoder.width == 384 and encoder.weights_hash == file_digest(path)[:16]
    assert encoder.transform.mean == vision.HALF and encoder.transform.size == 224
    assert backbones.load(NAME, sources, "imagenet").transform.mean == vision.IMAGENET[0]
    with pytest.raises(ClipItError, match=r"does not fit: \d+ weights missing"):
        vision.load("kaiko_vitb8", Sources(copies={"kaiko_vitb8": str(path)}))


def test_weights_in_dinov2s_layout_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kaiko's own file of L/14 has DINOv2's names, and positions for 518 pixels and for CLS."""
    row = vision.entry("kaiko_vitl14")
    small = replace(row, options=row.options | {"embed_dim": 64, "depth": 1, "num_heads": 2})
    monkeypatch.setitem(vision.VISION, "kaiko_vitl14", small)
    model = vision.build("kaiko_vitl14", None)
    state = {k: torch.randn_like(v) for k, v in model.state_dict().items()}
    positions = torch.randn(1, 1 + 37 * 37, 64)
    theirs = {k: v for k, v in state.items() if k not in ("reg_token", "cls_token", "pos_embed")}
    theirs |= {
        "mask_token": torch.zeros(1, 64), "register_tokens": state["reg_token"],
        "cls_token": state["cls_token"], "pos_embed": positions,
    }  # fmt: skip
    path = tmp_path / "vitl14.pth"
    torch.save(theirs, path)
    loaded = vision.load("kaiko_vitl14", Sources(copies={"kaiko_vitl14": str(path)})).model
    found = loaded.state_dict()
    torch.testing.assert_close(found["cls_token"], state["cls_token"] + positions[:, :1])
    torch.testing.assert_close(found["reg_token"], state["reg_token"])
    grid = positions[:, 1:].reshape(1, 37, 37, 64).permute(0, 3, 1, 2)
    smaller = nn.functional.interpolate(grid, (16, 16), mode="bicubic", antialias=True)
    expected = smaller.permute(0, 2, 3, 1).reshape(1, 256, 64)
    torch.testing.assert_close(found["pos_embed"], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["quiltnet", "plip"])
def test_a_clip_and_its_image_half_are_the_published_one(name: str, tmp_path: Path) -> None:
    """Written as its authors' library writes it, read by ours: the same embeddings."""
    torch.manual_seed(0)
    path, images = tmp_path / published.entry(name).file, torch.randn(1, 3, 224, 224)
    ids = torch.zeros(1, 77, dtype=torch.long)
    ids[0, :4] = torch.tensor([49406, 320, 1125, 49407])
    if name == "plip":
        from transformers import CLIPConfig, CLIPModel

        model = CLIPModel(CLIPConfig()).eval()
        with torch.inference_mode():
            output = model(input_ids=ids, pixel_values=images)
        expected = output.image_embeds, output.text_embeds  # of unit length
        old = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
        torch.save(model.state_dict() | old, path)
    else:
        import open_clip

        model = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32")).eval()
        with torch.inference_mode():
            expected = model(images, ids)[:2]
        torch.save(model.state_dict(), path)
    from clipit_lib.encoders import clip

    sources, unit = Sources(copies={name: str(tmp_path)}), partial(nn.functional.normalize, dim=-1)
    encoder, half = clip.load(name, sources), backbones.load(name, sources)
    with torch.inference_mode():
        torch.testing.assert_close(unit(encoder.image_tower(images)), expected[0])
        torch.testing.assert_close(unit(encoder.text_tower(ids)), expected[1])
        torch.testing.assert_close(unit(half.model(images)), expected[0])
    assert encoder.weights_hash == half.weights_hash == file_digest(path)[:16]
    (words,) = encoder.tokenizer.windows(["a photo"], "truncate").ids
    assert torch.equal(words, ids[0])  # "a photo" is 320, 1125 to OpenAI's tokenizer
    assert encoder.transform == half.transform and encoder.transform.mean == vision.OPENAI_CLIP[0]
    assert not any("text" in key for key, _ in half.model.named_parameters())
