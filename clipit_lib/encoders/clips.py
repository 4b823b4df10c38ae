"""CLIP models: open_clip's, CONCH, PLIP, whole or their image half."""

from __future__ import annotations

import importlib
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from open_clip.transformer import AttentionalPooler, MultimodalTransformer, TextTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from clipit_lib.data.patches import Transform
from clipit_lib.encoders import weights
from clipit_lib.encoders.encoder import ClipEncoder, Tokenizer
from clipit_lib.encoders.vision import (
    OPENAI_CLIP,
    STAND_IN_BACKBONE,
    STAND_IN_TARGETS,
    StandInImageTower,
    build_stand_in_image,
    state_part,
    vision_transform,
)
from clipit_lib.encoders.weights import MINILM, State, package_folder
from clipit_lib.errors import ClipItError
from clipit_lib.settings import StandInTraining

# -- open_clip models as retrievers.


CONFIGS = Path(__file__).with_name("configs")
# As `attention.make_attention_explicit` names the projections.
OPEN_CLIP_TEXT_TARGETS = (
    r"model\.transformer\.resblocks\.\d+\.(attn\.in_proj|attn\.out_proj|mlp\.c_fc|mlp\.c_proj)"
)
OPEN_CLIP_IMAGE_TARGETS = (
    r"visual\.transformer\.resblocks\.\d+\.(attn\.in_proj|attn\.out_proj|mlp\.c_fc|mlp\.c_proj)"
)

# Published CLIPs: open_clip's name of the architecture, and whether its activation is QuickGELU.
OPEN_CLIP_PUBLISHED = {"quiltnet": ("ViT-B-32", False), "clip": ("ViT-B-16", True)}
PUBLISHED_SIZE = 224
OTHER_HALF = r"(?!visual\.).*"  # of a checkpoint, to the image tower


class OpenClipTextTower(nn.Module):
    """The text half of an open_clip model: ids [b, context] to embeddings [b, d]."""

    def __init__(self, model: open_clip.CLIP) -> None:
        super().__init__()
        self.model = model
        self.model.visual = nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        return embed_ids(self.model, ids)


def embed_ids(model: open_clip.CLIP, ids: Int[Tensor, "b context"]) -> Float[Tensor, "b d"]:
    """`encode_text` without the positions that come after the end of every text of a batch.

    Attention is causal and the end is what is read, so they change nothing but the time.
    """
    ends = ids.argmax(dim=1)  # the end has the highest id
    length = ids.shape[1] if ids.is_meta else int(ends.max()) + 1  # none is read to count
    states = model.token_embedding(ids[:, :length]) + model.positional_embedding[:length]
    states = model.ln_final(model.transformer(states, attn_mask=model.attn_mask[:length, :length]))
    embedding: Tensor = states[torch.arange(len(ids), device=ids.device), ends]
    return embedding @ model.text_projection


class OpenClipImageTower(nn.Module):
    """The image half of an open_clip model: [b, 3, s, s] to embeddings [b, d]."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.visual(images)
        return embedding


def build_phantom_clip(side: int) -> open_clip.CLIP:
    """The phantom's CLIP with random weights for patches of `side` pixels."""
    open_clip.add_model_config(CONFIGS / "phantom_clip.json")
    logging.disable(logging.WARNING)  # it warns of random weights, which are what is wanted
    try:
        model: open_clip.CLIP = open_clip.create_model(
            "phantom_clip", pretrained=None, force_image_size=side
        )
    finally:
        logging.disable(logging.NOTSET)
    return model


def build_published(name: str) -> open_clip.CLIP:
    """A published CLIP with random weights and the image statistics of OpenAI's."""
    architecture, quick = OPEN_CLIP_PUBLISHED[name]
    config = open_clip.get_model_config(architecture)
    model = open_clip.CLIP(**config, quick_gelu=quick)
    statistics = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    open_clip.set_model_preprocess_cfg(model, statistics)
    return model.eval()


def load_published(name: str, path: Path) -> open_clip.CLIP:
    """A published CLIP with the weights of a file.

    Raises:
        ClipItError: the file is damaged or of another model.
    """
    model = build_published(name)
    weights.fill_model(model, weights.read_checkpoint(path), path)
    return model


def published_image_tower(name: str, path: Path) -> OpenClipImageTower:
    """The image half alone: the text half is never built in memory."""
    with torch.device("meta"):
        tower = OpenClipImageTower(build_published(name).visual)
    weights.fill_model(tower, weights.read_checkpoint(path), path, OTHER_HALF)
    return tower


def open_clip_tokenizer(context_length: int) -> Tokenizer:
    """open_clip's byte-pair tokenizer, which ships with its package."""
    bpe = open_clip.SimpleTokenizer(context_length=context_length)
    return Tokenizer(bpe.encode, bpe.sot_token_id, bpe.eot_token_id, 0, context_length)


def wrap_open_clip(name: str, model: open_clip.CLIP, weights_hash: str) -> ClipEncoder:
    """Split a CLIP into its two towers."""
    visual = model.visual
    size = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    mean, std = visual.image_mean, visual.image_std
    width = model.text_projection.shape[1]
    return ClipEncoder(
        name, OpenClipImageTower(visual), OpenClipTextTower(model),
        open_clip_tokenizer(model.context_length),
        Transform(size, tuple(mean), tuple(std)), width, OPEN_CLIP_IMAGE_TARGETS,
        OPEN_CLIP_TEXT_TARGETS,
        weights_hash, stand_in=False,
    )  # fmt: skip


# -- CONCH's shape from timm's and open_clip's parts, without its package: to count, time and plan.
#
# Written after `conch/open_clip_custom` of its repository: the same parts under the same names. The
# weights are random, and stay so.


@dataclass(frozen=True)
class Shape:
    """Sizes of CONCH; others make a small one for tests."""

    image_size: int = 448
    patch_size: int = 16
    layers: int = 12
    width: int = 768
    heads: int = 12
    embedding: int = 512
    pooler_heads: int = 8
    caption_queries: int = 256
    context: int = 128
    vocabulary: int = 32007


class Visual(nn.Module):
    """The image half: a ViT whose tokens are pooled by attention, for contrast and for captions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.trunk = VisionTransformer(
            img_size=shape.image_size, patch_size=shape.patch_size, embed_dim=shape.width,
            depth=shape.layers, num_heads=shape.heads, num_classes=0, dynamic_img_size=True,
        )  # fmt: skip
        width, embedding = shape.width, shape.embedding
        self.attn_pool_contrast = AttentionalPooler(embedding, width, shape.pooler_heads, 1)
        self.ln_contrast = nn.LayerNorm(embedding)
        self.proj_contrast = nn.Parameter(width**-0.5 * torch.randn(embedding, embedding))
        queries = shape.caption_queries
        self.attn_pool_caption = AttentionalPooler(width, width, shape.pooler_heads, queries)
        self.ln_caption = nn.LayerNorm(width)

    def forward_no_head(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.ln_contrast(self._contrast(self.trunk.forward_features(images)))
        return pooled

    def forward_project(self, pooled: Tensor) -> Tensor:
        return pooled @ self.proj_contrast

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The embedding [b, 512] and the tokens for captions [b, 256, 768]."""
        tokens = self.trunk.forward_features(images)
        embedding = self.forward_project(self.ln_contrast(self._contrast(tokens)))
        return embedding, self.ln_caption(self.attn_pool_caption(tokens))

    def _contrast(self, tokens: Tensor) -> Tensor:
        pooled: Tensor = self.attn_pool_contrast(tokens)[:, 0]
        return pooled


class Conch(nn.Module):
    """Image half, text half and the decoder of captions."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        shape = shape or Shape()
        self.text = TextTransformer(
            # open_clip adds the position of CLS, CONCH counts it in.
            context_length=shape.context - 1, vocab_size=shape.vocabulary, width=shape.width,
            heads=shape.heads, layers=shape.layers, output_dim=shape.embedding, embed_cls=True,
            output_tokens=True,
        )  # fmt: skip
        self.visual = Visual(shape)
        self.text_decoder = MultimodalTransformer(
            shape.width, shape.layers, shape.heads, shape.context, output_dim=shape.vocabulary
        )
        self.logit_scale = nn.Parameter(torch.tensor(2.66))
        self.pad_id = 0

    def encode_text(self, ids: Tensor, normalize: bool = True) -> Tensor:
        """Ids [b, 128] to [b, 512]; the last position makes room for CLS."""
        embedding: Tensor = self.text(ids[:, :-1])[0]
        return nn.functional.normalize(embedding, dim=-1) if normalize else embedding


# -- CONCH as a retriever and a backbone; its authors' package builds it and tokenizes for it.
#
# The package comes from its own repository and on its own terms. What it builds has the parts
# `visual` (a timm ViT and attention poolers) and `text`; both towers here are made of those.


CONCH_PACKAGE, ARCHITECTURE = "conch", "conch_ViT-B-16"
INSTALL_CONCH = (
    "Run `pip install git+https://github.com/mahmoodlab/CONCH.git`, whose licence is CC-BY-NC-ND "
    "4.0 for academic use; the weights are asked for apart"
)
CONCH_SIZE, CONCH_WIDTH = 448, 512
CONCH_TOKENS = 127  # with start and end; one more position is the text tower's own CLS
CONCH_TRANSFORM = Transform(CONCH_SIZE, *OPENAI_CLIP)
CONCH_IMAGE_TARGETS = r"visual\.trunk\.blocks\.\d+\.(attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)"
# As `attention.make_attention_explicit` names the projections.
CONCH_TEXT_TARGETS = (
    r"model\.text\.transformer\.resblocks\.\d+"
    r"\.(attn\.in_proj|attn\.out_proj|mlp\.c_fc|mlp\.c_proj)"
)
# The published file lacks the decoder; the package itself brings position embeddings to size.
SPARE = r"(?!visual\.|text\.).*|visual\.trunk\.pos_embed"


class ConchImageTower(nn.Module):
    """[b, 3, 448, 448] to [b, 512]: `encode_image(x, proj_contrast=True, normalize=False)`.

    The pooler for captions is left out: it would be computed, and adapted, for nothing.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        for unused in ("attn_pool_caption", "ln_caption"):
            setattr(self.visual, unused, nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        visual: Any = self.visual
        embedding: Tensor = visual.forward_project(visual.forward_no_head(images))
        return embedding


class ConchTextTower(nn.Module):
    """Ids [b, 127] to [b, 512]: `encode_text(ids, normalize=False)`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.model.visual = nn.Identity()
        self.model.text_decoder = nn.Identity()
        self.pad: int = model.pad_id  # type: ignore[assignment]

    def forward(self, ids: Tensor) -> Tensor:
        model: Any = self.model
        slot = F.pad(ids, (0, 1), value=self.pad)  # the package drops it to make room for CLS
        embedding: Tensor = model.encode_text(slot, normalize=False)
        return embedding


def load_conch(path: Path) -> nn.Module:
    """The whole model with the weights of a file.

    Raises:
        ClipItError: the package is not installed; the file is damaged or of another model.
    """
    package, state = _package(), weights.read_checkpoint(path)
    try:
        model: nn.Module = package.create_model_from_pretrained(
            ARCHITECTURE, str(path), return_transform=False
        )
    except (KeyError, RuntimeError) as error:
        raise ClipItError(
            f"the checkpoint does not fit CONCH ({' '.join(str(error).split())[:80]})",
            path,
            "Give the weights of the model that is named",
        ) from error
    weights.check_fit(model, state, path, SPARE)  # the package overlooks what is missing
    return model.eval()


def conch_image_tower(path: Path) -> ConchImageTower:
    """The image half alone, see `load`."""
    model: Any = load_conch(path)
    return ConchImageTower(model.visual)


def wrap_conch(model: nn.Module, weights_hash: str) -> ClipEncoder:
    """Split the model into its two towers."""
    visual: Any = model.visual
    return ClipEncoder(
        "conch", ConchImageTower(visual), ConchTextTower(model), conch_tokenizer(),
        CONCH_TRANSFORM, CONCH_WIDTH,
        CONCH_IMAGE_TARGETS, CONCH_TEXT_TARGETS, weights_hash, stand_in=False,
    )  # fmt: skip


def conch_tokenizer() -> Tokenizer:
    """The package's byte-pair tokenizer.

    Raises:
        ClipItError: the package is not installed.
    """
    pieces = _package().get_tokenizer()

    def encode(text: str) -> list[int]:
        ids: list[int] = pieces.encode(text, add_special_tokens=False, verbose=False)
        return ids

    return Tokenizer(
        encode, pieces.bos_token_id, pieces.eos_token_id, pieces.pad_token_id, CONCH_TOKENS
    )  # fmt: skip


def _package() -> Any:
    try:
        with warnings.catch_warnings():  # it imports timm's layers from where they used to be
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"timm\..*")
            return importlib.import_module(f"{CONCH_PACKAGE}.open_clip_custom")
    except ImportError as error:
        raise ClipItError(
            f"the package that builds CONCH is not installed ({error})",
            CONCH_PACKAGE,
            INSTALL_CONCH,
        ) from error


# -- PLIP as a retriever and a backbone: a CLIP ViT-B/32 in the layout of transformers.


PLIP_SIZE, PLIP_WIDTH, CONTEXT = 224, 512, 77
PLIP_TRANSFORM = Transform(PLIP_SIZE, *OPENAI_CLIP)
LAYERS = r"encoder\.layers\.\d+\.(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.(fc1|fc2))"
PLIP_IMAGE_TARGETS, PLIP_TEXT_TARGETS = (
    rf"model\.vision_model\.{LAYERS}",
    rf"model\.text_model\.{LAYERS}",
)
# Both halves are in one file; positions are numbers that older versions kept as weights.
POSITIONS = r".*\.position_ids|logit_scale"


class PlipImageTower(nn.Module):
    """[b, 3, 224, 224] to [b, 512]; the defaults of its configuration are ViT-B/32's."""

    def __init__(self) -> None:
        super().__init__()
        self.model = CLIPVisionModelWithProjection(CLIPVisionConfig())

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.model(pixel_values=images).image_embeds
        return embedding


class PlipTextTower(nn.Module):
    """Ids [b, 77] to [b, 512]; what follows the end token is never looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.model = CLIPTextModelWithProjection(CLIPTextConfig())

    def forward(self, ids: Tensor) -> Tensor:
        embedding: Tensor = self.model(input_ids=ids).text_embeds
        return embedding


def plip_image_tower(path: Path) -> PlipImageTower:
    """The image half alone with the weights of a file."""
    return _filled_image(weights.read_checkpoint(path), path)


def load_plip(path: Path, weights_hash: str) -> ClipEncoder:
    """Both halves with the weights of a file.

    Raises:
        ClipItError: the file is damaged or of another model.
    """
    state = weights.read_checkpoint(path)
    text = PlipTextTower()
    spare = rf"{POSITIONS}|vision_model\..*|visual_projection\..*"
    weights.fill_model(text.model, state, path, spare)
    return wrap_plip(_filled_image(state, path), text, weights_hash)


def _filled_image(state: State, path: Path) -> PlipImageTower:
    image = PlipImageTower()
    spare = rf"{POSITIONS}|text_model\..*|text_projection\..*"
    weights.fill_model(image.model, state, path, spare)
    return image.eval()


def wrap_plip(image: PlipImageTower, text: PlipTextTower, weights_hash: str) -> ClipEncoder:
    """Two towers as a retriever."""
    return ClipEncoder(
        "plip", image, text.eval(), open_clip_tokenizer(CONTEXT), PLIP_TRANSFORM, PLIP_WIDTH,
        PLIP_IMAGE_TARGETS,
        PLIP_TEXT_TARGETS, weights_hash, stand_in=False,
    )  # fmt: skip


# -- The pilot's stand-in retriever: EfficientNet-Lite2 and MiniLM joined by two projections.
#
# It replaces a histology CLIP where none can be had. Both towers stay frozen; only the projections
# are trained, contrastively, on a data set's retriever split with captions from class descriptions.


STAND_IN_TEXT_TARGETS = r"bert\.encoder\.layer\.\d+\..*\.(query|key|value|dense)"


class StandInTextTower(nn.Module):
    """MiniLM, mean of its token states, projected: ids [b, context] to [b, width]."""

    def __init__(self, bert: nn.Module, hidden: int, pad: int, width: int) -> None:
        super().__init__()
        self.bert, self.pad = bert, pad
        self.projection = nn.Linear(hidden, width)

    def states(self, ids: Tensor) -> Tensor:
        """Mean token state, [b, hidden]; positions that are padding everywhere are not computed."""
        mask = (ids != self.pad).long()
        longest = int(mask.sum(dim=1).max())
        ids, mask = ids[:, :longest], mask[:, :longest]
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask[..., None].to(hidden.dtype)
        mean: Tensor = (hidden * weight).sum(dim=1) / weight.sum(dim=1)
        return mean

    def forward(self, ids: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.states(ids))
        return projected


class StandInTowers(nn.Module):
    """Both towers and the logarithm of the contrastive scale."""

    def __init__(self, image: StandInImageTower, text: StandInTextTower) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.log_scale = nn.Parameter(torch.tensor(2.66))  # ln(1 / 0.07), as CLIP starts

    def load_projections(self, state: State) -> None:
        self.image.load_projection(state)
        self.text.projection.load_state_dict(state_part(state, "text."))


def build_stand_in(settings: StandInTraining) -> StandInTowers:
    """Both frozen towers with untrained projections."""
    from transformers import AutoModel

    model_folder = package_folder(MINILM) / "model"
    bert = AutoModel.from_pretrained(model_folder, local_files_only=True)
    image = build_stand_in_image(settings.width)
    text = StandInTextTower(bert, bert.config.hidden_size, bert.config.pad_token_id, settings.width)
    return StandInTowers(image, text)


def stand_in_tokenizer(settings: StandInTraining) -> Tokenizer:
    """MiniLM's word-piece tokenizer."""
    from transformers import AutoTokenizer

    pieces = AutoTokenizer.from_pretrained(package_folder(MINILM) / "model")

    def encode(text: str) -> list[int]:
        ids: list[int] = pieces.encode(text, add_special_tokens=False, verbose=False)
        return ids

    return Tokenizer(
        encode, pieces.cls_token_id, pieces.sep_token_id, pieces.pad_token_id,
        settings.context_length,
    )  # fmt: skip


def wrap_stand_in(
    towers: StandInTowers, weights_hash: str, settings: StandInTraining
) -> ClipEncoder:
    """The trained towers as a retriever."""
    transform = vision_transform(STAND_IN_BACKBONE, None)
    return ClipEncoder(
        "stand_in", towers.image, towers.text, stand_in_tokenizer(settings), transform,
        settings.width,
        STAND_IN_TARGETS, STAND_IN_TEXT_TARGETS, weights_hash, stand_in=True,
    )  # fmt: skip
