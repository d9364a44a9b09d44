"""Ring: the Recurrent Parameter Generator. W is a ring that is read lap after lap, each time anew.

Lap k makes rows [k dof, (k + 1) dof). It cuts the ring, from a keyed place o_k on, into T tiles of
B entries and a rest of dof mod B. It reads the tiles in the order of a keyed permutation π_k, and
the rest last. Each is turned by a keyed number r of quarters q = max(1, B // 4), and every row has a
keyed sign: row i = k dof + s B + u, in slot s of the lap, is

    G[i, (o_k + π_k(s) B + (u + r_k(s) q) mod B) mod dof] = ±1,    π_k(T) = T.

So every entry is used ⌊rows/dof⌋ or ⌈rows/dof⌉ times and rows = dof is a bijection. With B = 1 it is
the paper's (Wang et al., "Compact and optimal deep learning with recurrent parameter generators",
WACV 2023, section 3). Larger tiles are contiguous runs, which a processor moves many entries at a
time. ``order="deck"`` is the authors' code instead: one permutation Π over all rows,

    G[i, Π(i) mod dof] = ±1.

Cost: O(rows). What is kept between calls is the places of all tiles, or of all entries, if that is
small.

When to use: the default: equal use of every free number at any DoF, in any shape of network, at
little more than the cost of copying the weights.
"""

from typing import Any, final

import torch
from torch import Tensor

from lincon.counter import bits, key, mix, row_signs, shared, shift_right
from lincon.errors import LinconError
from lincon.generator import TABLE_BYTES
from lincon.generators.one_nonzero import Entries, OneNonzero
from lincon.kernels import Loop
from lincon.maps.permutation import ROUNDS, Permutation, images
from lincon.maps.registry import register
from lincon.shapes import Int

_LAP_STREAM, _SIGN_STREAM, _DECK_STREAM = 10, 11, 12
WORDS = 8
"""Words of 64 bits that a lap draws: where it cuts, the keys of six rounds, and that of turns."""
TILE = 64
"""The default tile of a ring of at least `FEWEST_TILES` of them; smaller rings have smaller ones."""
FEWEST_TILES = 32


@register
@final
class Ring(OneNonzero):
    """Recurrent Parameter Generator: laps of a ring, each permuted and reflected by its own keys.

    After Wang et al., WACV 2023. Cost: O(rows).

    Args:
        rows, dof, seed: as every generator; dof above rows leaves entries unused, as in the
            authors' own setting.
        order: "laps" (the figure in the paper) or "deck" (the authors' code).
        permute: False reads the ring in sequence (ablation).
        sign: False reflects nothing (ablation).
        tile: entries that move together; 1 is exact, "auto" the largest power of two up to 64 that
            leaves at least 32 tiles. Only "laps" has tiles.

    Raises:
        LinconError: an order or a tile that is not one of these.

    >>> Ring(rows=6, dof=3, seed=0).sparse().toarray()
    array([[-1.,  0.,  0.],
           [ 0.,  0.,  1.],
           [ 0., -1.,  0.],
           [ 0.,  1.,  0.],
           [-1.,  0.,  0.],
           [ 0.,  0., -1.]])
    """

    name = "ring"
    version = 2

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
        self.order, self.permute, self.sign = order, bool(permute), bool(sign)
        self.tile = _checked_tile(tile, order, dof)
        self.tiles = dof // self.tile

    def options(self) -> dict[str, Any]:
        return {"order": self.order, "permute": self.permute, "sign": self.sign, "tile": self.tile}

    def entries(self, rows: Int[Tensor, " n"]) -> Entries:
        index = rows
        if self.permute:
            index = self._dealt(rows) if self.order == "deck" else self._read(rows)
        sign = row_signs(key(self.seed, _SIGN_STREAM), rows) if self.sign else None
        return index % self.dof, sign

    def _dealt(self, rows: Tensor) -> Tensor:
        """Π of the module's docstring."""
        return Permutation(self.rows, key(self.seed, _DECK_STREAM))(rows)

    def _read(self, rows: Tensor) -> Tensor:
        """The entries that laps read, before they are taken modulo dof."""
        lap, position = rows // self.dof, rows % self.dof
        slot, u = position // self.tile, position % self.tile
        width = torch.where(slot < self.tiles, self.tile, self.dof - self.tiles * self.tile)
        quarter = max(1, self.tile // 4)
        first, turn = shared(self._slots, lap * (self.tiles + 1) + slot)
        read: Tensor = first + (u + turn * quarter) % width
        return read

    def _slots(self, number: Tensor) -> Tensor:
        """o_k + π_k(s) B and r_k(s), (2, n), where ``number`` counts the slots of all laps."""
        lap, slot = number // (self.tiles + 1), number % (self.tiles + 1)
        is_tile = slot < self.tiles
        round_keys = torch.stack([self._word(lap, 1 + round_) for round_ in range(ROUNDS)])
        tile = slot.clone()
        tile[is_tile] = images(slot[is_tile], self.tiles, round_keys[:, is_tile])
        first = shift_right(self._word(lap, 0), 1) % self.dof + tile * self.tile
        turn = mix(self._word(lap, WORDS - 1), slot) >> 30
        return torch.stack([first, turn])

    def unused(self) -> int:
        """Every lap reads each entry once, and the first of several laps is whole."""
        return max(0, self.dof - self.rows)

    def _word(self, lap: Tensor, number: int) -> Tensor:
        """One of the 8 words of 64 bits that each lap draws."""
        return bits(key(self.seed, _LAP_STREAM), lap * WORDS + number)

    def loop(self) -> Loop | None:
        sign_key = key(self.seed, _SIGN_STREAM) if self.sign else None
        if self.order == "deck" and self.permute:
            keys = bits(key(self.seed, _DECK_STREAM), torch.arange(ROUNDS, device="cpu")).tolist()
            more = self.rows, *(each % (1 << 64) for each in keys)
            return Loop("decks", self.dof, sign_key, more=more)
        # A deck that is not permuted is read in sequence, as laps are.
        more = self.tile, self.tiles, int(self.permute)
        slots = -(-self.rows // self.dof) * (self.tiles + 1)
        return Loop(
            "laps",
            self.dof,
            sign_key,
            key(self.seed, _LAP_STREAM),
            more,
            lap=self.dof,
            run=self.tile,
            kept=slots if self.permute and slots * 4 <= TABLE_BYTES else 0,
        )


def _checked_tile(tile: int | str, order: str, dof: int) -> int:
    if tile == "auto":
        return _auto_tile(dof) if order == "laps" else 1
    if not isinstance(tile, int) or isinstance(tile, bool) or not 1 <= tile <= dof:
        raise LinconError(f"ring: tile={tile!r}; give 'auto' or an integer from 1 to dof={dof}.")
    if order == "deck" and tile != 1:
        raise LinconError("ring: order='deck' has no tiles; leave tile out or give tile=1.")
    return tile


def _auto_tile(dof: int) -> int:
    most = max(1, dof // FEWEST_TILES)
    return min(TILE, 1 << (most.bit_length() - 1))
