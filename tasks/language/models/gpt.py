"""A GPT (Radford et al. 2019) over bytes: pre-norm blocks, learned positions, a weight-tied head."""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention

from lincon import LinconError
from lincon.shapes import Float, Int64
from lincon.tasks.experiments.names import check_positive

BYTES = 256
_STD = 0.02


class Attention(nn.Module):
    """Causal self-attention.

    Args:
        dim: of a token.
        heads: into which it is divided.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Float[Tensor, "n length dim"]) -> Float[Tensor, "n length dim"]:
        query, key, value = rearrange(
            self.query_key_value(tokens),
            "n length (three heads dim) -> three n heads length dim",
            three=3,
            heads=self.heads,
        )
        seen = scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed: Tensor = self.out(rearrange(seen, "n heads length dim -> n length (heads dim)"))
        return mixed


class Block(nn.Module):
    """Attention and a two-layer perceptron, each after a norm and added to its input."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.hidden_norm = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, 4 * dim)
        self.out = nn.Linear(4 * dim, dim)

    def forward(self, tokens: Float[Tensor, "n length dim"]) -> Float[Tensor, "n length dim"]:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        added: Tensor = self.out(gelu(self.hidden(self.hidden_norm(tokens))))
        return tokens + added


class GPT(nn.Module):
    """(n, length) bytes -> (n, length, 256) logits of the byte that follows each.

    The body is the stack of blocks. Embeddings of bytes, which are the head as well, and of
    positions, and the last norm stand outside of it.

    Args:
        context: the longest length.
        dim: of a token, a multiple of ``heads``.
        depth: blocks.
        heads: of attention.
        width: factor on ``dim``, to the nearest multiple of ``heads``.

    Raises:
        LinconError: ``dim`` is not a multiple of ``heads``; more bytes than the context.

    >>> model = GPT(32, dim=16, depth=1, heads=2)
    >>> model(torch.zeros(2, 10, dtype=torch.int64)).shape
    torch.Size([2, 10, 256])
    """

    def __init__(
        self, context: int, *, dim: int, depth: int, heads: int, width: float = 1.0
    ) -> None:
        super().__init__()
        if dim % heads:
            raise LinconError(
                f"A dim of {dim} cannot be shared by {heads} heads; it must be a multiple of them."
            )
        check_positive(width=width)
        dim = heads * max(1, round(width * dim / heads))
        self.context = context
        self.embedding = nn.Embedding(BYTES, dim)
        self.positions = nn.Parameter(torch.zeros(context, dim))
        self.body = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        _initialise(self, depth)

    def forward(self, context: Int64[Tensor, "n length"]) -> Float[Tensor, "n length 256"]:
        length = context.shape[1]
        if length > self.context:
            raise LinconError(f"{length} bytes at once; the model reads {self.context} at most.")
        tokens = self.embedding(context) + self.positions[:length]
        return linear(self.norm(self.body(tokens)), self.embedding.weight)


def _initialise(model: GPT, depth: int) -> None:
    """Draw weights as GPT-2 does: those that add to the stream are smaller in a deep model."""
    nn.init.normal_(model.positions, std=_STD)
    nn.init.normal_(model.embedding.weight, std=_STD)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            adds = name.endswith("out")
            nn.init.normal_(module.weight, std=_STD / (2 * depth) ** 0.5 if adds else _STD)
            nn.init.zeros_(module.bias)
