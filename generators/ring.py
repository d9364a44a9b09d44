"""Ring: the Recurrent Parameter Generator. W is a ring, unpacked lap after lap, permuted and reflected.

Row i has lap k = i // dof and position j = i % dof. With ``tile`` = 1

    G[i, π_k(j)] = s(i),    π_k a keyed permutation of [0, dof),  s(i) = ±1,

so every entry is used ⌊rows/dof⌋ or ⌈rows/dof⌉ times and rows = dof is a bijection (Wang et al., "Compact and
optimal deep learning with recurrent parameter generators", WACV 2023, section 3). With a larger tile the ring is cut
into T = dof // tile tiles that move as wholes:

    position j = t tile + u  reads  tile π_k(t) at u with its pieces exchanged,  times  σ_k(t) ψ_k(u),

where a tile has 1, 2 or 4 pieces of at least eight entries, exchanged (XOR on the piece number) as a hash of (k, t)
says, σ is a sign per tile and ψ_k a sign pattern per lap. Copies of an entry lie in different laps, whose patterns are
independent, so they are as uncorrelated as with single entries. The last dof % tile positions of a lap rotate among
themselves. π_k(t) = (P_{k mod 64}(t) + c_k) mod T with keyed permutations P and rotations c (c_k = 0 for k < 64).

``order="deck"`` is the authors' code instead: one permutation Π over all rows, G[i, Π(i) mod dof] = s(i).

Cost: O(rows), a gather of tiles; the adjoint is a gather through the inverse permutations. Kept between calls: the
64 tile permutations, where they are small (`TABLE_BYTES`).
"""

from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from lincon.counter import below, bits, key, signs
from lincon.errors import LinconError
from lincon.generators._single import Entries, Single
from lincon.permutation import Permutation
from lincon.registry import register

_PERMUTATION, _ROTATION, _TILE, _PATTERN, _TAIL, _DECK, _SIGN = range(10, 17)
TABLES = 64
"""Laps before permutations recur, rotated."""


@register
@final
class Ring(Single):
    """Recurrent Parameter Generator.

    Args:
        rows, dof, seed: as every generator; dof above rows leaves entries unused, as in the authors' own setting.
        order: "laps" (the figure in the paper) or "deck" (the authors' code).
        permute: False reads the ring in sequence (ablation).
        sign: False reflects nothing (ablation).
        tile: entries that move together; 1 is exact, "auto" the largest power of two up to 1024 that leaves at
            least 1024 tiles, and 1 below 16,384 entries. Only "laps" has tiles.
    """

    name = "ring"

    def __init__(
        self,
        rows: int,
        dof: int,
        seed: int = 0,
        *,
        order: str = "laps",
        permute: bool = True,
        sign: bool = True,
        tile: int | str = "auto",
    ) -> None:
        super().__init__(rows, dof, seed)
        if order not in ("laps", "deck"):
            raise LinconError(f"ring: order={order!r}; give 'laps' or 'deck'.")
        if tile == "auto":
            tile = _auto_tile(dof) if order == "laps" else 1
        if not isinstance(tile, int) or isinstance(tile, bool) or not 1 <= tile <= dof:
            raise LinconError(f"ring: tile={tile!r}; give 'auto' or an integer from 1 to dof={dof}.")
        if order == "deck" and tile != 1:
            raise LinconError("ring: order='deck' has no tiles; leave tile out or give tile=1.")
        self.order, self.permute, self.sign, self.tile = order, bool(permute), bool(sign), tile
        self.tiles = dof // tile
        self.pieces = next(m for m in (4, 2, 1) if m == 1 or (tile % m == 0 and tile // m >= 8))

    def options(self) -> dict[str, Any]:
        return {"order": self.order, "permute": self.permute, "sign": self.sign, "tile": self.tile}

    # The map, entry by entry: what everything faster must equal.

    def entries(self, rows: Tensor) -> Entries:
        if self.order == "deck":
            index = self._deck(rows) % self.dof if self.permute else rows % self.dof
            return index, signs(bits(key(self.seed, _SIGN), rows)) if self.sign else None
        lap, position = rows // self.dof, rows % self.dof
        tile, u = position // self.tile, position % self.tile
        tail = tile == self.tiles
        index = torch.where(tail, self._tail(lap, u), self._tile_entry(lap, tile.clamp(max=self.tiles - 1), u))
        if not self.sign:
            return index, None
        sign = self._sigma(lap, tile) * self._psi(lap, u)
        return index, torch.where(tail, signs(bits(key(self.seed, _TAIL), rows)), sign)

    def _tile_entry(self, lap: Tensor, tile: Tensor, u: Tensor) -> Tensor:
        piece = self.tile // self.pieces
        exchanged = ((u // piece) ^ self._exchange(lap, tile)) * piece + u % piece
        return self._image(lap, tile) * self.tile + exchanged

    def _image(self, lap: Tensor, tile: Tensor) -> Tensor:
        """π_lap(tile)."""
        if not self.permute:
            return tile
        image = torch.empty_like(tile)
        for number in (lap % TABLES).unique().tolist():
            mine = lap % TABLES == number
            image[mine] = self._permutation(number)(tile[mine])
        return (image + self._rotation(lap)) % self.tiles

    def _permutation(self, number: int) -> Permutation:
        return Permutation(self.tiles, key(self.seed, _PERMUTATION, number))

    def _rotation(self, lap: Tensor) -> Tensor:
        return below(bits(key(self.seed, _ROTATION), lap), self.tiles) * (lap >= TABLES)

    def _hash(self, lap: Tensor, tile: Tensor) -> Tensor:
        return bits(key(self.seed, _TILE), lap * self.tiles + tile)

    def _exchange(self, lap: Tensor, tile: Tensor) -> Tensor:
        """What the numbers of a tile's pieces are XORed with."""
        if self.pieces == 1 or not self.permute:
            return torch.zeros_like(tile)
        return (self._hash(lap, tile) >> 1) & (self.pieces - 1)

    def _sigma(self, lap: Tensor, tile: Tensor) -> Tensor:
        return signs(self._hash(lap, tile))

    def _psi(self, lap: Tensor, u: Tensor) -> Tensor:
        return signs(bits(key(self.seed, _PATTERN), lap * self.tile + u))

    def _tail(self, lap: Tensor, u: Tensor) -> Tensor:
        """The entry that position ``u`` of the dof % tile last ones reads."""
        left = max(1, self.dof % self.tile)
        turn = below(bits(key(self.seed, _TAIL, 1), lap), left) if self.permute else 0
        return self.tiles * self.tile + (u + turn) % left

    @cached_property
    def _deck(self) -> Permutation:
        return Permutation(self.rows, key(self.seed, _DECK))


def _auto_tile(dof: int) -> int:
    if dof < 16 * 1024:
        return 1
    return min(1024, 1 << (dof // 1024).bit_length() - 1)
