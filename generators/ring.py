"""Ring: the Recurrent Parameter Generator. W is a ring, unpacked lap after lap, permuted and reflected.

Row i has lap k = i // dof and position j = i % dof. With ``tile`` = 1

    G[i, π_k(j)] = s_k(j),    π_k a keyed permutation of [0, dof),  s_k(j) = ±1,

so every entry is used ⌊rows/dof⌋ or ⌈rows/dof⌉ times and rows = dof is a bijection (Wang et al., "Compact and
optimal deep learning with recurrent parameter generators", WACV 2023, section 3). With a larger tile the ring is cut
into T = dof // tile tiles that move as wholes:

    position j = t tile + u  reads  tile π_k(t) at u with its pieces exchanged,  times  s_k(j),

where a tile has 1, 2 or 4 pieces of at least eight entries, exchanged (XOR on the piece number) as a hash says. The
last dof % tile positions of a lap rotate among themselves. Sixteen laps are a cycle, and a cycle z turns the first one:

    π_k(t) = P_{k mod 16}(t) + c_z mod T,    s_k(j) = S_{k mod 16}(j + d_z mod 4096),    c_0 = d_0 = 0,

with keyed permutations P, sign patterns S (period 4096, or dof) and turns c, d. Two uses of an entry lie in different
laps, whose patterns are unrelated, so copies are as uncorrelated as if every sign were drawn alone.

``order="deck"`` is the authors' code instead: one permutation Π over all rows, G[i, Π(i) mod dof] = s(i).

Cost: O(rows), a gather of pieces and one multiplication; the adjoint gathers through the inverse, or adds one lap at a
time, so nothing is ever added twice to one place at once. Kept between calls: one cycle.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from lincon.counter import below, bits, key, signs
from lincon.errors import LinconError
from lincon.generator import TABLE_BYTES, Segments, chunks, wide_enough
from lincon.generators._single import Entries, Single
from lincon.maps.permutation import Permutation
from lincon.maps.registry import register

_PERMUTATION, _EXCHANGE, _SIGN, _TURN, _TAIL, _DECK = range(10, 16)
CYCLE = 16
"""Laps before the permutations and signs recur, turned."""
PERIOD = 4096
"""Positions before the signs of a lap recur."""
BLOCK = 1 << 20
"""Entries moved at a time: what is in between stays in cache."""


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
        self._cycles: dict[torch.device, _Cycle] = {}
        self._tails: dict[tuple[int, torch.device], Tensor] = {}
        self._turns_made: dict[int, tuple[int, int]] = {}
        if order not in ("laps", "deck"):
            raise LinconError(f"ring: order={order!r}; give 'laps' or 'deck'.")
        if tile == "auto":
            tile = _auto_tile(dof) if order == "laps" else 1
        if not isinstance(tile, int) or isinstance(tile, bool) or not 1 <= tile <= dof:
            raise LinconError(
                f"ring: tile={tile!r}; give 'auto' or an integer from 1 to dof={dof}."
            )
        if order == "deck" and tile != 1:
            raise LinconError("ring: order='deck' has no tiles; leave tile out or give tile=1.")
        self.order, self.permute, self.sign, self.tile = order, bool(permute), bool(sign), tile
        self.tiles, self.period = dof // tile, min(dof, PERIOD)
        self.pieces = next(m for m in (4, 2, 1) if m == 1 or (tile % m == 0 and tile // m >= 8))

    def options(self) -> dict[str, Any]:
        return {"order": self.order, "permute": self.permute, "sign": self.sign, "tile": self.tile}

    # The map, entry by entry: what everything faster must equal.

    def entries(self, rows: Tensor) -> Entries:
        if self.order == "deck":
            index = self._deck(rows) % self.dof if self.permute else rows % self.dof
            return index, signs(bits(key(self.seed, _DECK, 1), rows)) if self.sign else None
        lap, position = rows // self.dof, rows % self.dof
        tile, u = position // self.tile, position % self.tile
        tail = tile == self.tiles
        index = torch.where(
            tail, self._tail(lap, u), self._tile_entry(lap, tile.clamp(max=self.tiles - 1), u)
        )
        return index, self._signs(lap, position) if self.sign else None

    def _tile_entry(self, lap: Tensor, tile: Tensor, u: Tensor) -> Tensor:
        size = self.tile // self.pieces
        image, number = tile, u // size
        if self.permute:
            image = (
                self._image(lap % CYCLE, tile) + self._turn(lap // CYCLE, self.tiles, 0)
            ) % self.tiles
            number = number ^ self._exchange(lap % CYCLE, tile)
        return image * self.tile + number * size + u % size

    def _image(self, number: Tensor, tile: Tensor) -> Tensor:
        """P_number(tile), with one ``number`` < 16 for each tile."""
        image = torch.empty_like(tile)
        for one in number.unique().tolist():
            mine = number == one
            image[mine] = self._permutation(one)(tile[mine])
        return image

    def _permutation(self, number: int) -> Permutation:
        return Permutation(self.tiles, key(self.seed, _PERMUTATION, number))

    def _exchange(self, number: Tensor, tile: Tensor) -> Tensor:
        """What the numbers of a tile's pieces are XORed with."""
        return bits(key(self.seed, _EXCHANGE), number * self.tiles + tile) & (self.pieces - 1)

    def _signs(self, lap: Tensor, position: Tensor) -> Tensor:
        place = (position + self._turn(lap // CYCLE, self.period, 1)) % self.period
        return signs(bits(key(self.seed, _SIGN), lap % CYCLE * self.period + place))

    def _turn(self, cycle: Tensor, bound: int, which: int) -> Tensor:
        """c (``which`` 0) or d (1) of a cycle, below ``bound``."""
        return below(bits(key(self.seed, _TURN, which), cycle), bound) * (cycle > 0)

    def _tail(self, lap: Tensor, u: Tensor) -> Tensor:
        """The entry that position ``u`` of the dof % tile last ones reads."""
        left = max(1, self.dof % self.tile)
        turn = below(bits(key(self.seed, _TAIL), lap), left) if self.permute else 0
        return self.tiles * self.tile + (u + turn) % left

    @cached_property
    def _deck(self) -> Permutation:
        return Permutation(self.rows, key(self.seed, _DECK))

    # The same map, many pieces at a time.

    def write(self, out: Tensor, prepared: Tensor, start: int, segments: Segments = ()) -> None:
        if self.order == "deck" or self._tabulated(out.device):
            return super().write(out, prepared, start, segments)
        free, segments = prepared, segments or [(0, len(out), 1.0)]
        source = self._two_turns(free)
        scratch = out.new_empty(min(len(out), max(BLOCK, self.tile)))
        for part, scale in self._scaled_parts(start, segments):
            rows = out[part.start - start : part.stop - start]
            if part.tiles:
                self._write_part(rows.view(part.laps, -1), free, source, part, scale, scratch)
            else:
                entry, sign = self._edge(part, out.device)
                rows.copy_(_reflected(free[entry], sign, scale).view(-1))

    def _write_part(
        self,
        out: Tensor,
        free: Tensor,
        source: Tensor,
        part: "_Part",
        scale: float,
        scratch: Tensor,
    ) -> None:
        """``out``: (laps, positions), the positions of whole tiles and, of whole laps, the tail."""
        cycle, width = self._cycle(out.device), part.tiles * self.tile
        target = out[:, :width]
        in_place = part.laps == 1 or width == out.shape[1]
        moved = target if in_place else scratch[: part.laps * width].view(part.laps, width)
        index = cycle.index[part.lap % CYCLE :][: part.laps, part.tile * self.pieces :][
            :, : part.tiles * self.pieces
        ]
        pieces = source[self._turns(part.lap // CYCLE)[0] * self.pieces :]
        torch.index_select(pieces, 0, index.reshape(-1), out=moved.view(-1, *pieces.shape[1:]))
        self._reflect(moved, target, part, scale)
        if out.shape[1] > width:
            entry, sign = self._edge(part, out.device)
            out[:, width:] = _reflected(free[entry], sign, scale)

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        if self.order == "deck" and len(grad) == self.rows:
            self._accumulate_deck(out, grad)
        else:
            super()._accumulate(out, grad, start)

    def accumulate(self, out: Tensor, grad: Tensor, start: int, segments: Segments = ()) -> None:
        if self.order == "deck" or self._tabulated(out.device):
            return super().accumulate(out, grad, start, segments)
        segments = segments or [(0, len(grad), 1.0)]
        scratch = out.new_empty(min(len(grad), max(BLOCK, self.tile)))
        for part, scale in self._scaled_parts(start, segments):
            rows = grad[part.start - start : part.stop - start]
            if part.tiles:
                self._accumulate_part(out, rows.view(part.laps, -1), part, scale, scratch)
            else:
                entry, sign = self._edge(part, out.device)
                out[entry[0]] += _reflected(rows.to(out.dtype), sign, scale).view(
                    -1
                )  # no entry comes twice

    def _accumulate_part(
        self, out: Tensor, grad: Tensor, part: "_Part", scale: float, scratch: Tensor
    ) -> None:
        cycle, width = self._cycle(out.device), part.tiles * self.tile
        moved = scratch[: part.laps * width].view(part.laps, width)
        self._reflect(grad[:, :width], moved, part, scale)
        index = cycle.index[part.lap % CYCLE :][: part.laps, part.tile * self.pieces :][
            :, : part.tiles * self.pieces
        ]
        whole = self._whole_pieces(out)
        pieces = moved.view(-1, *whole.shape[1:])
        turn = self._turns(part.lap // CYCLE)[0] * self.pieces
        if part.laps > 1:  # every lap gathers through its inverse, and the laps are added up
            gathered = pieces.index_select(0, _inverse(index)).view(part.laps, *whole.shape).sum(0)
            whole[turn:] += gathered[: len(whole) - turn]
            whole[:turn] += gathered[len(whole) - turn :]
        else:  # no place twice, so the order of additions is that of the laps, on every device
            where = ((index[0].long() + turn) % len(whole)).view(-1, *(1,) * (pieces.dim() - 1))
            whole.scatter_add_(0, where.expand_as(pieces), pieces)
        if grad.shape[1] > width:
            entry, sign = self._edge(part, out.device)
            left = _reflected(grad[:, width:].to(out.dtype), sign, scale)
            for lap in range(part.laps):
                out[entry[lap]] += left[lap]

    def _accumulate_deck(self, out: Tensor, grad: Tensor) -> None:
        """Every entry gathers its rows through the inverse permutation."""
        for start, stop in chunks(0, self.rows):
            cards = torch.arange(start, stop, device=out.device)
            rows = self._deck.inverse(cards) if self.permute else cards
            values = grad[rows].to(out.dtype)
            if self.sign:
                values *= signs(bits(key(self.seed, _DECK, 1), rows))
            low = start
            while low < stop:  # within one lap of the deck no entry comes twice
                high = min(stop, (low // self.dof + 1) * self.dof)
                out[low % self.dof : low % self.dof + high - low] += values[
                    low - start : high - start
                ]
                low = high

    def _tabulated(self, device: torch.device) -> bool:
        """Whether the table of all entries is kept, which is fastest where it is small."""
        return self.rows * 5 <= TABLE_BYTES and device.type == "cpu"

    def _whole_pieces(self, ring: Tensor) -> Tensor:
        """The tiles of a ring as pieces, (tiles * pieces, size); single entries stay (tiles,)."""
        size = self.tile // self.pieces
        ring = ring[: self.tiles * self.tile]
        return ring if size == 1 else ring.view(-1, size)

    def _two_turns(self, free: Tensor) -> Tensor:
        """The pieces of the ring, twice over where cycles start at other tiles than the first."""
        pieces = self._whole_pieces(free)
        return (
            torch.cat([pieces, pieces]) if self.rows > CYCLE * self.dof and self.permute else pieces
        )

    def _turns(self, cycle: int) -> tuple[int, int]:
        """c and d of a cycle."""
        if cycle not in self._turns_made:
            z = torch.tensor(cycle)
            c = int(self._turn(z, self.tiles, 0)) if self.permute else 0
            self._turns_made[cycle] = c, int(self._turn(z, self.period, 1))
        return self._turns_made[cycle]

    def _reflect(self, source: Tensor, target: Tensor, part: "_Part", scale: float) -> None:
        """target[:] = source times the signs of a part's tiles times ``scale``; both (laps, positions)."""
        if not self.sign:
            if scale != 1.0:
                torch.mul(source, scale, out=target)
            elif source.data_ptr() != target.data_ptr():
                target.copy_(source)
            return
        first, period = part.tile * self.tile, self.period
        turn = self._turns(part.lap // CYCLE)[1]
        patterns = self._cycle(target.device).signs[part.lap % CYCLE :][: part.laps]
        patterns = patterns.roll(-((first + turn) % period), 1).to(target.dtype)
        if scale != 1.0:  # in a type that holds the scale, so that the product is rounded once
            patterns = patterns.to(wide_enough(target.dtype)) * scale
        even = source.shape[1] // period * period
        shape = part.laps, even // period, period
        if even:
            torch.mul(
                source[:, :even].view(shape), patterns[:, None], out=target[:, :even].view(shape)
            )
        if even < source.shape[1]:
            torch.mul(source[:, even:], patterns[:, : source.shape[1] - even], out=target[:, even:])

    def _cycle(self, device: torch.device) -> "_Cycle":
        if device in self._cycles:
            return self._cycles[device]
        laps = min(CYCLE, -(-self.rows // self.dof))
        made = [self._lap(number, device) for number in range(laps)]
        cycle = _Cycle(torch.stack([i for i, _ in made]), torch.stack([s for _, s in made]))
        self._cycles[device] = cycle
        return cycle

    def _lap(self, number: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Piece numbers, (tiles * pieces,) int32, and signs, (period,) int8, of a lap of the first cycle."""
        parts = []
        for low, high in chunks(0, self.tiles):
            tile = torch.arange(low, high, device=device)
            image, order = tile, torch.arange(self.pieces, device=device)
            if self.permute:
                image = self._permutation(number)(tile)
                order = order ^ self._exchange(torch.tensor(number, device=device), tile)[:, None]
            parts.append((image[:, None] * self.pieces + order).view(-1).int())
        place = number * self.period + torch.arange(self.period, device=device)
        return torch.cat(parts), signs(bits(key(self.seed, _SIGN), place))

    def _edge(self, part: "_Part", device: torch.device) -> Entries:
        """`entries`, looked up, of the rows of a part that are in no whole tile of it, (laps, n).

        They are those of one tile, if the part has none, or those behind the last.
        """
        width, (c, d), first = (
            self.tiles * self.tile,
            self._turns(part.lap // CYCLE),
            part.lap % CYCLE,
        )
        low = width if part.tiles else part.start - part.lap * self.dof
        high = self.dof if part.tiles else low + part.stop - part.start
        position, cycle = torch.arange(low, high, device=device), self._cycle(device)
        if low >= width:
            turns = self._tail_turns(part.lap // CYCLE, device)[first : first + part.laps, None]
            index = width + (position - width + turns) % (self.dof - width)
        else:
            size = self.tile // self.pieces
            number = (
                cycle.index[first : first + part.laps][:, position // size].long() + c * self.pieces
            )
            index = number % (self.tiles * self.pieces) * size + position % size
        return index, cycle.signs[first : first + part.laps][
            :, (position + d) % self.period
        ] if self.sign else None

    def _tail_turns(self, cycle: int, device: torch.device) -> Tensor:
        """By how much the entries behind the last tile are turned in each lap of a cycle, (16,)."""
        slot = cycle, device
        if slot not in self._tails:
            laps = torch.arange(cycle * CYCLE, (cycle + 1) * CYCLE, device=device)
            self._tails[slot] = self._tail(laps, torch.zeros_like(laps)) - self.tiles * self.tile
        return self._tails[slot]

    def _scaled_parts(self, start: int, segments: Segments) -> Iterator[tuple["_Part", float]]:
        for low, high, scale in segments:
            for part in self._parts(start + low, start + high):
                yield part, scale

    def _parts(self, start: int, stop: int) -> Iterator["_Part"]:
        """Cut rows [start, stop) into whole laps of one cycle, runs of whole tiles, and what is left at their ends."""
        while start < stop:
            lap, position = divmod(start, self.dof)
            end = min(self.dof, position + stop - start)
            if end - position == self.dof <= BLOCK:
                laps = min((stop - start) // self.dof, BLOCK // self.dof, CYCLE - lap % CYCLE)
                part = _Part(start, start + laps * self.dof, lap, laps, 0, self.tiles)
            elif (
                position % self.tile == 0
                and min(end // self.tile, self.tiles) > position // self.tile
            ):
                first = position // self.tile
                tiles = min(min(end // self.tile, self.tiles) - first, max(1, BLOCK // self.tile))
                part = _Part(start, start + tiles * self.tile, lap, 1, first, tiles)
            else:
                edge = -(-position // self.tile) * self.tile
                part = _Part(
                    start,
                    start + (min(edge, end) if edge > position else end) - position,
                    lap,
                    1,
                    0,
                    0,
                )
            yield part
            start = part.stop


@dataclass(frozen=True)
class _Part:
    """Rows [start, stop): ``tiles`` whole tiles from ``tile`` on in each of ``laps`` laps of one cycle from ``lap`` on.

    Where they are all tiles of the laps, the tails are among the rows too. No tiles: entry by entry.
    """

    start: int
    stop: int
    lap: int
    laps: int
    tile: int
    tiles: int


@dataclass(frozen=True)
class _Cycle:
    """The first cycle's laps: piece numbers, (laps, tiles * pieces) int32, and signs, (laps, period) int8."""

    index: Tensor
    signs: Tensor


def _reflected(values: Tensor, sign: Tensor | None, scale: float) -> Tensor:
    """values * sign * scale, (laps, n), in a type that holds the scale."""
    wide = values.to(wide_enough(values.dtype)) * scale
    return wide if sign is None else wide * sign


def _inverse(index: Tensor) -> Tensor:
    """Of the piece numbers of whole laps, (laps, n): where, in all laps laid flat, each piece of each lap went."""
    numbers = torch.arange(index.numel(), device=index.device, dtype=index.dtype).view(index.shape)
    return torch.empty_like(index).scatter_(1, index.long(), numbers).view(-1)


def _auto_tile(dof: int) -> int:
    if dof < 16 * 1024:
        return 1
    return min(1024, 1 << (dof // 1024).bit_length() - 1)
