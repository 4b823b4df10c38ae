"""CLIP models: open_clip's, CONCH, PLIP, KEEP, and the pilot's stand-in."""

from __future__ import annotations

import importlib
import json
import operator
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
import torch.nn.functional as F
import transformers
from jaxtyping import Int
from torch import Tensor, nn

from clipit_lib.encoders import vision, weights
from clipit_lib.encoders.encoder import Tokenizer
from clipit_lib.encoders.vision import Entry
from clipit_lib.encoders.weights import MINILM, Held, package_folder
from clipit_lib.errors import ClipItError
from clipit_lib.files import whole
from clipit_lib.settings import StandInTraining


class Half(nn.Module):
    """One half of a CLIP, images [b, 3, s, s] or ids [b, context] to [b, width]: what `answer` says
    of a batch by the model, whose name `part` begins that of every adapter.
    """

    def __init__(
        self, part: str, model: nn.Module, width: int, answer: Callable[[Any, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.part, self.num_features, self.answer = part, width, answer
        self.add_module(part, model)

    def forward(self, batch: Tensor) -> Tensor:
        return self.answer(self.get_submodule(self.part), batch)


Halves = tuple[Any, Any]  # image and text tower: modules, whose parts are known to who built them


def piece_tokenizer(pieces: Any, start: int, end: int, context: int) -> Tokenizer:
    """A tokenizer of transformers."""
    encode = partial(pieces.encode, add_special_tokens=False, verbose=False)
    return Tokenizer(encode, start, end, pieces.pad_token_id, context)


def read_bert(bert: Any, ids: Tensor, pad: int) -> tuple[Any, Tensor]:
    """Its answer and mask [b, longest]: positions that are padding everywhere are not computed."""
    mask = (ids != pad).long()
    longest = ids.shape[1] if ids.is_meta else int(mask.sum(dim=1).max())  # none is read to count
    mask = mask[:, :longest]
    return bert(input_ids=ids[:, :longest], attention_mask=mask), mask


# -- open_clip models.


def build_open_clip(row: Entry, side: int | None, held: Held | None = None) -> open_clip.CLIP:
    """A whole CLIP, with random weights unless others are given."""
    config = (open_clip.get_model_config(row.architecture) or {}) | dict(row.options)
    layers = {"layers": config.pop("depth")} if "depth" in config else {}
    size = {"image_size": row.transform(side).size}
    halves = {"vision_cfg": config["vision_cfg"] | size | layers,
              "text_cfg": config["text_cfg"] | layers}  # fmt: skip
    model = open_clip.CLIP(**config | halves)
    if held is not None:
        weights.fill_model(model, held)
    return model


def split_open_clip(model: open_clip.CLIP) -> Halves:
    """The towers that it is made of; the model itself becomes the text tower."""
    width = model.text_projection.shape[1]
    image = Half("visual", model.visual, width, operator.call)
    model.visual = nn.Identity()
    return image, Half("model", model, width, embed_ids)


def embed_ids(model: Any, ids: Int[Tensor, "b context"]) -> Any:
    """`encode_text` [b, d] without the positions after the end of every text of a batch.

    Attention is causal and the end is what is read, so they change nothing but the time.
    """
    ends = ids.argmax(dim=1)  # the end has the highest id
    length = ids.shape[1] if ids.is_meta else int(ends.max()) + 1  # none is read to count
    states = model.token_embedding(ids[:, :length]) + model.positional_embedding[:length]
    states = model.ln_final(model.transformer(states, attn_mask=model.attn_mask[:length, :length]))
    return states[torch.arange(len(ids), device=ids.device), ends] @ model.text_projection


def open_clip_tokenizer() -> Tokenizer:
    """open_clip's byte-pair tokenizer, which ships with its package, for OpenAI's 77 positions."""
    bpe = open_clip.SimpleTokenizer(context_length=77)
    return Tokenizer(bpe.encode, bpe.sot_token_id, bpe.eot_token_id, 0, 77)


# -- CONCH: its authors' package builds it, of `visual` (a timm ViT and poolers) and `text`.

CONCH_PACKAGE, ARCHITECTURE, CONCH_POSITIONS = "conch", "conch_ViT-B-16", 128
# The published file lacks the decoder; the package brings position embeddings to size by itself.
CONCH_SPARE = r"(?!visual\.|text\.).*|visual\.trunk\.pos_embed"
INSTALL_CONCH = (
    "Run `pip install git+https://github.com/mahmoodlab/CONCH.git`, whose licence is CC-BY-NC-ND "
    "4.0 for academic use; the weights are asked for apart"
)


def build_conch(row: Entry, side: int | None, held: Held | None = None) -> nn.Module:
    """The whole model as the package builds it around its weights. A ClipItError if none are given
    or those of another model, or the package is not installed.
    """
    if held is None:
        raise ClipItError("no weights", CONCH_PACKAGE, "Its package builds it around its weights")
    package, asked = conch_package(), ARCHITECTURE
    if depth := row.options.get("depth"):
        asked = json.loads((package.factory.CFG_DIR / f"{asked}.json").read_text("utf-8"))
        for part in ("vision_cfg", "text_cfg", "multimodal_cfg"):
            asked[part]["layers"] = depth
    try:
        model = package.create_model_from_pretrained(asked, str(held.path), return_transform=False)
    except (KeyError, RuntimeError) as error:
        what = f"the checkpoint does not fit CONCH ({' '.join(str(error).split())[:80]})"
        raise ClipItError(what, held.path, weights.GIVE) from error
    # The package overlooks what is missing.
    weights.check_fit(model, held, CONCH_SPARE)
    return model.eval()


def split_conch(model: Any) -> Halves:
    """`encode_image(x, proj_contrast=True, normalize=False)` of images [b, 3, 448, 448], and
    `encode_text(ids, normalize=False)` of ids [b, 127], both to [b, 512].

    The pooler for captions is left out: it would be computed, and adapted, for nothing.
    """
    visual, width = model.visual, model.visual.proj_contrast.shape[1]
    visual.attn_pool_caption = visual.ln_caption = nn.Identity()
    model.visual = model.text_decoder = nn.Identity()
    image = Half("visual", visual, width, lambda m, x: m.forward_project(m.forward_no_head(x)))
    return image, Half("model", model, width, _read)


def _read(model: Any, ids: Tensor) -> Any:
    slot = F.pad(ids, (0, 1), value=model.pad_id)  # the package drops it to make room for CLS
    return model.encode_text(slot, normalize=False)


def conch_tokenizer() -> Tokenizer:
    """The package's byte-pair tokenizer; one of its positions is the text tower's own CLS."""
    pieces = conch_package().get_tokenizer()
    return piece_tokenizer(pieces, pieces.bos_token_id, pieces.eos_token_id, CONCH_POSITIONS - 1)


def conch_package() -> Any:
    """What of it builds models and tokenizers; a ClipItError if it is not installed."""
    try:
        with warnings.catch_warnings():  # it imports timm's layers from where they used to be
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"timm\..*")
            return importlib.import_module(f"{CONCH_PACKAGE}.open_clip_custom")
    except ImportError as error:
        what = f"the package that builds CONCH is not installed ({error})"
        raise ClipItError(what, CONCH_PACKAGE, INSTALL_CONCH) from error


# -- PLIP: a CLIP ViT-B/32, both halves in one file, in the layout of transformers.

# Positions are numbers that older versions kept as weights.
PLIP_SPARE = r".*\.position_ids|logit_scale|{other}_model\..*|{other}_projection\..*"


def build_plip(row: Entry, side: int | None, held: Held | None = None) -> nn.ModuleList:
    """Its two models; the defaults of their configurations are ViT-B/32's."""
    layers = {"num_hidden_layers": row.options.get("depth", 12)}
    image = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**layers))
    text = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**layers))
    if held is not None:
        weights.fill_model(image, held, PLIP_SPARE.format(other="text"))
        weights.fill_model(text, held, PLIP_SPARE.format(other="(vision|visual)"))
    return nn.ModuleList([image, text])


def split_plip(model: Any) -> Halves:
    """Each in a tower; what follows the end token of a text is never looked at."""
    image, text = model
    return (
        Half("model", image, image.config.projection_dim, lambda m, x: m(x).image_embeds),
        Half("model", text, text.config.projection_dim, lambda m, x: m(x).text_embeds),
    )


# -- KEEP: timm's ViT under a projection and a BERT, in one file; its vocabulary is another.


def build_keep(row: Entry, side: int | None, held: Held | None = None) -> nn.ModuleDict:
    """Its parts by their names in its file; of its BERT all but the depth is the default."""
    config = transformers.BertConfig(num_hidden_layers=row.options.get("depth", 12))
    visual: Any = vision.timm_tower(row, None)
    width = config.hidden_size
    head = nn.Sequential(nn.Linear(visual.num_features, width), nn.GELU(), nn.Linear(width, width))
    bert = transformers.BertModel(config)
    model = nn.ModuleDict({"visual": visual, "visual_head": head, "text": bert})
    if held is not None:
        weights.fill_model(model, held, r"logit_scale|.*\.position_ids")
    return model


def split_keep(model: Any) -> Halves:
    """Images [b, 3, 224, 224] and ids [b, 256], both to [b, 768]."""
    text = model.pop("text")
    width = text.config.hidden_size
    image = Half("model", model, width, lambda m, x: m["visual_head"](m["visual"](x)))
    return image, Half("model", text, width, lambda m, x: read_bert(m, x, 0)[0].pooler_output)


def keep_tokenizer(vocabulary: Path) -> Tokenizer:
    """Word pieces of texts in small letters; a ClipItError if they are not as many as BERT's."""
    with whole(vocabulary, weights.GIVE):
        pieces = transformers.BertTokenizer(str(vocabulary), do_lower_case=True)
    if len(pieces) != (asked := transformers.BertConfig().vocab_size):
        raise ClipItError(f"{len(pieces)} word pieces, not {asked}", vocabulary, weights.GIVE)
    return piece_tokenizer(pieces, pieces.cls_token_id, pieces.sep_token_id, 256)


# -- The pilot's stand-in for a histology CLIP: EfficientNet-Lite2 and MiniLM, frozen, joined by two
# projections that are trained on a data set's retriever split.


class StandInTextTower(nn.Module):
    """MiniLM, mean of its token states, projected: ids [b, context] to [b, width]."""

    def __init__(self, bert: nn.Module, hidden: int, pad: int, width: int) -> None:
        super().__init__()
        self.bert, self.pad = bert, pad
        self.projection = nn.Linear(hidden, width)

    def states(self, ids: Tensor) -> Tensor:
        """Mean token state, [b, hidden]."""
        answer, mask = read_bert(self.bert, ids, self.pad)
        hidden: Tensor = answer.last_hidden_state
        weight = mask[..., None].to(hidden.dtype)
        return (hidden * weight).sum(dim=1) / weight.sum(dim=1)

    def forward(self, ids: Tensor) -> Any:
        return self.projection(self.states(ids))


def build_stand_in(
    settings: StandInTraining, trained: Held | None = None
) -> tuple[vision.StandInImageTower, StandInTextTower]:
    """Both frozen networks with their projections, which are random unless trained ones are given.
    A ClipItError if a package is not installed.
    """
    folder = package_folder(MINILM) / "model"
    bert = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
    image = vision.stand_in_tower(settings.width, trained)
    text = StandInTextTower(bert, bert.config.hidden_size, bert.config.pad_token_id, settings.width)
    if trained is None:
        image.backbone = vision.packaged_network()
    else:
        text.projection.load_state_dict(vision.state_part(trained.state, "text."))
    return image, text


def stand_in_tokenizer(settings: StandInTraining) -> Tokenizer:
    """MiniLM's word-piece tokenizer."""
    pieces = transformers.AutoTokenizer.from_pretrained(package_folder(MINILM) / "model")
    context = settings.context_length
    return piece_tokenizer(pieces, pieces.cls_token_id, pieces.sep_token_id, context)


# -- What makes a retriever of a row of the registry.


class Library(NamedTuple):
    """Of a row and the side of the phantom's patches: the whole model, with weights or random; of
    that its towers; and the tokenizer, of the file of its vocabulary where it has one."""

    build: Callable[[Entry, int | None, Held | None], nn.Module]
    split: Callable[[Any], Halves]
    tokenizer: Callable[..., Tokenizer]


LIBRARIES = {
    "open_clip": Library(build_open_clip, split_open_clip, open_clip_tokenizer),
    "conch": Library(build_conch, split_conch, conch_tokenizer),
    "plip": Library(build_plip, split_plip, open_clip_tokenizer),
    "keep": Library(build_keep, split_keep, keep_tokenizer),
}
