"""Checkpoints of published models: what is read, and what is refused."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from weight_files import hollow

from clipit_lib.encoders import registry, vision, weights
from clipit_lib.encoders.weights import Held, Sources
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest, file_digest
from clipit_lib.settings import Probe, RunSpec

NAME = "kaiko_vits16"


class Runs:
    """What a pickle must not be allowed to do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.getenv, ("HOME",)


def test_a_checkpoint_that_runs_code_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"weight": torch.ones(2), "and": Runs()}, path)
    with pytest.raises(ClipItError, match=r"would run code when read, so it was not.*safetensors"):
        weights.read_checkpoint(path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_damaged_checkpoint_is_said(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ClipItError, match=r"damaged|would run code"):
        weights.read_checkpoint(tmp_path / name)


def test_wrapped_states_are_unwrapped(tmp_path: Path) -> None:
    path, inner = tmp_path / "w.pth", {"module.a": torch.ones(1), "module.b": torch.zeros(1)}
    torch.save({"state_dict": inner, "epoch": 3}, path)
    assert weights.read_checkpoint(path).keys() == {"a", "b"}


def test_a_checkpoint_of_another_model_names_what_does_not_fit() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))
    state = model.state_dict()
    fitting = {k: v + 1 for k, v in state.items()}
    weights.fill_model(model, Held(fitting, Path("file")))
    assert all(torch.equal(v, fitting[k]) for k, v in model.state_dict().items())
    bad = {k: v for k, v in state.items() if not k.startswith(("0", "1"))}
    bad |= {"head": torch.ones(1), "3.weight": torch.ones(3, 2)}
    with pytest.raises(ClipItError) as caught:
        weights.check_fit(model, Held(bad, Path("file")))
    assert "4 weights missing, 1 unexpected, 1 of another shape" in str(caught.value)
    assert "(0.weight, 0.bias, 1.weight, 1.bias, head)" in str(caught.value)
    weights.check_fit(model, Held(bad, Path("file")), r"[013]\..*|head")


def test_a_published_backbone_loads_its_own_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = registry.build_backbone(NAME, None, None).model
    save_file(model.state_dict(), path)
    sources = Sources(copies={NAME: str(path)})
    encoder = registry.load_backbone(NAME, sources)
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.model(images), model(images))
    assert encoder.width == 384 and encoder.weights_hash == file_digest(path)[:16]
    assert encoder.transform.mean == vision.HALF and encoder.transform.size == 224
    assert registry.load_backbone(NAME, sources, "imagenet").transform.mean == vision.IMAGENET[0]
    with pytest.raises(ClipItError, match=r"does not fit: \d+ weights missing"):
        registry.load_backbone("kaiko_vitb8", Sources(copies={"kaiko_vitb8": str(path)}))


def test_weights_in_dinov2s_layout_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kaiko's own file of L/14 has DINOv2's names, and positions for 518 pixels and for CLS."""
    row = registry.entry("kaiko_vitl14")
    small = replace(row, options={**row.options, "embed_dim": 64, "depth": 1, "num_heads": 2})
    monkeypatch.setitem(registry.ENCODERS, "kaiko_vitl14", small)
    model = registry.build_backbone("kaiko_vitl14", None, None).model
    state = {k: torch.randn_like(v) for k, v in model.state_dict().items()}
    positions = torch.randn(1, 1 + 37 * 37, 64)
    theirs = {k: v for k, v in state.items() if k not in ("reg_token", "cls_token", "pos_embed")}
    theirs |= {
        "mask_token": torch.zeros(1, 64), "register_tokens": state["reg_token"],
        "cls_token": state["cls_token"], "pos_embed": positions,
    }  # fmt: skip
    path = tmp_path / "vitl14.pth"
    torch.save(theirs, path)
    sources = Sources(copies={"kaiko_vitl14": str(path)})
    found = registry.load_backbone("kaiko_vitl14", sources).model.state_dict()
    torch.testing.assert_close(found["cls_token"], state["cls_token"] + positions[:, :1])
    torch.testing.assert_close(found["reg_token"], state["reg_token"])
    grid = positions[:, 1:].reshape(1, 37, 37, 64).permute(0, 3, 1, 2)
    smaller = nn.functional.interpolate(grid, (16, 16), mode="bicubic", antialias=True)
    expected = smaller.permute(0, 2, 3, 1).reshape(1, 256, 64)
    torch.testing.assert_close(found["pos_embed"], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["phikon_v2", "midnight"])
def test_weights_in_the_layout_of_transformers_load(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As transformers writes the file of a DINOv2; the same class token comes out."""
    from transformers import Dinov2Config, Dinov2Model

    row = registry.entry(name)
    small = {**row.options, "embed_dim": 192, "depth": 2, "num_heads": 3}
    monkeypatch.setitem(registry.ENCODERS, name, replace(row, options=small))
    model = Dinov2Model(Dinov2Config(
        hidden_size=192, num_hidden_layers=2, num_attention_heads=3, image_size=224,
        patch_size=16 if name == "phikon_v2" else 14, use_swiglu_ffn=name == "midnight",
    )).eval()  # fmt: skip
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path)
    found = registry.load_backbone(name, Sources(copies={name: str(tmp_path)}))
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        expected = model(images).last_hidden_state[:, 0]
        torch.testing.assert_close(found.model(images), expected, atol=1e-4, rtol=1e-4)
    assert found.width == 192


WRONG = {  # what is given as a model: a model's whole state, or what is changed in the right one's
    "of patches twice as large": ("kaiko_vits8", "kaiko_vits16", {}),
    "of patches half as large": ("kaiko_vits16", "kaiko_vits8", {}),
    "for larger images": ("kaiko_vits16", "kaiko_vits16", {"pos_embed": (1, 577, 384)}),
    "CONCH's, whose ViT is as large": ("kaiko_vitb16", "conch", {}),
    "CONCH's": ("kaiko_vits16", "conch", {}),
    "of a ViT with registers": ("midnight", "h_optimus_1", {}),
    "a ViT's, as one CLIP": ("quiltnet", "kaiko_vits16", {}),
    "a ViT's, as another": ("plip", "kaiko_vitb16", {}),
    "one CLIP's, as another": ("quiltnet", "clip", {}),
    "a ViT's, as a CLIP around one": ("keep", "uni", {}),
    "of a BERT with other words": (
        "keep", "keep", {"text.embeddings.word_embeddings.weight": (28996, 768)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_file_of_another_model_is_never_brought_to_shape(case: str, tmp_path: Path) -> None:
    given, real, changed = WRONG[case]
    (tmp_path / "vocab.txt").touch()
    path = hollow(tmp_path / "w.safetensors", real, changed)
    with pytest.raises(ClipItError, match=r"w.safetensors: the checkpoint does not fit"):
        registry.load_backbone(given, Sources(copies={given: str(path)}))


@pytest.mark.parametrize("name", ["quiltnet", "plip"])
@pytest.mark.slow
def test_a_clip_and_its_image_half_are_the_published_one(name: str, tmp_path: Path) -> None:
    """Written as its authors' library writes it, read by ours: the same embeddings."""
    torch.manual_seed(0)
    path, images = tmp_path / registry.published()[name].file, torch.randn(1, 3, 224, 224)
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
    sources, unit = Sources(copies={name: str(tmp_path)}), partial(nn.functional.normalize, dim=-1)
    encoder, half = registry.load_clip(name, sources), registry.load_backbone(name, sources)
    with torch.inference_mode():
        torch.testing.assert_close(unit(encoder.image_tower(images)), expected[0])
        torch.testing.assert_close(unit(encoder.text_tower(ids)), expected[1])
        torch.testing.assert_close(unit(half.model(images)), expected[0])
    assert encoder.weights_hash == half.weights_hash == file_digest(path)[:16]
    (words,) = encoder.tokenizer.windows(["a photo"], "truncate").ids
    assert torch.equal(words, ids[0])  # "a photo" is 320, 1125 to OpenAI's tokenizer
    assert encoder.transform == half.transform and encoder.transform.mean == vision.OPENAI_CLIP[0]
    assert not any("text" in key for key, _ in half.model.named_parameters())


WORDS = {"lung": 5, "adeno": 6, "##carcinoma": 7, ".": 8}


def write_vocabulary(folder: Path, length: int = 30522, **words: int) -> Path:
    """A vocabulary of as many word pieces, those that are named at their places."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = special + [f"[unused{number}]" for number in range(len(special), length)]
    for word, place in (words or WORDS).items():
        pieces[place] = word
    path = folder / "vocab.txt"
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return path


def keep(folder: Path, seed: int = 0) -> nn.ModuleDict:
    """KEEP after its authors' page, two blocks deep, and its file and vocabulary in a folder."""
    import timm
    from transformers import BertConfig, BertModel

    visual = timm.create_model(
        "vit_large_patch16_224", img_size=224, patch_size=16, init_values=1e-5, num_classes=0,
        dynamic_img_size=True, depth=2,
    )  # fmt: skip
    bert = BertModel(BertConfig(
        vocab_size=30522, hidden_size=768, num_hidden_layers=2, num_attention_heads=12,
        intermediate_size=3072, hidden_act="gelu", max_position_embeddings=512, type_vocab_size=2,
        layer_norm_eps=1e-12,
    ))  # fmt: skip
    head = nn.Sequential(nn.Linear(1024, 768), nn.GELU(), nn.Linear(768, 768))
    model = nn.ModuleDict({"visual": visual, "visual_head": head, "text": bert}).eval()
    torch.manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)
    more = {"text.embeddings.position_ids": torch.arange(512)[None], "logit_scale": torch.ones(())}
    save_file({**model.state_dict(), **more}, folder / "model.safetensors")
    write_vocabulary(folder)
    return model


def test_keep_is_its_vit_its_bert_and_its_vocabulary(tmp_path: Path) -> None:
    """Against the parts as its authors join them, padded to 256 as they pad."""
    from tokenizers import BertWordPieceTokenizer

    model = keep(tmp_path)
    sources = Sources(copies={"keep": str(tmp_path)}, depth=2)
    encoder, half = registry.load_clip("keep", sources), registry.load_backbone("keep", sources)
    reader = BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=True)
    reader.enable_padding(length=256)
    reader.enable_truncation(256)
    texts = ["Lung Adenocarcinoma.", "lung " * 300, ""]
    asked = reader.encode_batch(texts)
    ids, mask = (
        torch.tensor([getattr(t, part) for t in asked]) for part in ("ids", "attention_mask")
    )
    windows = encoder.tokenizer.windows(texts, "truncate").ids
    assert windows.tolist() == ids.tolist() and ids[0, :7].tolist() == [2, 5, 6, 7, 8, 3, 0]
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        seen = model["visual_head"](model["visual"](images))
        torch.testing.assert_close(encoder.image_tower(images), seen)
        torch.testing.assert_close(half.model(images), seen)
        read = model["text"](input_ids=ids, attention_mask=mask).pooler_output
        for some in (slice(None), slice(0, 1)):  # a text's padding depends on those beside it
            torch.testing.assert_close(encoder.text_tower(windows[some]), read[some])
    assert encoder.width == half.width == 768 and encoder.transform == half.transform
    assert (half.transform.mean, half.transform.size) == (vision.IMAGENET[0], 224)
    assert half.transform.interpolation == "bicubic"
    assert not any("text" in name or "bert" in name for name, _ in half.model.named_modules())
    assert not any("visual" in name for name, _ in encoder.text_tower.named_modules())


def test_other_word_pieces_are_another_model(tmp_path: Path) -> None:
    """Its vocabulary is part of what names the weights, and found again for a stored run."""
    keep(tmp_path, seed=1)
    file, words = tmp_path / "model.safetensors", tmp_path / "vocab.txt"
    for given in (tmp_path, file):  # a folder, or the file of the weights
        sources = Sources(copies={"keep": str(given)}, depth=2)
        name = registry.weights_hash("keep", sources, text=True)
        assert name == digest(file_digest(file), file_digest(words))
        assert registry.load_clip("keep", sources).weights_hash == name
        assert registry.load_backbone("keep", sources).weights_hash == name
    spec = RunSpec(
        kernels="those of the run", dataset="d", data_hash="h", setting="zero_shot", seed=0,
        probe=Probe(), pretraining=None, normalisation="own", backbone="keep", backbone_hash=name,
    )  # fmt: skip
    assert weights.sources_of(spec).copies == {"keep": str(file)}
    weights.require_same(spec, registry.weights_hash("keep", weights.sources_of(spec)), tmp_path)
    write_vocabulary(tmp_path, lung=6, adeno=5)  # as long, and as many
    other = registry.weights_hash("keep", weights.sources_of(spec))
    assert other != name
    with pytest.raises(ClipItError, match="the weights of keep are not those it was trained with"):
        weights.require_same(spec, other, tmp_path)
    write_vocabulary(tmp_path, 28996)
    with pytest.raises(ClipItError, match=r"vocab.txt: 28996 word pieces, not 30522"):
        registry.load_clip("keep", sources)
    words.write_bytes(b"\xff\xfe")
    with pytest.raises(ClipItError, match=r"vocab.txt: missing or damaged"):
        registry.load_clip("keep", sources)
    words.unlink()
    for attempt in (registry.load_clip, registry.load_backbone, registry.weights_hash):
        with pytest.raises(ClipItError, match=r"vocab.txt: no word pieces of keep here"):
            attempt("keep", sources)
