"""The loops that Triton compiles for a GPU: rows of Ŵ from entries of W, and back.

A program writes a block of rows, rows[i] = ± scale · ring[index(i)], or sums a block of entries,
ring[j] += Σ ± scale · rows[i] over the rows i that read j. No two programs write to the same place,
so nothing is atomic and the bits are those of every run. Indices and signs are those of the
generators' `entries`, bit for bit.

Each loop takes

    rows, ring   pointers to what is written or added, and to W or the sum of gradients
    numbers      int64, what the map and the segments are (the constants below say where)
    start        the row of ``rows[0]``
    FORM         a `Form`: what is fixed when the loop is compiled

A lap is a stretch of rows that reads each of its entries once: a lap of the ring, or a run of a
fold. It is cut into slots of one tile, of which the last holds what is left. Rows of a slot read
one tile, so what is drawn for a tile is drawn once.
"""

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl

# Places in ``numbers``. Keys have two halves, of `lincon.counter.halves`. The numbers of segments
# are their first rows, and after those their multipliers, float64 by their bits.
SIGN, DOF, KEY = tl.constexpr(0), tl.constexpr(2), tl.constexpr(3)
LENGTH = tl.constexpr(5)
"""The rows of a lap, or of a whole deck."""
TILES, STARTS = tl.constexpr(6), tl.constexpr(7)
A, B, H = tl.constexpr(8), tl.constexpr(9), tl.constexpr(10)
"""The radix of the permutation: see `lincon.maps.permutation`."""
ROUNDS = tl.constexpr(11)
"""The keys of a deck's six rounds."""
SIZE, COUNT, STEP, SEGMENTS = (tl.constexpr(17 + number) for number in range(4))
"""The length of ``rows``, the number of segments, the largest power of two below it, segments."""

WORDS = tl.constexpr(8)
"""Words that a lap of the ring draws."""
SPAN = tl.constexpr(64)
"""Rows that a word of signs has, and the most of a slot that one program moves."""


@dataclass(frozen=True)
class Form:
    """What a loop is compiled for.

    Attributes:
        MAP: "ring", "fold" or "sequence", which have laps, "buckets", "decks" or "tabled".
        SIGNED: whether there are signs.
        SCALED: whether there are several segments.
        SUM: the dtype of products and sums.
        ADDS: whether rows are added to the ring rather than read from it.
        TILE: entries of a tile.
        INDEX: the dtype of places in a lap.
        HIGH, WIDE: the block that a program works on at a time, in numbers of its own.
    """

    MAP: str
    SIGNED: bool
    SCALED: bool
    SUM: Any
    ADDS: bool = False
    TILE: int = 1
    INDEX: Any = tl.int32
    HIGH: int = 1
    WIDE: int = 1


# lincon.counter and lincon.maps.permutation, in the same steps.


@triton.jit
def _unsigned(numbers, place):
    return tl.load(numbers + place).to(tl.uint64, bitcast=True)


@triton.jit
def _finish(x):
    x ^= x >> 29
    x *= 0xC4CEB9FE1A85EC53
    return x ^ (x >> 32)


@triton.jit
def _bits(numbers, place, counter):
    """`bits` of the key whose halves lie at ``place``."""
    x = (counter.to(tl.uint64) * 0x9E3779B97F4A7C15) ^ _unsigned(numbers, place)
    x ^= x >> 33
    x *= 0xFF51AFD7ED558CCD
    return _finish(x ^ _unsigned(numbers, place + 1))


@triton.jit
def _mix(key, counter):
    """`mix` of a uint64 key and a uint32 counter."""
    x = counter ^ key.to(tl.uint32)
    x = (x ^ (x >> 17)) * 0xED5AD4BB
    x ^= (key >> 32).to(tl.uint32)
    x = (x ^ (x >> 11)) * 0xAC4C1B51
    x = (x ^ (x >> 15)) * 0x31848BAB
    return x ^ (x >> 14)


@triton.jit
def _below(word, bound):
    """`word_below`, uint32."""
    return ((word.to(tl.uint64) * bound.to(tl.uint64)) >> 32).to(tl.uint32)


@triton.jit
def _drawn_key(numbers, first, number, FORM: tl.constexpr):
    """The key of a round: a word of the lap whose first is given, or one of the deck's."""
    if FORM.MAP == "decks":
        return _unsigned(numbers, ROUNDS + number)
    return _bits(numbers, KEY, first + (number + 1))


@triton.jit
def _round_trip(x, numbers, first, BACKWARD: tl.constexpr, FORM: tl.constexpr):
    """Six rounds of the network over int64 ``x``, or over what they came from."""
    a = tl.load(numbers + A).to(tl.uint32)
    mask = (tl.load(numbers + B) - 1).to(tl.uint32)
    h = tl.load(numbers + H)
    left, right = (x >> h).to(tl.uint32), x.to(tl.uint32) & mask
    for pair in tl.static_range(3):
        if BACKWARD:
            key = _drawn_key(numbers, first, 5 - 2 * pair, FORM)
            right = (right - _below(_mix(key, left), mask + 1)) & mask
            noise = _below(_mix(_drawn_key(numbers, first, 4 - 2 * pair, FORM), right), a)
            left = tl.where(left < noise, left + (a - noise), left - noise)
        else:
            noise = _below(_mix(_drawn_key(numbers, first, 2 * pair, FORM), right), a)
            left = tl.where(left >= a - noise, left - (a - noise), left + noise)
            key = _drawn_key(numbers, first, 2 * pair + 1, FORM)
            right = (right + _below(_mix(key, left), mask + 1)) & mask
    return (left.to(tl.int64) << h) + right.to(tl.int64)


@triton.jit
def _permuted(x, size, numbers, first, BACKWARD: tl.constexpr, FORM: tl.constexpr):
    """`images`: x must be below size, or the walk may never end."""
    image = _round_trip(x, numbers, first, BACKWARD, FORM)
    while tl.max((image >= size).to(tl.int32), axis=None) > 0:
        again = _round_trip(image, numbers, first, BACKWARD, FORM)
        image = tl.where(image >= size, again, image)
    return image


# Signs and multipliers.


@triton.jit
def _sign_word(row, numbers):
    """The signs of 64 rows from ``row`` on."""
    block, shift = row >> 6, (row & 63).to(tl.uint64)
    word = _bits(numbers, SIGN, block) >> shift
    return word | ((_bits(numbers, SIGN, block + 1) << 1) << (63 - shift))


@triton.jit
def _negated(value, word, place):
    """``value``, negative where the word's bit says so."""
    return tl.where(((word >> place.to(tl.uint64)) & 1) != 0, -value, value)


@triton.jit
def _signed_by_row(value, row, numbers):
    return _negated(value, _bits(numbers, SIGN, row >> 6), row & 63)


@triton.jit
def _signed_in_slot(value, word, u, row, numbers, FORM: tl.constexpr):
    """The sign of place ``u`` of a slot, from the word of the slot if that has all its signs."""
    if FORM.TILE <= SPAN:
        return _negated(value, word, u)
    return _signed_by_row(value, row, numbers)


@triton.jit
def _segment(row, numbers):
    """The number of the segment in which a place of ``rows`` lies."""
    count, step = tl.load(numbers + COUNT), tl.load(numbers + STEP)
    low = row * 0
    while step > 0:
        probe = low + step
        first = tl.load(numbers + SEGMENTS + probe, mask=probe < count, other=0)
        low = tl.where((probe < count) & (first <= row), probe, low)
        step = step // 2
    return low


@triton.jit
def _multiplier(segment, numbers, FORM: tl.constexpr):
    bits = tl.load(numbers + SEGMENTS + tl.load(numbers + COUNT) + segment)
    return bits.to(tl.float64, bitcast=True).to(FORM.SUM)


@triton.jit
def _scaled(value, row, first, last, numbers, FORM: tl.constexpr):
    """``value`` times the multipliers of places ``row``, all of which are from first to last."""
    if FORM.SCALED:
        low, high = _segment(first, numbers), _segment(last, numbers)
        if low == high:
            value *= _multiplier(low, numbers, FORM)
        else:
            value *= _multiplier(_segment(row, numbers), numbers, FORM)
    else:
        value *= _multiplier(0, numbers, FORM)
    return value


# Laps, whose tiles move as a whole.


@triton.jit
def _cut(lap, numbers, FORM: tl.constexpr):
    """The entry at which a lap begins."""
    if FORM.MAP == "ring":
        drawn = _bits(numbers, KEY, lap * WORDS) >> 1
        cut = (drawn % _unsigned(numbers, DOF)).to(tl.int64)
    elif FORM.MAP == "fold":
        drawn = _bits(numbers, KEY, lap) >> 32
        cut = ((drawn * _unsigned(numbers, STARTS)) >> 32).to(tl.int64)
    else:
        cut = lap * 0
    return cut


@triton.jit
def _moved(tile, lap, numbers, BACKWARD: tl.constexpr, FORM: tl.constexpr):
    """The tile that a slot reads, or the slot that reads a tile. The last stays."""
    if FORM.MAP == "ring":
        tiles = tl.load(numbers + TILES)
        inside = tl.where(tile < tiles, tile, 0)
        image = _permuted(inside, tiles, numbers, lap * WORDS, BACKWARD, FORM)
        tile = tl.where(tile < tiles, image, tl.minimum(tile, tiles))
    return tile


@triton.jit
def _shift(slot, width, lap, numbers, FORM: tl.constexpr):
    """By how many entries the tile of a slot is turned."""
    shift = slot * 0
    if FORM.MAP == "ring":
        turn = _mix(_bits(numbers, KEY, lap * WORDS + 7), slot.to(tl.uint32)) >> 30
        quarter: tl.constexpr = max(1, FORM.TILE // 4)
        shift = turn.to(tl.int64) * quarter % tl.maximum(width, 1)
    return shift


@triton.jit
def _around(place, size):
    """A place below 2 size, modulo size."""
    return tl.where(place >= size, place - size, place)


@triton.jit(do_not_specialize=["start", "first"])
def walk_laps(rows, ring, numbers, start: tl.int64, first: tl.int64, FORM: tl.constexpr):
    """Write the rows of slots from ``first`` on, counted over all laps.

    If FORM.ADDS, the rows of one lap are added to the entries, of which each is read by one row.
    """
    spans: tl.constexpr = (FORM.TILE + SPAN - 1) // SPAN
    dof, length = tl.load(numbers + DOF), tl.load(numbers + LENGTH)
    slots, begin = tl.load(numbers + TILES) + 1, tl.cast(start, tl.int64)
    first, program = tl.cast(first, tl.int64), tl.program_id(0).to(tl.int64)
    number = first + program // spans * FORM.HIGH + tl.arange(0, FORM.HIGH)
    lap = number // slots
    slot = number - lap * slots
    row = lap * length + slot * FORM.TILE
    width = tl.minimum(length - slot * FORM.TILE, FORM.TILE)
    entry = _cut(lap, numbers, FORM) + _moved(slot, lap, numbers, False, FORM) * FORM.TILE
    entry = _around(entry, dof).to(FORM.INDEX)[:, None]
    shift = _shift(slot, width, lap, numbers, FORM).to(FORM.INDEX)[:, None]
    end = tl.where(lap == first // slots, width, 0) if FORM.ADDS else width
    low = tl.maximum(begin - row, 0).to(FORM.INDEX)[:, None]
    high = tl.minimum(begin + tl.load(numbers + SIZE) - row, end)
    high = tl.maximum(high, 0).to(FORM.INDEX)[:, None]
    turn_at, ring_at = width.to(FORM.INDEX)[:, None], dof.to(FORM.INDEX)
    word = _sign_word(row, numbers)[:, None] if FORM.SIGNED else row[:, None]
    least, most = tl.min(row, axis=0) - begin, tl.max(row + width, axis=0) - begin - 1
    before = (program % spans * SPAN).to(FORM.INDEX)
    for piece in range(0, min(FORM.TILE, SPAN), FORM.WIDE):
        u = before + piece + tl.arange(0, FORM.WIDE)[None, :]
        there = ring + _around(entry + _around(u + shift, turn_at), ring_at)
        place = (row - begin)[:, None] + u
        inside = (u >= low) & (u < high)
        source = there if not FORM.ADDS else rows + place
        value = tl.load(source, mask=inside, other=0).to(FORM.SUM)
        if FORM.SIGNED:
            value = _signed_in_slot(value, word, u, place + begin, numbers, FORM)
        value = _scaled(value, place, least, most, numbers, FORM)
        if FORM.ADDS:
            tl.store(there, tl.load(there, mask=inside, other=0) + value, mask=inside)
        else:
            tl.store(rows + place, value, mask=inside)


@triton.jit(do_not_specialize=["start"])
def sum_laps(out, rows, numbers, start: tl.int64, FORM: tl.constexpr):
    """Add, to a block of entries, the rows of each lap that read them, lap after lap.

    Several programs share an entry if there are few: each sums some laps into a part of its own.
    """
    dof, length = tl.load(numbers + DOF), tl.load(numbers + LENGTH)
    tiles, begin = tl.load(numbers + TILES), tl.cast(start, tl.int64)
    size = tl.load(numbers + SIZE)
    first_entry = tl.program_id(0).to(tl.int64) * FORM.WIDE
    step = tl.arange(0, FORM.WIDE)
    inside = first_entry + step < dof
    target = out + tl.program_id(1).to(tl.int64) * dof + first_entry + step
    total = tl.load(target, mask=inside, other=0)
    lap = begin // length
    laps = (begin + size - 1) // length + 1 - lap
    share = (laps + tl.num_programs(1) - 1) // tl.num_programs(1)
    lap += share * tl.program_id(1)
    stop = tl.minimum(lap + share, (begin + size - 1) // length + 1)
    while lap < stop:
        # A lap is read from its cut on, round the ring; the block begins at this place of it.
        place = first_entry - _cut(lap, numbers, FORM)
        place = tl.where(place < 0, place + dof, place)
        first_tile = place // FORM.TILE
        over = place + step >= dof
        place = _around(place + step, dof)
        tile = place // FORM.TILE
        v = (place - tile * FORM.TILE).to(FORM.INDEX)
        local = tl.where(over, tile + (tiles + 1 - first_tile), tile - first_tile)
        local = tl.minimum(local, FORM.HIGH - 1).to(tl.int32)
        image = tl.minimum(_around(first_tile + tl.arange(0, FORM.HIGH), tiles + 1), tiles)
        slot = _moved(image, lap, numbers, True, FORM)
        width = tl.minimum(length - slot * FORM.TILE, FORM.TILE)
        shift = _shift(slot, width, lap, numbers, FORM).to(FORM.INDEX)
        u = v - tl.gather(shift, local, 0)
        u = tl.where(u < 0, u + tl.gather(width.to(FORM.INDEX), local, 0), u)
        row = lap * length + slot * FORM.TILE
        here = tl.gather(row - begin, local, 0) + u
        read = inside & (here >= 0) & (here < size)
        value = tl.load(rows + here, mask=read, other=0).to(FORM.SUM)
        if FORM.SIGNED:
            word = tl.gather(_sign_word(row, numbers).to(tl.int64, bitcast=True), local, 0)
            word = word.to(tl.uint64, bitcast=True)
            value = _signed_in_slot(value, word, u, here + begin, numbers, FORM)
        total += _scaled_by_slot(value, here, row - begin, local, numbers, FORM)
        lap += 1
    tl.store(target, total, mask=inside)


@triton.jit
def _scaled_by_slot(value, here, row, local, numbers, FORM: tl.constexpr):
    """``value`` times the multipliers of its rows, which mostly are those of whole slots."""
    if FORM.SCALED:
        low, high = _segment(row, numbers), _segment(row + FORM.TILE - 1, numbers)
        if tl.max(high - low, axis=0) == 0:
            value *= tl.gather(_multiplier(low, numbers, FORM), local, 0)
        else:
            value *= _multiplier(_segment(here, numbers), numbers, FORM)
    else:
        value *= _multiplier(0, numbers, FORM)
    return value


# Maps that read one entry at a time.


@triton.jit(do_not_specialize=["start"])
def write_points(rows, ring, numbers, start: tl.int64, FORM: tl.constexpr):
    """Hash, random and the deck: rows in blocks of 64, which share a word of signs."""
    begin = tl.cast(start, tl.int64)
    block = (begin >> 6) + tl.program_id(0).to(tl.int64) * FORM.HIGH + tl.arange(0, FORM.HIGH)
    row = (block << 6)[:, None] + tl.arange(0, 64)[None, :]
    place = row - begin
    inside = (place >= 0) & (place < tl.load(numbers + SIZE))
    value = tl.load(ring + _point(row, numbers, FORM), mask=inside, other=0).to(FORM.SUM)
    if FORM.SIGNED:
        value = _negated(value, _bits(numbers, SIGN, block)[:, None], row & 63)
    first = (tl.min(block, axis=0) << 6) - begin
    value = _scaled(value, place, first, first + 64 * FORM.HIGH - 1, numbers, FORM)
    tl.store(rows + place, value, mask=inside)


@triton.jit
def _point(row, numbers, FORM: tl.constexpr):
    """The entry that each row of a block reads."""
    if FORM.MAP == "buckets":
        high = tl.min(row >> 32)
        key, next_key = _bits(numbers, KEY, high), _bits(numbers, KEY, high + 1)
        key = tl.where(row >> 32 == high, key, next_key)
        word = _mix(key, row.to(tl.uint32))
        point = _below(word, _unsigned(numbers, DOF)).to(tl.int64)
    else:
        size = tl.load(numbers + LENGTH)
        image = _permuted(tl.where(row < size, row, 0), size, numbers, 0, False, FORM)
        point = image % tl.load(numbers + DOF)
    return point


@triton.jit(do_not_specialize=["start"])
def sum_decks(out, rows, numbers, start: tl.int64, FORM: tl.constexpr):
    """Add, to a block of entries, all rows that a whole deck deals to them."""
    dof, size = tl.load(numbers + DOF), tl.load(numbers + LENGTH)
    entry = tl.program_id(0).to(tl.int64) * FORM.WIDE + tl.arange(0, FORM.WIDE)
    target = out + tl.program_id(1).to(tl.int64) * dof + entry
    total = tl.load(target, mask=entry < dof, other=0)
    share = ((size + dof - 1) // dof + tl.num_programs(1) - 1) // tl.num_programs(1)
    card = entry + share * tl.program_id(1) * dof
    for _ in range(share):
        read = (entry < dof) & (card < size)
        row = _permuted(tl.where(read, card, 0), size, numbers, 0, True, FORM)
        value = tl.load(rows + row, mask=read, other=0).to(FORM.SUM)
        if FORM.SIGNED:
            value = _signed_by_row(value, row, numbers)
        total += _scaled(value, row, size * 0, size - 1, numbers, FORM)
        card += dof
    tl.store(target, total, mask=entry < dof)


@triton.jit
def write_table(rows, ring, index, sign, numbers, FORM: tl.constexpr):
    """Maps whose entries lie in a table, of these rows alone.

    An index at the end of the ring or beyond is a row of zeros.
    """
    first = tl.program_id(0).to(tl.int64) * FORM.WIDE
    row, end = first + tl.arange(0, FORM.WIDE), tl.load(numbers + DOF)
    inside = row < tl.load(numbers + SIZE)
    entry = tl.load(index + row, mask=inside, other=0).to(tl.int64)
    value = tl.load(ring + tl.minimum(entry, end - 1), mask=inside, other=0).to(FORM.SUM)
    if FORM.SIGNED:
        value *= tl.load(sign + row, mask=inside, other=0).to(FORM.SUM)
    value *= tl.where(entry < end, 1, 0).to(FORM.SUM)
    value = _scaled(value, row, first, first + FORM.WIDE - 1, numbers, FORM)
    tl.store(rows + row, value, mask=inside)


@triton.jit(do_not_specialize=["count"])
def sum_sorted(out, rows, ordered, numbers, count: tl.int64, FORM: tl.constexpr):
    """Add rows in the order of their entries, which are many lanes wide and as many entries high.

    ``ordered`` has the ``count`` entries that are read, where the rows of each begin, where the last
    end, and the rows, as -1 - row where the sign is -1.
    """
    begins = ordered + count
    orders = begins + count + 1
    number = tl.program_id(0).to(tl.int64) * FORM.HIGH + tl.arange(0, FORM.HIGH)
    inside = number < count
    place = tl.load(begins + number, mask=inside, other=0).to(tl.int64)
    end = tl.load(begins + number + 1, mask=inside, other=0).to(tl.int64)
    place = place[:, None] + tl.arange(0, FORM.WIDE)[None, :]
    total = tl.zeros([FORM.HIGH, FORM.WIDE], FORM.SUM)
    size = tl.load(numbers + SIZE)
    while tl.max((place < end[:, None]).to(tl.int32), axis=None) > 0:
        read = place < end[:, None]
        order = tl.load(orders + place, mask=read, other=0).to(tl.int64)
        row = tl.where(order < 0, -1 - order, order)
        value = tl.load(rows + row, mask=read, other=0).to(FORM.SUM)
        value = tl.where(order < 0, -value, value)
        total += _scaled(value, row, size * 0, size - 1, numbers, FORM)
        place += FORM.WIDE
    entry = tl.load(ordered + number, mask=inside, other=0).to(tl.int64)
    old = tl.load(out + entry, mask=inside, other=0)
    tl.store(out + entry, old + tl.sum(total, axis=1), mask=inside)
