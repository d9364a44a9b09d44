"""Vision transformers (Dosovitskiy et al. 2021), of torch's own layers, in DeiT's sizes and initialisation."""

import torch
from torch import Tensor, nn

from lincon import LinconError

_STD = 0.02


class ViT(nn.Module):
    """(batch, channels, size, size) -> (batch, classes) logits, read off a class token.

    The body is a stack of pre-norm encoder layers: attention and two linear layers with GELU, no
    dropout. Patch and position embeddings, class token, last norm and head stand outside of it.

    Args:
        channels: of the images.
        classes: number of logits.
        size: height and width of the images, in pixels.
        dim: of a token, a multiple of ``heads``.
        depth: encoder layers.
        heads: of attention.
        mlp_ratio: hidden units of a layer's linear part, as a multiple of ``dim``.
        patch: height and width of a patch, in pixels; by default 2 up to a size of 8, 4 up to 32,
            16 from 128 on, 8 between.
        width: factor on ``dim``, to the nearest multiple of ``heads``.

    Raises:
        LinconError: ``size`` is not a multiple of ``patch``, or ``dim`` not of ``heads``.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        size: int,
        *,
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        patch: int | None = None,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        patch = _patch(size) if patch is None else patch
        if size % patch:
            raise LinconError(
                f"Images of {size} x {size} pixels cannot be cut in patches of {patch} x {patch}."
            )
        if dim % heads:
            raise LinconError(
                f"A dim of {dim} cannot be shared by {heads} heads; it must be a multiple of them."
            )
        dim = heads * max(1, round(width * dim / heads))
        self.stem = nn.Conv2d(channels, dim, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position_embedding = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, dim))
        layer = nn.TransformerEncoderLayer(
            dim,
            heads,
            round(mlp_ratio * dim),
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.body = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.stem(images).flatten(2).transpose(1, 2)
        token = self.class_token.expand(len(patches), -1, -1)
        hidden = self.body(torch.cat([token, patches], dim=1) + self.position_embedding)
        return self.head(self.norm(hidden[:, 0]))


def _patch(size: int) -> int:
    return 2 if size <= 8 else 4 if size <= 32 else 8 if size < 128 else 16


def _initialise(model: ViT) -> None:
    """As DeiT does. The encoder's layers, which torch makes as copies of one, become different here."""
    nn.init.trunc_normal_(model.class_token, std=_STD)
    nn.init.trunc_normal_(model.position_embedding, std=_STD)
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            nn.init.trunc_normal_(module.in_proj_weight, std=_STD)
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=_STD)
            nn.init.zeros_(module.bias)
