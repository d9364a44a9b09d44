"""Vision transformers (Dosovitskiy et al. 2021) of torch's own layers, initialised as DeiT."""

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from lincon import LinconError
from lincon.shapes import Float
from lincon.tasks.experiments.names import check_positive

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

    >>> model = ViT(3, 10, size=32, dim=16, depth=1, heads=2)
    >>> model(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
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
        check_positive(width=width)
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

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        patches = rearrange(self.stem(images), "batch dim rows columns -> batch (rows columns) dim")
        class_token = repeat(self.class_token, "1 1 dim -> batch 1 dim", batch=len(images))
        tokens = torch.cat([class_token, patches], dim=1) + self.position_embedding
        hidden = self.body(tokens)
        logits: Tensor = self.head(self.norm(hidden[:, 0]))
        return logits


def _patch(size: int) -> int:
    if size <= 8:
        return 2
    if size <= 32:
        return 4
    return 8 if size < 128 else 16


def _initialise(model: ViT) -> None:
    """Draw weights as DeiT does; the encoder's layers, which torch copies from one, then differ."""
    nn.init.trunc_normal_(model.class_token, std=_STD)
    nn.init.trunc_normal_(model.position_embedding, std=_STD)
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            nn.init.trunc_normal_(module.in_proj_weight, std=_STD)
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=_STD)
            nn.init.zeros_(module.bias)
