"""A package of the same shape as CONCH's own, with random weights."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

SMALL = {"patch": 64, "layers": 2, "width": 32, "heads": 2, "queries": 4, "vocabulary": 300}
VISION = {"patch_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 448}


class Pooler(nn.Module):
    def __init__(self, width: int, context: int, queries: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(queries, width))
        self.attn = nn.MultiheadAttention(width, 8, kdim=context, vdim=context)
        self.ln_q, self.ln_k = nn.LayerNorm(width), nn.LayerNorm(context)

    def forward(self, tokens: Tensor, attn_mask: None = None) -> Tensor:
        keys = self.ln_k(tokens).permute(1, 0, 2)
        query = self.ln_q(self.query)[:, None].repeat(1, keys.shape[1], 1)
        pooled = self.attn(query, keys, keys, need_weights=False, key_padding_mask=attn_mask)[0]
        return pooled.permute(1, 0, 2)


class Visual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = VisionTransformer(num_classes=0, dynamic_img_size=True, **VISION)
        self.trunk.forward = self.trunk.forward_features  # as the package does
        self.attn_pool_contrast, self.ln_contrast = Pooler(512, 32, 1), nn.LayerNorm(512)
        self.proj_contrast = nn.Parameter(torch.randn(512, 512) / 6)
        self.attn_pool_caption, self.ln_caption = Pooler(32, 32, 4), nn.LayerNorm(32)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        raise AssertionError("the package only logs what goes wrong here")

    def forward_no_head(self, images: Tensor, normalize: bool = False) -> Tensor:
        return self.ln_contrast(self.attn_pool_contrast(self.trunk(images))[:, 0])

    def forward_project(self, pooled: Tensor) -> Tensor:
        return pooled @ self.proj_contrast

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.trunk(images)
        pooled = self.ln_contrast(self.attn_pool_contrast(tokens)[:, 0]) @ self.proj_contrast
        return pooled, self.ln_caption(self.attn_pool_caption(tokens))


class Block(nn.Module):
    def __init__(self, cross: bool = False) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(32), nn.MultiheadAttention(32, 2)
        if cross:
            self.ln_1_kv = nn.LayerNorm(32)
        self.ln_2, self.mlp = nn.LayerNorm(32), nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(32, 128))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(128, 32))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q = self.ln_1(x)
        x = x + self.attn(q, q, q, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([Block(), Block()])


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_emb = nn.Parameter(torch.randn(32))
        self.token_embedding = nn.Embedding(300, 32)
        self.positional_embedding = nn.Parameter(0.1 * torch.randn(128, 32))
        self.transformer, self.ln_final = Blocks(), nn.LayerNorm(32)
        self.text_projection = nn.Parameter(torch.randn(32, 512))

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        count, length = ids.shape[0], ids.shape[1] + 1
        x = torch.cat([self.token_embedding(ids), self.cls_emb.expand(count, 1, -1)], dim=1)
        x = x + self.positional_embedding[:length]
        # As there: the place of CLS is added to the mask of padding in front, not at the end.
        seen = F.pad((ids != 0)[:, None], (1, 0, length - 1, 0), value=True)
        mask = torch.zeros(count, length, length).masked_fill(~seen, -torch.inf)
        mask = mask + torch.full((length, length), -torch.inf).triu(1)
        x = x.permute(1, 0, 2)
        for block in self.transformer.resblocks:
            x = block(x, mask.repeat_interleave(2, 0))
        x = x.permute(1, 0, 2)
        return self.ln_final(x[:, -1]) @ self.text_projection, x[:, :-1]


class CoCa(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.visual = Text(), Visual()
        self.text_decoder = nn.Linear(2, 2)  # stands for what is not used
        self.logit_scale, self.pad_id = nn.Parameter(torch.tensor(2.66)), 0

    def encode_image(self, images: Tensor, normalize: bool = True) -> Tensor:
        latent = self.visual(images)[0]
        return F.normalize(latent, dim=-1) if normalize else latent

    def encode_text(self, ids: Tensor, normalize: bool = True, embed_cls: bool = True) -> Tensor:
        latent = self.text(ids[:, :-1] if embed_cls else ids)[0]
        return F.normalize(latent, dim=-1) if normalize else latent


def create_model_from_pretrained(
    model_cfg: str, checkpoint_path: str, return_transform: bool = True
) -> CoCa:
    assert model_cfg == "conch_ViT-B-16" and not return_transform
    model = CoCa()
    state = torch.load(checkpoint_path)
    assert state["visual.trunk.pos_embed"].shape == model.visual.trunk.pos_embed.shape
    model.load_state_dict(state, strict=False)
    return model


def get_tokenizer() -> SimpleNamespace:
    def encode(text: str, add_special_tokens: bool, verbose: bool) -> list[int]:
        assert not add_special_tokens
        return [3 + letter for letter in text.lower().encode()]

    return SimpleNamespace(encode=encode, bos_token_id=1, eos_token_id=2, pad_token_id=0)
