"""Ring: the Recurrent Parameter Generator.

W is a ring that is unpacked lap after lap, permuted and reflected.
Row i has lap k = i // dof and position j = i % dof. With ``tile`` = 1

    G[i, π_k(j)] = s_k(j),    π_k a keyed permutation of [0, dof),  s_k(j) = ±1,

so every entry is used ⌊rows/dof⌋ or ⌈rows/dof⌉ times and rows = dof is a bijection (Wang et al.,
"Compact and optimal deep learning with recurrent parameter generators", WACV 2023, section 3). With
a larger tile the ring is cut into T = dof // tile tiles that move as wholes:

    position j = t tile + u  reads  tile π_k(t) at u with its pieces exchanged,  times  s_k(j),

where a tile has 1, 2 or 4 pieces of at least eight entries, exchanged (XOR on the piece number) as
a hash says. The last dof % tile positions of a lap rotate among themselves. Sixteen laps are a
cycle, and a cycle z turns the first one:

    π_k(t) = P_{k mod 16}(t) + c_z mod T,  s_k(j) = S_{k mod 16}(j + d_z mod 4096),  c_0 = d_0 = 0,

with keyed permutations P, sign patterns S (period 4096, or dof) and turns c, d. Two uses of an
entry lie in different laps, whose patterns are unrelated, so copies are as uncorrelated as if every
sign were drawn alone.

``order="deck"`` is the authors' code instead: one permutation Π over all rows,

    G[i, Π(i) mod dof] = s(i).

Cost: O(rows), a gather of pieces and one multiplication. The adjoint gathers through the inverse or
adds one lap at a time, so nothing is added twice to one place at once. One cycle is kept between
calls.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, final

import torch
from einops import rearrange
from torch import Tensor

from lincon.counter import below, bits, key, signs
from lincon.errors import LinconError
from lincon.generator import TABLE_BYTES, Segments, chunks, wide_enough
from lincon.generators.one_nonzero import BYTES_PER_ROW, Entries, OneNonzero
from lincon.maps.per_device import per_device
from lincon.maps.permutation import Permutation
from lincon.maps.registry import register
from lincon.shapes import Float, Int

_PERMUTATION, _EXCHANGE, _SIGN, _TURN, _TAIL, _DECK = range(10, 16)
_OF_TILES, _OF_SIGNS = 0, 1
CYCLE = 16
"""Laps before the permutations and signs recur, turned."""
PERIOD = 4096
"""Positions before the signs of a lap recur."""
BLOCK = 1 << 20
"""Entries moved at a time: what is in between stays in cache."""
SMALLEST_PIECE = 8
"""Entries of a piece at least: shorter runs are slow to copy."""


@register
@final
class Ring(OneNonzero):
    """Recurrent Parameter Generator: laps of a ring, G[k dof + j, π_k(j)] = s_k(j).

    After Wang et al., WACV 2023. Cost: O(rows); one cycle of sixteen laps is kept between calls.

    Args:
        rows, dof, seed: as every generator; dof above rows leaves entries unused, as in the
            authors' own setting.
        order: "laps" (the figure in the paper) or "deck" (the authors' code).
        permute: False reads the ring in sequence (ablation).
        sign: False reflects nothing (ablation).
        tile: entries that move together; 1 is exact, "auto" the largest power of two up to 1024
            that leaves at least 1024 tiles, and 1 below 16,384 entries. Only "laps" has tiles.

    Raises:
        LinconError: an order or a tile that is not one of these.

    >>> Ring(rows=6, dof=3, seed=0).sparse().toarray()
    array([[ 0.,  0.,  1.],
           [ 0., -1.,  0.],
           [-1.,  0.,  0.],
           [ 1.,  0.,  0.],
           [ 0.,  1.,  0.],
           [ 0.,  0.,  1.]])
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
        self.order, self.permute, self.sign = order, bool(permute), bool(sign)
        self.tile = _checked_tile(tile, order, dof)
        self.tiles, self.period = dof // self.tile, min(dof, PERIOD)
        self.pieces = _pieces_of(self.tile)
        self.piece_size = self.tile // self.pieces
        self._turns_by_cycle: dict[int, tuple[int, int]] = {}

    def options(self) -> dict[str, Any]:
        return {"order": self.order, "permute": self.permute, "sign": self.sign, "tile": self.tile}

    # The map, entry by entry: whatever is faster must equal it.

    def entries(self, rows: Int[Tensor, " n"]) -> Entries:
        if self.order == "deck":
            return self._deck_entries(rows)
        lap, position = rows // self.dof, rows % self.dof
        tile, u = position // self.tile, position % self.tile
        in_tail = tile == self.tiles
        of_tile = self._tile_entry(lap, tile.clamp(max=self.tiles - 1), u)
        index = torch.where(in_tail, self._tail_entry(lap, u), of_tile)
        return index, self._signs(lap, position) if self.sign else None

    def _deck_entries(self, rows: Tensor) -> Entries:
        index = self._deck(rows) % self.dof if self.permute else rows % self.dof
        return index, self._deck_signs(rows) if self.sign else None

    def _deck_signs(self, rows: Tensor) -> Tensor:
        return signs(bits(key(self.seed, _DECK, 1), rows))

    @cached_property
    def _deck(self) -> Permutation:
        return Permutation(self.rows, key(self.seed, _DECK))

    def _tile_entry(self, lap: Tensor, tile: Tensor, u: Tensor) -> Tensor:
        """The entry that position ``u`` of a tile reads."""
        image, piece = tile, u // self.piece_size
        if self.permute:
            turn = self._turn(lap // CYCLE, self.tiles, _OF_TILES)
            image = (self._image(lap % CYCLE, tile) + turn) % self.tiles
            piece = piece ^ self._exchange(lap % CYCLE, tile)
        return image * self.tile + piece * self.piece_size + u % self.piece_size

    def _image(self, number: Tensor, tile: Tensor) -> Tensor:
        """P_number(tile), with one ``number`` < 16 for each tile."""
        image = torch.empty_like(tile)
        for one_number in number.unique().tolist():
            same = number == one_number
            image[same] = self._permutation(one_number)(tile[same])
        return image

    def _permutation(self, number: int) -> Permutation:
        return Permutation(self.tiles, key(self.seed, _PERMUTATION, number))

    def _exchange(self, number: Tensor, tile: Tensor) -> Tensor:
        """The bits that are XORed with the numbers of a tile's pieces."""
        return bits(key(self.seed, _EXCHANGE), number * self.tiles + tile) & (self.pieces - 1)

    def _signs(self, lap: Tensor, position: Tensor) -> Tensor:
        turn = self._turn(lap // CYCLE, self.period, _OF_SIGNS)
        place = (position + turn) % self.period
        return signs(bits(key(self.seed, _SIGN), lap % CYCLE * self.period + place))

    def _turn(self, cycle: Tensor, bound: int, kind: int) -> Tensor:
        """c (`_OF_TILES`) or d (`_OF_SIGNS`) of a cycle, below ``bound``; 0 for the first cycle."""
        return below(bits(key(self.seed, _TURN, kind), cycle), bound) * (cycle > 0)

    def _tail_entry(self, lap: Tensor, u: Tensor) -> Tensor:
        """The entry that position ``u`` of the dof % tile last ones reads."""
        length = max(1, self.dof % self.tile)
        turn = below(bits(key(self.seed, _TAIL), lap), length) if self.permute else 0
        return self.tiles * self.tile + (u + turn) % length

    # The same map, many pieces at a time.

    def _entry_by_entry(self, device: torch.device) -> bool:
        """Whether the base class is faster.

        A deck has no tiles. On a CPU, a small table of all entries is kept and is the fastest.
        """
        has_table = self.rows * BYTES_PER_ROW <= TABLE_BYTES and device.type == "cpu"
        return self.order == "deck" or has_table

    def write(
        self,
        out: Float[Tensor, " n"],
        prepared: Float[Tensor, " prepared_dof"],
        start: int,
        segments: Segments = (),
    ) -> None:
        if self._entry_by_entry(out.device):
            return super().write(out, prepared, start, segments)
        pieces = self._repeated_pieces(prepared)
        scratch = out.new_empty(min(len(out), max(BLOCK, self.tile)))
        for part, scale in self._scaled_parts(start, segments or [(0, len(out), 1.0)]):
            rows = out[part.start - start : part.stop - start]
            if part.tiles:
                laps = rows.view(part.laps, -1)
                self._write_part(laps, prepared, pieces, part, scale, scratch)
            else:
                index, sign = self._loose_entries(part, out.device)
                rows.copy_(_reflected(prepared[index], sign, scale).view(-1))

    def _write_part(
        self,
        out: Tensor,
        free: Tensor,
        pieces: Tensor,
        part: "_Part",
        scale: float,
        scratch: Tensor,
    ) -> None:
        """``out``: (laps, positions), those of whole tiles and, of whole laps, the tail."""
        width = part.tiles * self.tile
        target = out[:, :width]
        # The gather fills memory without gaps; laps that end in a tail leave gaps.
        has_gaps = part.laps > 1 and width < out.shape[1]
        moved = scratch[: part.laps * width].view(part.laps, width) if has_gaps else target
        c, _ = self._turns(part.cycle)
        turned = pieces[c * self.pieces :]
        numbers = self._piece_numbers(part, out.device).reshape(-1)
        torch.index_select(turned, 0, numbers, out=moved.view(-1, *turned.shape[1:]))
        self._reflect(moved, target, part, scale)
        if out.shape[1] > width:
            index, sign = self._loose_entries(part, out.device)
            out[:, width:] = _reflected(free[index], sign, scale)

    def accumulate(
        self,
        out: Float[Tensor, " prepared_dof"],
        grad: Float[Tensor, " n"],
        start: int,
        segments: Segments = (),
    ) -> None:
        if self._entry_by_entry(out.device):
            return super().accumulate(out, grad, start, segments)
        scratch = out.new_empty(min(len(grad), max(BLOCK, self.tile)))
        for part, scale in self._scaled_parts(start, segments or [(0, len(grad), 1.0)]):
            rows = grad[part.start - start : part.stop - start]
            if part.tiles:
                self._accumulate_part(out, rows.view(part.laps, -1), part, scale, scratch)
            else:
                index, sign = self._loose_entries(part, out.device)
                # Within a lap no entry comes twice.
                out[index[0]] += _reflected(rows.to(out.dtype), sign, scale).view(-1)

    def _accumulate_part(
        self, out: Tensor, grad: Tensor, part: "_Part", scale: float, scratch: Tensor
    ) -> None:
        """``grad``: (laps, positions), those of whole tiles and, of whole laps, the tail."""
        width = part.tiles * self.tile
        moved = scratch[: part.laps * width].view(part.laps, width)
        self._reflect(grad[:, :width], moved, part, scale)
        ring = self._as_pieces(out)
        pieces = moved.view(-1, *ring.shape[1:])
        numbers = self._piece_numbers(part, out.device)
        c, _ = self._turns(part.cycle)
        turn = c * self.pieces
        if part.laps > 1:
            # Every lap gathers through its inverse, and the laps are added up.
            gathered = pieces.index_select(0, _inverse(numbers))
            total = gathered.view(part.laps, *ring.shape).sum(0)
            before_end = len(ring) - turn
            ring[turn:] += total[:before_end]
            ring[:turn] += total[before_end:]
        else:
            # No piece comes twice, so the order of additions is that of the laps, on every device.
            places = (numbers[0].long() + turn) % len(ring)
            places = places.view(-1, *(1,) * (pieces.dim() - 1))
            ring.scatter_add_(0, places.expand_as(pieces), pieces)
        if grad.shape[1] > width:
            index, sign = self._loose_entries(part, out.device)
            tails = _reflected(grad[:, width:].to(out.dtype), sign, scale)
            for lap in range(part.laps):
                out[index[lap]] += tails[lap]

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        if self.order == "deck" and len(grad) == self.rows:
            self._accumulate_deck(out, grad)
        else:
            super()._accumulate(out, grad, start)

    def _accumulate_deck(self, out: Tensor, grad: Tensor) -> None:
        """Every entry gathers its rows through the inverse permutation."""
        for start, stop in chunks(0, self.rows):
            cards = torch.arange(start, stop, device=out.device)
            rows = self._deck.inverse(cards) if self.permute else cards
            values = grad[rows].to(out.dtype)
            if self.sign:
                values *= self._deck_signs(rows)
            low = start
            while low < stop:  # within one lap of the deck no entry comes twice
                high = min(stop, (low // self.dof + 1) * self.dof)
                first = low % self.dof
                out[first : first + high - low] += values[low - start : high - start]
                low = high

    def _as_pieces(self, ring: Tensor) -> Tensor:
        """The tiles of a ring as pieces, (tiles * pieces, piece_size); of one entry each, (tiles,)."""
        tiles = ring[: self.tiles * self.tile]
        return tiles if self.piece_size == 1 else tiles.view(-1, self.piece_size)

    def _repeated_pieces(self, free: Tensor) -> Tensor:
        """The pieces of the ring; twice over if cycles start at other tiles than the first."""
        pieces = self._as_pieces(free)
        has_turns = self.permute and self.rows > CYCLE * self.dof
        return torch.cat([pieces, pieces]) if has_turns else pieces

    def _turns(self, cycle: int) -> tuple[int, int]:
        """c and d of a cycle."""
        if cycle not in self._turns_by_cycle:
            z = torch.tensor(cycle)
            c = int(self._turn(z, self.tiles, _OF_TILES)) if self.permute else 0
            self._turns_by_cycle[cycle] = c, int(self._turn(z, self.period, _OF_SIGNS))
        return self._turns_by_cycle[cycle]

    def _reflect(self, source: Tensor, target: Tensor, part: "_Part", scale: float) -> None:
        """Write ``source`` times the signs of a part's tiles times ``scale`` to ``target``.

        Both are (laps, positions), and may be the same memory.
        """
        if not self.sign:
            if scale != 1.0:
                torch.mul(source, scale, out=target)
            elif source.data_ptr() != target.data_ptr():
                target.copy_(source)
            return
        _, d = self._turns(part.cycle)
        first = (part.tile * self.tile + d) % self.period
        patterns = self._cycle(target.device).signs[part.laps_of_cycle]
        patterns = patterns.roll(-first, 1).to(target.dtype)
        if scale != 1.0:
            # In a type that holds the scale, so that the product is rounded once.
            patterns = patterns.to(wide_enough(target.dtype)) * scale
        width = source.shape[1]
        whole = width // self.period * self.period
        if whole:
            shape = part.laps, whole // self.period, self.period
            periods, reflected = source[:, :whole].view(shape), target[:, :whole].view(shape)
            torch.mul(periods, patterns[:, None], out=reflected)
        if whole < width:
            torch.mul(source[:, whole:], patterns[:, : width - whole], out=target[:, whole:])

    @per_device
    def _cycle(self, device: torch.device) -> "_Cycle":
        lap_count = min(CYCLE, -(-self.rows // self.dof))
        numbers = [self._lap_pieces(lap, device) for lap in range(lap_count)]
        patterns = [self._lap_signs(lap, device) for lap in range(lap_count)]
        return _Cycle(torch.stack(numbers), torch.stack(patterns))

    def _lap_pieces(self, lap: int, device: torch.device) -> Tensor:
        """The pieces that a lap of the first cycle reads, (tiles * pieces,) int32."""
        number, permutation = torch.tensor(lap, device=device), self._permutation(lap)
        numbers = []
        for low, high in chunks(0, self.tiles):
            tile = torch.arange(low, high, device=device)
            piece = torch.arange(self.pieces, device=device)
            image = tile
            if self.permute:
                image = permutation(tile)
                piece = piece ^ rearrange(self._exchange(number, tile), "tile -> tile 1")
            by_tile = rearrange(image * self.pieces, "tile -> tile 1") + piece
            numbers.append(rearrange(by_tile, "tile piece -> (tile piece)").int())
        return torch.cat(numbers)

    def _lap_signs(self, lap: int, device: torch.device) -> Tensor:
        """The signs of a lap of the first cycle, (period,) int8."""
        counter = lap * self.period + torch.arange(self.period, device=device)
        return signs(bits(key(self.seed, _SIGN), counter))

    def _piece_numbers(self, part: "_Part", device: torch.device) -> Tensor:
        """The pieces that a part reads, not yet turned: (laps, tiles * pieces) int32."""
        first, last = part.tile * self.pieces, (part.tile + part.tiles) * self.pieces
        return self._cycle(device).pieces[part.laps_of_cycle, first:last]

    def _loose_entries(self, part: "_Part", device: torch.device) -> tuple[Tensor, Tensor | None]:
        """`entries`, looked up, of the rows of a part that are in no whole tile of it, (laps, n).

        If the part has whole tiles, these are its tails; else all its rows, which are in one tile
        or tail.
        """
        tail = self.tiles * self.tile
        c, d = self._turns(part.cycle)
        low = tail if part.tiles else part.start - part.lap * self.dof
        high = self.dof if part.tiles else low + part.stop - part.start
        position, cycle = torch.arange(low, high, device=device), self._cycle(device)
        if low >= tail:
            turn = self._tail_turns(device, part.cycle)[part.laps_of_cycle, None]
            index = tail + (position - tail + turn) % (self.dof - tail)
        else:
            number = cycle.pieces[part.laps_of_cycle, position // self.piece_size].long()
            turned = (number + c * self.pieces) % (self.tiles * self.pieces)
            index = turned * self.piece_size + position % self.piece_size
        if not self.sign:
            return index, None
        return index, cycle.signs[part.laps_of_cycle, (position + d) % self.period]

    @per_device
    def _tail_turns(self, device: torch.device, cycle: int) -> Tensor:
        """By how much the tail is turned in each lap of a cycle, (16,)."""
        laps = torch.arange(cycle * CYCLE, (cycle + 1) * CYCLE, device=device)
        return self._tail_entry(laps, torch.zeros_like(laps)) - self.tiles * self.tile

    def _scaled_parts(self, start: int, segments: Segments) -> Iterator[tuple["_Part", float]]:
        for low, high, scale in segments:
            for part in self._parts(start + low, start + high):
                yield part, scale

    def _parts(self, start: int, stop: int) -> Iterator["_Part"]:
        """Cut rows [start, stop) into whole laps of a cycle, runs of whole tiles, and the rest."""
        while start < stop:
            lap, position = divmod(start, self.dof)
            end = min(self.dof, position + stop - start)
            is_whole_lap = end - position == self.dof
            tile = position // self.tile
            whole_tiles = min(end // self.tile, self.tiles) - tile
            if is_whole_lap and self.dof <= BLOCK:
                laps = min((stop - start) // self.dof, BLOCK // self.dof, CYCLE - lap % CYCLE)
                part = _Part(start, start + laps * self.dof, lap, laps, 0, self.tiles)
            elif position % self.tile == 0 and whole_tiles > 0:
                tiles = min(whole_tiles, max(1, BLOCK // self.tile))
                part = _Part(start, start + tiles * self.tile, lap, 1, tile, tiles)
            else:
                # Up to the next tile, or to the end if the range or the lap ends before it.
                next_tile = -(-position // self.tile) * self.tile
                part_end = min(next_tile, end) if next_tile > position else end
                part = _Part(start, start + part_end - position, lap, 1, 0, 0)
            yield part
            start = part.stop


@dataclass(frozen=True)
class _Part:
    """Rows [start, stop): ``laps`` laps of one cycle from ``lap`` on, of each the same tiles.

    They are the ``tiles`` whole tiles from ``tile`` on; if these are all, the tails are among the
    rows too. A part without tiles is done entry by entry.
    """

    start: int
    stop: int
    lap: int
    laps: int
    tile: int
    tiles: int

    @property
    def cycle(self) -> int:
        return self.lap // CYCLE

    @property
    def laps_of_cycle(self) -> slice:
        """The laps, counted from the beginning of their cycle."""
        first = self.lap % CYCLE
        return slice(first, first + self.laps)


class _Cycle(NamedTuple):
    """The first cycle's laps: the pieces that they read and their signs.

    They are (laps, tiles * pieces) int32 and (laps, period) int8.
    """

    pieces: Tensor
    signs: Tensor


def _reflected(values: Tensor, sign: Tensor | None, scale: float) -> Tensor:
    """values * sign * scale, (laps, n), in a type that holds the scale."""
    wide = values.to(wide_enough(values.dtype)) * scale
    return wide if sign is None else wide * sign


def _inverse(numbers: Int[Tensor, "laps pieces"]) -> Int[Tensor, " laps*pieces"]:
    """Where each piece of each lap went, in all laps laid flat.

    ``numbers`` are the pieces that whole laps read.
    """
    places = torch.arange(numbers.numel(), device=numbers.device, dtype=numbers.dtype)
    inverse = torch.empty_like(numbers)
    inverse.scatter_(1, numbers.long(), places.view(numbers.shape))
    return inverse.view(-1)


def _checked_tile(tile: int | str, order: str, dof: int) -> int:
    if tile == "auto":
        return _auto_tile(dof) if order == "laps" else 1
    if not isinstance(tile, int) or isinstance(tile, bool) or not 1 <= tile <= dof:
        raise LinconError(f"ring: tile={tile!r}; give 'auto' or an integer from 1 to dof={dof}.")
    if order == "deck" and tile != 1:
        raise LinconError("ring: order='deck' has no tiles; leave tile out or give tile=1.")
    return tile


def _auto_tile(dof: int) -> int:
    if dof < 16 * 1024:
        return 1
    return min(1024, 1 << (dof // 1024).bit_length() - 1)


def _pieces_of(tile: int) -> int:
    """How many equal pieces a tile has: 4, 2 or 1."""
    for pieces in (4, 2):
        if tile % pieces == 0 and tile // pieces >= SMALLEST_PIECE:
            return pieces
    return 1
