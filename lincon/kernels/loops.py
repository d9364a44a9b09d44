"""The loops that numba compiles for a CPU: rows of Ŵ from entries of W, and back.

A loop walks over some rows, and either writes them, rows[i] = ± scale · ring[index(i)], or adds
them up, ring[index(i)] += ± scale · rows[i]. ``ring`` is W or the gradient that is summed. Indices
and signs are those of the generators' `entries`, bit for bit. Every entry is added to in the order
of rows, whatever the threads, because each thread adds to entries of its own.

Each loop is a C function of one address, that of a `Call`: so it costs a microsecond to call, and
can be run by the threads of others. What it reads are

    rows, ring   contiguous numbers of one type, float32 or float64
    segments     (n, 4) float64: the first row, the one after the last, the multiplier, and the row
                 that would lie at the address of ``rows``
    numbers      uint64, what the map is; the constants below say where
    table        integers of one type: the entries of rows, or what is drawn
    signs        int8, beside a table of entries
    job          integers: the first row and the one after the last to walk over, the first entry and
                 the one after the last to add to, whether to add, and dof

They are one file because numba keeps on disk what it compiled for as long as the file of a loop is as
it was, and does not look at what the loop calls in others.
"""

import os
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import cfunc, njit, types
from numba.extending import intrinsic
from numba.np.numpy_support import carray, from_dtype

if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
    raise ImportError("NUMBA_DISABLE_JIT is set")

# Places in ``numbers``: two halves of the key of signs (0, 0 without), whether there are signs, dof,
# and the two halves of another key. Then what only some maps have.
SIGN, HAS_SIGN, DOF, KEY = 0, 2, 3, 4
TILE, TILES, PERMUTES = 6, 7, 8  # of laps
RUN, STARTS = 6, 7  # of folds: rows of a run, and the number of places where it may start
FACTOR = 6  # of projections: the bits of a factor of all entries, float64
STRATA, ROWS = 7, 8  # of strata: their number, and that of all rows
DECK = 6  # of a deck: its number of cards, and the keys of six rounds


class Call(NamedTuple):
    """What a loop is called with, 64 bits each: the job, where things lie, how threads share it.

    Attributes:
        first, last: the first row, and the one after the last, to walk over.
        low, high: the first entry, and the one after the last, to add to.
        adds: whether to add.
        dof: the width of the map.
        rows, ring, segments, numbers, table, signs: addresses.
        pieces, width, signed: the lengths of segments, table and signs.
        by_entries: whether threads share the entries; otherwise they share the rows.
        part, parts: which of equal parts of the job is done.
        thread, threads: addresses of C functions that tell the part, and how many threads there are
            for the parts; or 0.
        inner: of `halves` and `onto`, the address of the loop that they run.
        origin: of those, the address of what is added to the rows, as long as they are; or 0.
        is_bfloat: of `halves`, whether rows are bfloat16; otherwise they are float16.
    """

    first: int
    last: int
    low: int
    high: int
    adds: int
    dof: int
    rows: int
    ring: int
    segments: int
    numbers: int
    table: int
    signs: int
    pieces: int
    width: int
    signed: int
    by_entries: int = 0
    part: int = 0
    parts: int = 1
    thread: int = 0
    threads: int = 0
    inner: int = 0
    origin: int = 0
    is_bfloat: int = 0


FIRST, LAST, LOW, HIGH, ADDS, END, BASE = range(7)
"""Places in ``job``, as in a call; that of a segment has the row that would lie at ``rows[0]``."""
AT_ROWS, AT_RING, AT_SEGMENTS, AT_NUMBERS, AT_TABLE, AT_SIGNS, PIECES, WIDTH, SIGNED = range(6, 15)
BY_ENTRIES, PART, PARTS, THREAD, THREADS, INNER, ORIGIN, IS_BFLOAT = range(15, 23)
SIZE = len(Call._fields)
SEGMENT = 4 * 8
"""Bytes of a segment."""
ANY = 1 << 48
"""The length of arrays at which nothing looks. Rows may lie anywhere, so far apart as addresses are."""

LANES = 16
"""Entries that are moved at a time; the processor's own vectors may be shorter."""
BLOCK = 1024
"""Rows whose indices are computed before any is read."""
TAKEN = 1 << 14
"""Rows that are converted at a time, or to which W₀ is added."""
SLOTS = 256
"""Tiles whose places are computed before any is moved."""
WORDS = 8
"""Words that a lap draws."""

_u32, _u64 = np.uint32, np.uint64


def _compiled(function: Any = None, *, inline: bool = False) -> Any:
    """njit, without the interpreter's lock, kept on disk where there is a place for it."""
    if function is None:
        return lambda each: _compiled(each, inline=inline)
    options: dict[str, Any] = {"nogil": True, "inline": "always" if inline else "never"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package nor the home can be written to
        return njit(**options)(function)


@intrinsic
def _pointer(typing: Any, address: Any, like: Any) -> Any:
    """An address as that of numbers like ``like``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(address, like), generate


@intrinsic
def _fields(typing: Any, call: Any) -> Any:
    """A call as integers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.int64)(call), generate


@intrinsic
def _kinds(typing: Any, call: Any) -> Any:
    """A number and an integer of the types that a call's own type names."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant_null(signature.return_type)

    return call.dtype(call), generate


@intrinsic
def _told(typing: Any, function: Any) -> Any:
    """What a C function without arguments returns, by its address: an int."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), ())
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), ())

    return types.int32(function), generate


@intrinsic
def _run(typing: Any, function: Any, argument: Any) -> Any:
    """Call a C function of one address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), (arguments[1].type,))
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(function, argument), generate


@_compiled(inline=True)
def _opened(call):
    """The arrays of a call, and the job of the thread that runs."""
    fields = carray(_fields(call), (ANY,))
    number, integer = _kinds(call)
    rows = carray(_pointer(fields[AT_ROWS], number), (ANY,))
    ring = carray(_pointer(fields[AT_RING], number), (ANY,))
    segments = carray(_pointer(fields[AT_SEGMENTS], np.float64(0)), (fields[PIECES], 4))
    numbers = carray(_pointer(fields[AT_NUMBERS], _u64(0)), (ANY,))
    table = carray(_pointer(fields[AT_TABLE], integer), (fields[WIDTH],))
    signs = carray(_pointer(fields[AT_SIGNS], np.int8(0)), (fields[SIGNED],))
    return rows, ring, segments, numbers, table, signs, _own_job(fields)


@_compiled
def _own_job(fields):
    """The part of a call's job that a thread does."""
    first, last, low, high = fields[FIRST], fields[LAST], fields[LOW], fields[HIGH]
    part, parts = fields[PART], fields[PARTS]
    if fields[THREAD]:
        part, parts = np.int64(_told(fields[THREAD])), min(parts, np.int64(_told(fields[THREADS])))
    if part >= parts:  # a thread too many
        last, high = first, low
    elif fields[BY_ENTRIES]:
        low, high = _share(low, high, part, parts)
    else:
        first, last = _share(first, last, part, parts)
    return first, last, low, high, fields[ADDS], fields[END]


@_compiled(inline=True)
def _share(low, high, part, parts):
    """A part of a range, cut at multiples of 64 from its beginning."""
    size = high - low
    first = low + size * part // parts // 64 * 64
    return first, high if part + 1 == parts else low + size * (part + 1) // parts // 64 * 64


# Some entries at a time. LLVM finds no vectors in such short loops of its own accord.


def _multipliers(builder: Any, scale: Any, signs: Any, lanes: int) -> Any:
    """<lanes x scale>, negative where the bit of ``signs`` is set."""
    integer = ir.IntType(32 if scale.type == ir.FloatType() else 64)
    integers = ir.VectorType(integer, lanes)
    floats = ir.VectorType(scale.type, lanes)
    top = integer.width - 1
    word = signs if integer.width == 32 else builder.zext(signs, integer)
    to_top = ir.Constant(integers, [top - lane for lane in range(lanes)])
    mask = ir.Constant(integers, [1 << top] * lanes)
    sign = builder.and_(builder.shl(_splat(builder, word, lanes), to_top), mask)
    scales = builder.bitcast(_splat(builder, scale, lanes), integers)
    return builder.bitcast(builder.xor(sign, scales), floats)


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    vector = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(vector, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(first, vector, zeros)


def _at(builder: Any, address: Any, vector: Any) -> Any:
    return builder.inttoptr(address, vector.as_pointer())


def _scaled(builder: Any, source: Any, signs: Any, scale: Any, lanes: int) -> tuple[Any, int]:
    """± scale · source[:lanes], by its address, and the bytes of an entry."""
    factor = _multipliers(builder, scale, signs, lanes)
    size = 4 if scale.type == ir.FloatType() else 8
    entries = builder.load(_at(builder, source, factor.type), align=size)
    return builder.fmul(entries, factor), size


@intrinsic(prefer_literal=True)
def _move(typing: Any, target: Any, source: Any, signs: Any, scale: Any, lanes: Any) -> Any:
    """target[:lanes] = ± scale · source[:lanes], by their addresses."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, source, signs, scale, _ = arguments
        moved, size = _scaled(builder, source, signs, scale, lanes.literal_value)
        builder.store(moved, _at(builder, target, moved.type), align=size)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64, types.uint32, scale, lanes), generate


@intrinsic(prefer_literal=True)
def _add(typing: Any, target: Any, source: Any, signs: Any, scale: Any, lanes: Any) -> Any:
    """target[:lanes] += ± scale · source[:lanes], by their addresses."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, source, signs, scale, _ = arguments
        moved, size = _scaled(builder, source, signs, scale, lanes.literal_value)
        there = _at(builder, target, moved.type)
        total = builder.fadd(builder.load(there, align=size), moved)
        builder.store(total, there, align=size)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64, types.uint32, scale, lanes), generate


@intrinsic
def _sum(typing: Any, source: Any, like: Any) -> Any:
    """The sum of the 64 numbers at an address, by halves, in the type of ``like``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, like = arguments
        size = 4 if like.type == ir.FloatType() else 8
        address = _at(builder, source, ir.VectorType(like.type, 64))
        total, width = builder.load(address, align=size), 64
        while width > 1:
            width //= 2
            low, high = range(width), range(width, 2 * width)
            parts = [
                ir.Constant(ir.VectorType(ir.IntType(32), width), list(p)) for p in (low, high)
            ]
            halves = [builder.shuffle_vector(total, total, part) for part in parts]
            total = builder.fadd(*halves)
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return like(types.uint64, like), generate


# lincon.counter, in the same steps. What is drawn for single rows and tiles is spelt out in 32 bits:
# numba's integers have 64, with which a processor has half as many lanes.


@intrinsic
def _mix(typing: Any, low: Any, high: Any, counter: Any) -> Any:
    """`mix` of a key's halves and a counter, uint32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        low, high, counter = arguments

        def step(x: Any, shift: int, factor: int) -> Any:
            shifted = builder.lshr(x, x.type(shift))
            return builder.mul(builder.xor(x, shifted), x.type(factor))

        x = step(builder.xor(counter, low), 17, 0xED5AD4BB)
        x = step(step(builder.xor(x, high), 11, 0xAC4C1B51), 15, 0x31848BAB)
        return builder.xor(x, builder.lshr(x, x.type(14)))

    return types.uint32(types.uint32, types.uint32, types.uint32), generate


@intrinsic
def _below(typing: Any, word: Any, bound: Any) -> Any:
    """`word_below`, uint32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(64)
        word, bound = (builder.zext(argument, wide) for argument in arguments)
        product = builder.mul(word, bound)
        return builder.trunc(builder.lshr(product, wide(32)), ir.IntType(32))

    return types.uint32(types.uint32, types.uint32), generate


@intrinsic
def _left_half(typing: Any, x: Any, h: Any) -> Any:
    """x >> h of uint32 or uint64 ``x``, as uint32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, h = arguments
        shift = h if h.type == x.type else builder.zext(h, x.type)
        half = builder.lshr(x, shift)
        return half if h.type == x.type else builder.trunc(half, h.type)

    return types.uint32(x, types.uint32), generate


@intrinsic
def _joined(typing: Any, left: Any, right: Any, h: Any, like: Any) -> Any:
    """left << h | right, in the type of ``like``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *halves, like = arguments
        if like.type.width > 32:
            halves = [builder.zext(half, like.type) for half in halves]
        left, right, h = halves
        return builder.or_(builder.shl(left, h), right)

    return like(types.uint32, types.uint32, types.uint32, like), generate


@_compiled(inline=True)
def _finish(x):
    x ^= x >> _u64(29)
    x *= _u64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> _u64(32))


@_compiled(inline=True)
def _bits(first, second, counter):
    """`bits` of an int's key: the key, and what is made of it for the second half."""
    x = (_u64(counter) * _u64(0x9E3779B97F4A7C15)) ^ first
    x ^= x >> _u64(33)
    x *= _u64(0xFF51AFD7ED558CCD)
    return _finish(x ^ second)


@_compiled
def _sign_words(words, first, last, numbers):
    """The signs of blocks of 64 rows from ``first`` to ``last``."""
    low, high, block = numbers[SIGN], numbers[SIGN + 1], _u64(first)
    if numbers[HAS_SIGN]:
        for number in range(last - first + 1):
            words[number] = _bits(low, high, block + _u64(number))


@_compiled(inline=True)
def _signs(words, place):
    """The signs of rows from ``place`` on, 64 or fewer, where words[0] has that of place 0."""
    word, shift = _u64(place) >> _u64(6), _u64(place) & _u64(63)
    after = (words[word + _u64(1)] << _u64(1)) << (_u64(63) - shift)
    return (words[word] >> shift) | after


# lincon.maps.permutation.


@_compiled(inline=True)
def _half_bits(size):
    """h of the module."""
    bits = 0
    while (size - 1) >> bits:
        bits += 1
    return bits // 2


@_compiled(inline=True)
def _two_rounds(left, right, a, b, first, second):
    """Two rounds of the network; b is a power of two."""
    noise = _mix(_u32(first), _u32(first >> _u64(32)), right)
    left = _u32(left + _below(noise, a))
    left = min(left, _u32(left - a))
    noise = _mix(_u32(second), _u32(second >> _u64(32)), left)
    return left, _u32(right + _below(noise, b)) & _u32(b - _u32(1))


@_compiled(inline=True)
def _step(x, h, a, b, keys):
    left, right = _left_half(x, h), _u32(x) & _u32(b - _u32(1))
    left, right = _two_rounds(left, right, a, b, keys[0], keys[1])
    left, right = _two_rounds(left, right, a, b, keys[2], keys[3])
    left, right = _two_rounds(left, right, a, b, keys[4], keys[5])
    return _joined(left, right, h, x)


@_compiled
def _images(image, first, count, size, keys):
    """The images of first, first + 1, ... below size, of six keys, in the type of ``image``."""
    h = _half_bits(size)
    a, b, h = _u32((size + (1 << h) - 1) >> h), _u32(1 << h), _u32(h)
    integer = image.dtype.type
    x = integer(first)
    for number in range(count):
        image[number] = _step(integer(x + integer(number)), h, a, b, keys)
    for number in range(count):
        while image[number] >= size:
            image[number] = _step(image[number], h, a, b, keys)


# Maps that move runs of entries: the ring's laps, and folds.


@_compiled(inline=True)
def _stretch(rows, ring, where, words, scale, adds):
    """Move or add one contiguous run: ``where`` is its row, its entry, its length, its first sign."""
    row, entry, length, place = where
    size = _u64(rows.itemsize)
    row_address, entry_address = _u64(rows.ctypes.data), _u64(ring.ctypes.data)
    done = 0
    while done + LANES <= length:
        there = entry_address + _u64(entry + done) * size
        here = row_address + _u64(row + done) * size
        signs = _u32(_signs(words, place + done))
        if adds:
            _add(there, here, signs, scale, LANES)
        else:
            _move(here, there, signs, scale, LANES)
        done += LANES
    if done < length:
        signs = _signs(words, place + done)
        for number in range(length - done):
            sign = -scale if (signs >> _u64(number)) & _u64(1) else scale
            i, j = _u64(row + done + number), _u64(entry + done + number)
            if adds:
                ring[j] += rows[i] * sign
            else:
                rows[i] = ring[j] * sign


@_compiled(inline=True)
def _quarters(where, signs, scale, adds, lanes):
    """Move or add a tile of four times ``lanes``: the addresses of its rows and entries, the bytes of
    each, and its turn.
    """
    here, there, size, turn = where
    for quarter in range(4):
        turned = there + _u64(lanes) * size * _u64((quarter + turn) & 3)
        if adds:
            _add(turned, here, _u32(signs), scale, lanes)
        else:
            _move(here, turned, _u32(signs), scale, lanes)
        here += _u64(lanes) * size
        signs >>= _u64(lanes)


@_compiled(inline=True)
def _whole_tile(rows, ring, where, signs, scale, adds):
    """Move or add a tile of at most 64: its first row and entry, its turn, and its width."""
    row, entry, turn, width = where
    size = _u64(rows.itemsize)
    here = _u64(rows.ctypes.data) + _u64(row) * size
    there = _u64(ring.ctypes.data) + _u64(entry) * size
    if width == 64:
        _quarters((here, there, size, turn), signs, scale, adds, 16)
    elif width == 32:
        _quarters((here, there, size, turn), signs, scale, adds, 8)
    elif width == 16:
        _quarters((here, there, size, turn), signs, scale, adds, 4)
    elif width == 8:
        _quarters((here, there, size, turn), signs, scale, adds, 2)
    elif width == 4:
        _quarters((here, there, size, turn), signs, scale, adds, 1)
    else:
        _odd_tile(rows, ring, where, signs, scale, adds)


@_compiled(inline=True)
def _odd_tile(rows, ring, where, signs, scale, adds):
    """`_whole_tile` of any width."""
    row, entry, turn, width = where
    turned = turn & 1 if width == 2 else turn * max(1, width // 4) % width
    for u in range(width):
        sign = -scale if (signs >> _u64(u)) & _u64(1) else scale
        i, j = _u64(row + u), _u64(entry + turned)
        if adds:
            ring[j] += rows[i] * sign
        else:
            rows[i] = ring[j] * sign
        turned += 1
        turned = turned if turned < width else 0


@_compiled(inline=True)
def _part(segments, number, job):
    """The part of a job that lies in a segment."""
    first = max(job[FIRST], np.int64(segments[number, 0]))
    last = min(job[LAST], np.int64(segments[number, 1]))
    return first, last, job[LOW], job[HIGH], job[ADDS], job[END], np.int64(segments[number, 3])


@_compiled(inline=True)
def _clipped(rows, ring, where, words, scale, job):
    """`_stretch` of what the job adds to."""
    row, entry, length, place = where
    skipped, kept = 0, length
    if job[ADDS]:
        skipped, kept = max(0, job[LOW] - entry), min(length, job[HIGH] - entry)
    if skipped < kept:
        where = row + skipped - job[BASE], entry + skipped, kept - skipped, place + skipped
        _stretch(rows, ring, where, words, scale, job[ADDS])


@_compiled(inline=True)
def _slot(rows, ring, numbers, how, where):
    """Rows [low, high) of a slot, run by run: it is turned, and may go over the end of the ring."""
    words, scale, job = how
    row, entry, shift, width, low, high, place = where
    dof = np.int64(numbers[DOF])
    while low < high:
        turned = (low + shift) % width
        first = entry + turned if entry + turned < dof else entry + turned - dof
        length = min(high - low, width - turned, dof - first)
        _clipped(rows, ring, (row + low, first, length, place + low), words, scale, job)
        low += length


@_compiled
def _lap_slots(image, turns, tables, lap, slot, count):
    """Where ``count`` slots of a lap read, in tiles, and by how many quarters they are turned.

    Returns where the lap cuts the ring.
    """
    numbers, drawn = tables
    if len(drawn):
        first = lap * (np.int64(numbers[TILES]) + 1) + slot
        for number in range(count):
            word = drawn[first + number]
            image[number], turns[number] = word & ((1 << 30) - 1), word >> 30
        return _cut(numbers, lap)
    for number in range(count):
        image[number], turns[number] = slot + number, 0
    if not numbers[PERMUTES]:
        return 0
    low, high, tiles = numbers[KEY], numbers[KEY + 1], np.int64(numbers[TILES])
    word = _u64(lap * WORDS)
    keys = (
        _bits(low, high, word + _u64(1)),
        _bits(low, high, word + _u64(2)),
        _bits(low, high, word + _u64(3)),
        _bits(low, high, word + _u64(4)),
        _bits(low, high, word + _u64(5)),
        _bits(low, high, word + _u64(6)),
    )
    _images(image, slot, min(count, tiles - slot), tiles, keys)
    turn = _bits(low, high, word + _u64(7))
    low_turn, high_turn, first = _u32(turn), _u32(turn >> _u64(32)), _u32(slot)
    for number in range(count):
        turns[number] = _mix(low_turn, high_turn, _u32(first + _u32(number))) >> _u32(30)
    return _cut(numbers, lap)


@_compiled(inline=True)
def _cut(numbers, lap):
    """Where a lap cuts the ring."""
    word = _bits(numbers[KEY], numbers[KEY + 1], _u64(lap * WORDS))
    return np.int64((word >> _u64(1)) % numbers[DOF])


@_compiled
def draw_slots(drawn, numbers):
    """What the slots of all laps draw: where each reads, in tiles, and its turn above 30 bits."""
    slots, empty = np.int64(numbers[TILES]) + 1, np.empty(0, np.uint32)
    image, turns = np.empty(slots, np.uint32), np.empty(slots, np.uint32)
    for lap in range(len(drawn) // slots):
        _lap_slots(image, turns, (numbers, empty), lap, 0, slots)
        for slot in range(slots):
            drawn[lap * slots + slot] = np.int32(image[slot] | turns[slot] << _u32(30))


def laps(call):
    """The ring, lap after lap. Beside the numbers there is a table of what is drawn, or none."""
    rows, ring, segments, numbers, table, _, job = _opened(call)
    drawn = table.view(np.uint32)
    dof, tile, tiles = np.int64(numbers[DOF]), np.int64(numbers[TILE]), np.int64(numbers[TILES])
    most = max(1, min(SLOTS, SLOTS * 64 // tile))  # slots of a block
    image, turns = np.empty(most, np.uint32), np.empty(most, np.uint32)
    words = np.zeros(most * tile // 64 + 3, np.uint64)
    for number in range(len(segments)):
        own = _part(segments, number, job)
        row, stop = own[FIRST], own[LAST]
        scale = rows.dtype.type(segments[number, 2])
        while row < stop:
            lap = row // dof
            slot = (row - lap * dof) // tile
            count = min(most, tiles + 1 - slot)
            first = lap * dof + slot * tile
            end = min(stop, lap * dof + min(dof, (slot + count) * tile))
            count = min(count, (end - first + tile - 1) // tile)
            cut = _lap_slots(image, turns, (numbers, drawn), lap, slot, count)
            _sign_words(words, first >> 6, (end - 1) >> 6, numbers)
            block = first, slot, cut, row, end, count
            _laps_block(rows, ring, (words, image, turns, scale), numbers, own, block)
            row = end


@_compiled(inline=True)
def _laps_block(rows, ring, tables, numbers, job, block):
    words, image, turns, scale = tables
    first, slot, cut, row, end, count = block
    dof, tile, tiles = np.int64(numbers[DOF]), np.int64(numbers[TILE]), np.int64(numbers[TILES])
    low_entry, high_entry = (job[LOW], job[HIGH]) if job[ADDS] else (np.int64(0), dof)
    adds, base, place = job[ADDS], job[BASE], first & 63
    for number in range(count):
        width = tile if slot + number < tiles else dof - tiles * tile
        low, high = max(row - first, 0), min(width, end - first)
        entry = cut + np.int64(image[number]) * tile
        entry = entry - dof if entry >= dof else entry
        whole = tile <= 64 and high - low == tile
        inside = low_entry <= entry and entry + tile <= high_entry
        if whole and inside:
            where = first - base, entry, np.int64(turns[number]), tile
            _whole_tile(rows, ring, where, _signs(words, place), scale, adds)
        else:
            shift = np.int64(turns[number]) * max(1, tile // 4)
            where = first, entry, shift, width, low, high, place
            _slot(rows, ring, numbers, (words, scale, job), where)
        first += tile
        place += tile


def folds(call):
    """Runs from places of their own, each of which may go over the end of the array."""
    rows, ring, segments, numbers, _, _, job = _opened(call)
    dof, run_length = np.int64(numbers[DOF]), np.int64(numbers[RUN])
    words = np.zeros(BLOCK // 64 + 3, np.uint64)
    for number in range(len(segments)):
        own = _part(segments, number, job)
        row, stop = own[FIRST], own[LAST]
        scale = rows.dtype.type(segments[number, 2])
        while row < stop:
            run = row // run_length
            drawn = _bits(numbers[KEY], numbers[KEY + 1], run) >> _u64(32)
            start = np.int64((drawn * numbers[STARTS]) >> _u64(32))
            entry = (start + row - run * run_length) % dof
            length = min(BLOCK, min(stop, (run + 1) * run_length) - row, dof - entry)
            _sign_words(words, row >> 6, (row + length - 1) >> 6, numbers)
            _clipped(rows, ring, (row, entry, length, row & 63), words, scale, own)
            row += length


# Maps that read one entry at a time.


def buckets(call):
    """Hash and random: each row's entry is drawn."""
    rows, ring, segments, numbers, _, _, job = _opened(call)
    index = np.empty(BLOCK, np.uint32)
    words = np.zeros(BLOCK // 64 + 3, np.uint64)
    for number in range(len(segments)):
        own = _part(segments, number, job)
        row, stop = own[FIRST], own[LAST]
        scale = rows.dtype.type(segments[number, 2])
        while row < stop:
            length = min(BLOCK, stop - row, (1 << 32) - (row & ((1 << 32) - 1)))
            key = _bits(numbers[KEY], numbers[KEY + 1], row >> 32)
            low, high, first = _u32(key), _u32(key >> _u64(32)), _u32(row & ((1 << 32) - 1))
            dof = _u32(numbers[DOF])
            for place in range(length):
                index[place] = _below(_mix(low, high, _u32(first + _u32(place))), dof)
            _sign_words(words, row >> 6, (row + length - 1) >> 6, numbers)
            _points(rows, ring, index, words, (row, length, scale), own)
            row += length


def decks(call):
    """The authors' deck of cards: a permutation of all rows."""
    rows, ring, segments, numbers, _, _, job = _opened(call)
    image, index = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint64)
    words = np.zeros(BLOCK // 64 + 3, np.uint64)
    keys = numbers[DECK + 1], numbers[DECK + 2], numbers[DECK + 3]
    more_keys = numbers[DECK + 4], numbers[DECK + 5], numbers[DECK + 6]
    for number in range(len(segments)):
        own = _part(segments, number, job)
        row, stop = own[FIRST], own[LAST]
        scale = rows.dtype.type(segments[number, 2])
        while row < stop:
            length = min(BLOCK, stop - row)
            _images(image, row, length, np.int64(numbers[DECK]), keys + more_keys)
            for place in range(length):
                index[place] = image[place] % numbers[DOF]
            _sign_words(words, row >> 6, (row + length - 1) >> 6, numbers)
            _points(rows, ring, index, words, (row, length, scale), own)
            row += length


@_compiled(inline=True)
def _points(rows, ring, index, words, where, job):
    """Move or add rows one by one."""
    row, length, scale = where
    first, skipped = row - job[BASE], row & 63
    low, high = _u64(job[LOW]), _u64(job[HIGH])
    if not job[ADDS] or high - low == _u64(job[END]):
        for place in range(length):
            _point(rows, ring, index, words, (first, skipped, place, scale), job)
        return
    # A thread's own entries come in no order that a processor could guess: they are chosen first.
    chosen, count = np.empty(BLOCK, np.uint32), 0
    for place in range(length):
        chosen[_u64(count)], there = place, _u64(index[_u64(place)])
        count += np.int64(low <= there) & np.int64(there < high)
    for number in range(count):
        place = np.int64(chosen[_u64(number)])
        _point(rows, ring, index, words, (first, skipped, place, scale), job)


@_compiled(inline=True)
def _point(rows, ring, index, words, where, job):
    first, skipped, place, scale = where
    here, there, bit = _u64(first + place), _u64(index[_u64(place)]), _u64(skipped + place)
    negative = (words[bit >> _u64(6)] >> (bit & _u64(63))) & _u64(1)
    sign = -scale if negative else scale
    if job[ADDS]:
        ring[there] += rows[here] * sign
    else:
        rows[here] = ring[there] * sign


def tabled(call):
    """Maps whose entries lie in a table; ``sign`` is int8, or empty where all are +1.

    An index at the end of the ring or beyond is a row of zeros.
    """
    rows, ring, segments, _, index, sign, job = _opened(call)
    low, high, end = job[LOW], job[HIGH], job[END]
    for number in range(len(segments)):
        own = _part(segments, number, job)
        row, stop = own[FIRST], own[LAST]
        scale = rows.dtype.type(segments[number, 2])
        for place in range(row, stop):
            here, there = _u64(place - own[BASE]), np.int64(index[_u64(place)])
            factor = scale
            if len(sign):
                factor = scale * rows.dtype.type(sign[_u64(place)])
            if there >= end:
                there, factor = end - 1, rows.dtype.type(0)
            if not own[ADDS]:
                rows[here] = ring[_u64(there)] * factor
            elif low <= there and there < high:
                ring[_u64(there)] += rows[here] * factor


# Maps that read every entry.


@_compiled(inline=True)
def _add_signed(total, here, signs, scale):
    """total[:64] += ± scale times the 64 numbers at the address ``here``."""
    size, there = _u64(total.itemsize) * _u64(LANES), _u64(total.ctypes.data)
    for _ in range(64 // LANES):
        _add(there, here, _u32(signs), scale, LANES)
        there, here, signs = there + size, here + size, signs >> _u64(LANES)


def rademacher(call):
    """Every row reads all entries, with a sign each: 64 columns share a word."""
    rows, ring, segments, numbers, _, _, job = _opened(call)
    factor = numbers.view(np.float64)[FACTOR]
    for number in range(len(segments)):
        own = _part(segments, number, job)
        first, stop = own[FIRST], own[LAST]
        scale = rows.dtype.type(segments[number, 2] * factor)
        if own[ADDS]:
            _add_rademacher(rows, ring, (first, stop, scale), numbers, own)
        else:
            _write_rademacher(rows, ring, (first, stop, scale), numbers, own)


@_compiled
def _write_rademacher(rows, ring, where, numbers, job):
    first, stop, scale = where
    low, high, dof = numbers[KEY], numbers[KEY + 1], np.int64(numbers[DOF])
    words, one = (dof + 63) // 64, rows.dtype.type(1)
    last, total = np.zeros(64, rows.dtype), np.zeros(64, rows.dtype)
    for column in range(dof - (words - 1) * 64):
        last[column] = ring[(words - 1) * 64 + column]
    size = _u64(64) * _u64(rows.itemsize)
    for row in range(first, stop):
        total[:] = 0
        counter, there = _u64(row) * _u64(words), _u64(ring.ctypes.data)
        for _ in range(words - 1):
            _add_signed(total, there, _bits(low, high, counter), one)
            counter, there = counter + _u64(1), there + size
        _add_signed(total, _u64(last.ctypes.data), _bits(low, high, counter), one)
        rows[_u64(row - job[BASE])] = _sum(_u64(total.ctypes.data), scale) * scale


@_compiled
def _add_rademacher(rows, ring, where, numbers, job):
    first, stop, scale = where
    low, high, dof = numbers[KEY], numbers[KEY + 1], np.int64(numbers[DOF])
    words = (dof + 63) // 64
    ones, total = np.ones(64, rows.dtype), np.empty(64, rows.dtype)
    here = _u64(ones.ctypes.data)
    for block in range(first, stop, BLOCK):  # sums of sums, for their rounding
        for word in range(job[LOW] // 64, (job[HIGH] + 63) // 64):
            total[:] = 0
            for row in range(block, min(stop, block + BLOCK)):
                value = rows[_u64(row - job[BASE])] * scale
                signs = _bits(low, high, _u64(row) * _u64(words) + _u64(word))
                _add_signed(total, here, signs, value)
            for column in range(64):
                entry = word * 64 + column
                if job[LOW] <= entry and entry < job[HIGH]:
                    ring[_u64(entry)] += total[column]


# Maps with some nonzeros a row.


def strata(call):
    """Every column has one nonzero ±1 in each stratum of rows.

    Beside the numbers there is a table, empty or of what `_drawn` makes of all strata.
    """
    rows, ring, segments, numbers, drawn, _, job = _opened(call)
    factor, height = numbers.view(np.float64)[FACTOR], np.int64(numbers[ROWS])
    count = np.int64(numbers[STRATA])
    for number in range(len(segments)):
        own = _part(segments, number, job)
        first, stop = own[FIRST], own[LAST]
        scale = rows.dtype.type(segments[number, 2] * factor)
        if first >= stop:
            continue
        if not own[ADDS]:
            rows[first - own[BASE] : stop - own[BASE]] = 0
        low, high = first * count // height, -(-stop * count // height)
        for stratum in range(max(0, low - 1), min(count, high + 1)):
            where = stratum, first, stop, scale
            _stratum(rows, ring, where, (numbers, drawn.view(np.uint32)), own)
        if not own[ADDS]:
            rows[first - own[BASE] : stop - own[BASE]] *= scale


@_compiled(inline=True)
def _stratum(rows, ring, where, tables, job):
    """The part of a stratum that lies in rows [first, stop)."""
    stratum, first, stop, scale = where
    numbers, table = tables
    count, height, dof = np.int64(numbers[STRATA]), np.int64(numbers[ROWS]), np.int64(numbers[DOF])
    start = stratum * height // count
    wide = (stratum + 1) * height // count - start
    words = np.empty(BLOCK, np.uint32)
    low, high, offset = _u64(first - start), _u64(stop - first), _u64(first - job[BASE])
    for block in range(job[LOW], job[HIGH], BLOCK):
        length, counter = min(BLOCK, job[HIGH] - block), stratum * dof + block
        if len(table):
            words = table[counter : counter + length]
        else:
            _drawn(words, length, counter, wide, numbers)
        for column in range(length):
            word, entry = words[_u64(column)], _u64(block + column)
            place = _u64(word >> _u32(1)) - low  # wraps where the row is before the first
            if place >= high:
                continue
            if job[ADDS]:
                value = rows[place + offset] * scale
                ring[entry] += -value if word & _u32(1) else value
            else:
                value = ring[entry]
                rows[place + offset] += -value if word & _u32(1) else value


@_compiled
def _drawn(words, length, counter, wide, numbers):
    """Twice the place within a stratum ``wide`` rows high, and one more for -1, of some columns."""
    low, high = numbers[KEY], numbers[KEY + 1]
    for column in range(length):
        word = _bits(low, high, _u64(counter) + _u64(column))
        place = ((word >> _u64(32)) * _u64(wide)) >> _u64(32)
        words[column] = _u32((place << _u64(1)) | (word & _u64(1)))


# Rows of 16 bits, and a W₀ that is added.


@intrinsic
def _bits_of(typing: Any, number: Any) -> Any:
    """The bits of a float32, uint32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@intrinsic
def _number_of(typing: Any, bits: Any) -> Any:
    """The float32 of some bits, uint32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@_compiled(inline=True)
def _wide(half, is_bfloat):
    """The float32 of 16 bits. By integers: a processor may lack the instruction for float16."""
    bits = _u32(half)
    if is_bfloat:
        return _number_of(_u32(bits << _u32(16)))
    sign, rest = _u32((bits & _u32(0x8000)) << _u32(16)), _u32((bits & _u32(0x7FFF)) << _u32(13))
    scaled = _bits_of(_number_of(rest) * np.float32(2.0**112))  # the exponents begin elsewhere
    infinite = _u32(0x7F800000) if rest >= _u32(0x7C00 << 13) else _u32(0)
    return _number_of(_u32(sign | scaled | infinite))


@_compiled(inline=True)
def _narrow(number, is_bfloat):
    """The 16 bits nearest to a float32, of two the even ones."""
    bits = _bits_of(number)
    sign, rest = _u32(bits & _u32(0x80000000)), _u32(bits & _u32(0x7FFFFFFF))
    if is_bfloat:
        even = _u32((rest >> _u32(16)) & _u32(1))
        nearest = _u32(_u32(rest + even + _u32(0x7FFF)) >> _u32(16))
        found = _u32(0x7FC0) if rest > _u32(0x7F800000) else nearest
        return np.uint16(_u32(sign >> _u32(16)) | found)
    even = _u32((rest >> _u32(13)) & _u32(1))
    normal = _u32(_u32(rest + even + _u32(0xFFF) - _u32(112 << 23)) >> _u32(13))
    # Below the normal numbers a sum with 1/2 is rounded at the right place.
    small = _u32(_bits_of(_number_of(rest) + np.float32(0.5)) - _u32(0x3F000000))
    found = small if rest < _u32(113 << 23) else normal
    found = _u32(0x7C00) if rest >= _u32(143 << 23) else min(found, _u32(0x7C00))
    found = _u32(0x7E00) if rest > _u32(0x7F800000) else found
    return np.uint16(_u32(sign >> _u32(16)) | found)


@_compiled
def _widen(wide, rows, is_bfloat):
    """wide[:] = rows"""
    for place in range(len(wide)):
        wide[place] = _wide(rows[place], is_bfloat)


@_compiled
def _narrow_and_add(rows, wide, origin, is_bfloat):
    """rows[:] = wide + origin, rounded before it is added, and after. Without one it is empty."""
    for place in range(len(wide)):
        rows[place] = _narrow(wide[place], is_bfloat)
    for place in range(len(origin)):
        total = _wide(rows[place], is_bfloat) + _wide(origin[place], is_bfloat)
        rows[place] = _narrow(total, is_bfloat)


@_compiled
def _add_to(rows, origin):
    for place in range(len(rows)):
        rows[place] += origin[place]


@_compiled(inline=True)
def _inner(call):
    """What `halves` and `onto` read: the segments, the thread's job, and a call of another loop."""
    _, _, segments, _, _, _, job = _opened(call)
    inner = carray(_fields(call), (SIZE,)).copy()
    inner[LOW], inner[HIGH], inner[PIECES] = job[LOW], job[HIGH], 1
    inner[BY_ENTRIES], inner[PART], inner[PARTS], inner[THREAD] = 0, 0, 1, 0
    return segments, job, inner


def halves(call):
    """Another loop, on rows of 16 bits: some at a time are converted, while they are in the cache."""
    segments, job, inner = _inner(call)
    given, at_segments = inner[AT_ROWS], inner[AT_SEGMENTS]
    wide, is_bfloat = np.empty(TAKEN, np.float32), inner[IS_BFLOAT] != 0
    for number in range(len(segments)):
        own = _part(segments, number, job)
        inner[AT_SEGMENTS] = at_segments + number * SEGMENT
        for first in range(own[FIRST], own[LAST], TAKEN):
            last = min(first + TAKEN, own[LAST])
            here, some = first - own[BASE], wide[: last - first]
            rows = carray(_pointer(given + here * 2, np.uint16(0)), (len(some),))
            inner[FIRST], inner[LAST] = first, last
            inner[AT_ROWS] = np.int64(wide.ctypes.data) - here * wide.itemsize
            if own[ADDS]:
                _widen(some, rows, is_bfloat)
            _run(inner[INNER], inner.ctypes.data)
            if not own[ADDS]:
                added = len(some) if inner[ORIGIN] else 0
                origin = carray(_pointer(inner[ORIGIN] + here * 2, np.uint16(0)), (added,))
                _narrow_and_add(rows, some, origin, is_bfloat)


def onto(call):
    """Another loop that writes rows; to some at a time W₀ is added, while they are in the cache."""
    segments, job, inner = _inner(call)
    kind, _ = _kinds(call)
    size = carray(_pointer(inner[AT_ROWS], kind), (0,)).itemsize
    at_segments = inner[AT_SEGMENTS]
    for number in range(len(segments)):
        own = _part(segments, number, job)
        inner[AT_SEGMENTS] = at_segments + number * SEGMENT
        for first in range(own[FIRST], own[LAST], TAKEN):
            last = min(first + TAKEN, own[LAST])
            inner[FIRST], inner[LAST] = first, last
            _run(inner[INNER], inner.ctypes.data)
            here = (first - own[BASE]) * size
            rows = carray(_pointer(inner[AT_ROWS] + here, kind), (last - first,))
            _add_to(rows, carray(_pointer(inner[ORIGIN] + here, kind), (last - first,)))


_LOOPS = laps, folds, buckets, decks, tabled, rademacher, strata, halves, onto
LOOPS = {loop.__name__: loop for loop in _LOOPS}


@cache
def loop_for(name: str, number: np.dtype, integer: np.dtype) -> Any:
    """A loop for numbers and a table of some types.

    Its ``address`` is that of the C function, and its ``ctypes`` a function of the bytes of a `Call`,
    which does not hold the interpreter's lock.
    """
    kinds = types.Tuple((from_dtype(number), from_dtype(integer)))
    signature = types.void(types.CPointer(kinds))
    try:
        compiled = cfunc(signature, cache=True)(LOOPS[name])
    except RuntimeError:  # neither the package nor the home can be written to
        compiled = cfunc(signature)(LOOPS[name])
    return compiled
