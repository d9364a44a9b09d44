"""The kernel of CUDA devices: the loops that Triton compiles, and how each is launched.

A lap reads every entry once, so its adjoint gathers: each entry finds its own row by the inverse of
the lap. So does a whole deck. The rows of hash, random, folds in chunks, tables and parts of a deck
are sorted by entry at their first adjoint instead. What that makes is kept, 4 bytes a row and up to
8 for each entry that is read, until the map is gone or `lincon.kernels.release`.

Sums are float32, or float64 where the result is. Their order depends on the sizes alone: no sum is
atomic.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import triton.language as tl
from torch import Tensor

from lincon.counter import halves
from lincon.errors import LinconError
from lincon.kernels import Loop, gpu_loops
from lincon.kernels.gpu_loops import Form
from lincon.maps.permutation import radix
from lincon.maps.piece import Piece
from lincon.maps.segments import Segments
from lincon.shapes import Float, Int

if TYPE_CHECKING:
    from lincon.generators.one_nonzero import OneNonzero

BLOCK = 1024
"""Rows that a program writes at a time."""
SLOTS, WIDE = 128, 16
"""Slots of laps that a program writes, a slot for each of its threads, and rows of each at a time."""
ENTRIES = 1024
"""Entries that a program sums."""
PROGRAMS = 1024
"""Programs that laps are shared out to if there are few entries."""
SHARE = 8
"""The fewest laps of a share: up to twice as many are summed in the order of rows."""
LANES = 128
"""Rows of an entry that are summed at a time, if it has as many."""
SORTED = 1 << 28
"""Rows that are sorted at a time, in 28 bytes each."""
NARROW = 1 << 30
"""Places in a lap below this have 32 bits."""
NUMBERS = 64
"""The number of segmentations whose numbers are kept for a map."""


@dataclass(frozen=True)
class Sorted:
    """Rows by the entries they read: see `gpu_loops.sum_sorted`.

    Attributes:
        ordered: int32, or int64 where that is too small.
        count: the number of entries that are read.
    """

    ordered: Int[Tensor, " n"]
    count: int


@dataclass
class Kept:
    """What is kept for a map.

    Attributes:
        tables: index and sign of a table that lies elsewhere, by device.
        numbers: what loops read, by device and segments.
        sorted: rows by entry, by device, first row and the one after the last.
    """

    tables: dict[torch.device, tuple[Tensor, Tensor | None]] = field(default_factory=dict)
    numbers: dict[tuple[torch.device, Segments], Tensor] = field(default_factory=dict)
    sorted: dict[tuple[torch.device, int, int], Sorted] = field(default_factory=dict)


_kept: WeakKeyDictionary[Loop, Kept] = WeakKeyDictionary()


def release() -> None:
    """Let go of all that is kept. It is made again where it is needed."""
    _kept.clear()


def kept_for(loop: Loop) -> Kept | None:
    """What is kept for a map, if anything is."""
    return _kept.get(loop)


def check(device: torch.device) -> None:
    """Raise LinconError unless every loop makes the right numbers on a device.

    They are integers, of which no sum is rounded: not a bit may differ. At the first use on a
    machine the loops are compiled for it.
    """
    from lincon.generators import Codebook, Fold, Hash, Ring  # which need kernels

    rows, dof = 5_003, 700
    for generator in (
        Ring(rows, dof, tile=64),
        Ring(rows, dof, tile=64, permute=False),
        Ring(rows, dof, order="deck"),
        Hash(rows, dof),
        Fold(rows, dof),
        Fold(rows, dof, chunk=33),
        Codebook(rows, dof, index=torch.arange(rows) * 7919 % (dof + 1)),
    ):
        for start in (0, rows - 500):
            if not _is_right(generator, start, device):
                raise LinconError(f"the loop of {generator!r} makes wrong numbers")


def _is_right(generator: "OneNonzero", start: int, device: torch.device) -> bool:
    """Whether rows from ``start`` on are those of `entries`, and so is their adjoint."""
    loop = generator.loop()
    assert loop is not None
    rows = torch.arange(start, generator.rows)
    index, sign = generator.entries(rows)
    factor = torch.ones_like(rows) if sign is None else sign.long()
    free, half = torch.arange(1, loop.dof + 1), len(rows) // 3
    scale = torch.where(torch.arange(len(rows)) < half, 2, 3) * factor
    total = torch.zeros_like(free).index_add_(0, index, rows % 89 * scale)
    segments = Segments([(0, half, 2.0), (half, len(rows), 3.0)])
    out, sums = torch.empty(len(rows), device=device), torch.zeros(loop.dof, device=device)
    write(loop, out, free.float().to(device), start, segments)
    accumulate(loop, sums, [Piece(start, (rows % 89).float().to(device), segments)])
    right = torch.equal(out.cpu().long(), free[index] * scale)
    return right and torch.equal(sums.cpu().long(), total)


def write(
    loop: Loop,
    out: Float[Tensor, " n"],
    free: Float[Tensor, " dof"],
    start: int,
    segments: Segments,
    origin: Float[Tensor, " n"] | None = None,
) -> None:
    """See `lincon.kernels.Kernel`."""
    if not len(out):
        return
    form, numbers = _form(loop, out, segments), _numbers(loop, out.device, segments)
    arrays = out, free.resolve_neg().contiguous()
    if loop.index is not None:
        index, sign = _table(loop, out.device, start, start + len(out))
        form = replace(form, SIGNED=sign is not None, WIDE=BLOCK)
        table = index, index if sign is None else sign
        _launch(gpu_loops.write_table, _parts(len(out), BLOCK), *arrays, *table, numbers, form)
    elif _has_laps(form):
        _walk(arrays, numbers, (start, start, start + len(out)), form, loop)
    else:
        form = replace(form, HIGH=BLOCK // 64)
        blocks = _parts(start % 64 + len(out), BLOCK)
        _launch(gpu_loops.write_points, blocks, *arrays, numbers, start, form)
    if origin is not None:
        out += origin


def accumulate(loop: Loop, out: Float[Tensor, " dof"], pieces: Sequence[Piece]) -> None:
    """See `lincon.kernels.Kernel`."""
    for piece in pieces:
        if len(piece.rows):
            _accumulate(loop, out, piece)


def _accumulate(loop: Loop, out: Tensor, piece: Piece) -> None:
    start, rows, segments = piece
    grad = rows.resolve_neg().contiguous()
    form = _form(loop, out, segments)
    length = _length(loop)
    first, last = start // length, (start + len(grad) - 1) // length
    if form.MAP == "decks" and (start, len(grad)) == (0, length):
        form = replace(form, WIDE=ENTRIES)
        shares = -(-length // loop.dof)
        _sum(gpu_loops.sum_decks, (loop, out, grad, 0, segments), form, shares)
    elif not _has_laps(form) or length < loop.dof:
        _add_sorted(loop, out, grad, start, segments)
    elif last - first < 2:  # a part of the entries is read: no need to go through all
        numbers = _numbers(loop, out.device, segments)
        form = replace(form, ADDS=True)
        for lap in range(first, last + 1):
            low, high = max(start, lap * length), min(start + len(grad), (lap + 1) * length)
            _walk((grad, out), numbers, (start, low, high), form, loop)
    else:
        form = replace(form, WIDE=ENTRIES, HIGH=_power(ENTRIES // form.TILE + 3))
        _sum(gpu_loops.sum_laps, (loop, out, grad, start, segments), form, last + 1 - first)


def _walk(
    arrays: tuple[Tensor, Tensor],
    numbers: Tensor,
    rows: tuple[int, int, int],
    form: Form,
    loop: Loop,
) -> None:
    """Launch `walk_laps` for all slots of the rows [low, high), where rows is (start, low, high)."""
    start, low, high = rows
    wide = min(_power(form.TILE), WIDE)
    form = replace(form, WIDE=wide, HIGH=max(SLOTS, BLOCK // wide))
    first, last = _slot(loop, form, low), _slot(loop, form, high - 1)
    programs = _parts(last + 1 - first, form.HIGH) * _parts(form.TILE, gpu_loops.SPAN.value)
    _launch(gpu_loops.walk_laps, programs, *arrays, numbers, start, first, form)


def _sum(function: Any, what: tuple[Any, ...], form: Form, laps: int) -> None:
    """Launch a loop that sums laps, in shares if entries are few, whose sums are added in turn."""
    loop, out, grad, start, segments = what
    blocks = _parts(loop.dof, form.WIDE)
    shares = max(1, min(laps // SHARE, PROGRAMS // blocks))
    total = out if shares == 1 else out.new_zeros(shares, loop.dof)
    numbers = _numbers(loop, out.device, segments)
    _launch(function, (blocks, shares), total, grad, numbers, start, form)
    if shares > 1:
        out += total.sum(0)


def _add_sorted(loop: Loop, out: Tensor, grad: Tensor, start: int, segments: Segments) -> None:
    """Add rows in the order of their entries, `SORTED` of them at a time."""
    if len(grad) > SORTED:
        for low in range(0, len(grad), SORTED):
            high = min(low + SORTED, len(grad))
            inside = [
                (max(first, low) - low, min(last, high) - low, scale)
                for first, last, scale in segments
                if first < high and last > low
            ]
            _add_sorted(loop, out, grad[low:high], start + low, Segments(inside))
        return
    order = _sorted(loop, out.device, start, start + len(grad))
    if not order.count:
        return
    lanes = min(LANES, _power(-(-len(grad) // order.count)))
    form = replace(_form(loop, out, segments), WIDE=lanes, HIGH=ENTRIES // lanes)
    numbers = _numbers(loop, out.device, segments)
    programs = _parts(order.count, form.HIGH)
    arrays = out, grad, order.ordered, numbers
    _launch(gpu_loops.sum_sorted, programs, *arrays, order.count, form)


def _sorted(loop: Loop, device: torch.device, start: int, stop: int) -> Sorted:
    """Rows [start, stop) by entry. Those that overlap with others are kept instead of them."""
    kept = _kept.setdefault(loop, Kept()).sorted
    if (device, start, stop) not in kept:
        for other in list(kept):
            if other[0] == device and other[1] < stop and start < other[2]:
                kept.pop(other, None)
        with torch.inference_mode(False):
            kept[device, start, stop] = _sort(loop, device, start, stop)
    return kept[device, start, stop]


def _sort(loop: Loop, device: torch.device, start: int, stop: int) -> Sorted:
    rows = stop - start
    integer = torch.int32 if max(rows + 1, loop.dof) < 1 << 31 else torch.int64
    if loop.index is not None:
        index, sign = _table(loop, device, start, stop)
    else:  # unpack 1, 2, 3, ...: that tells which entries are read, and how
        entries = torch.arange(1, loop.dof + 1, dtype=torch.float64, device=device)
        read = torch.empty(rows, dtype=torch.float64, device=device)
        write(loop, read, entries, start, Segments.plain(rows))
        index, sign = read.abs().to(torch.int64).sub_(1), read.sign().to(torch.int8)
    ordered, order = torch.sort(index, stable=True)
    used = int((ordered < loop.dof).sum())  # the others are rows of zeros
    ordered, order = ordered[:used], order[:used]
    if sign is not None:
        signs = sign[order].long()
        order = torch.where(signs < 0, -1 - order, order)
        if int(signs.abs().min()) != 1 or int(signs.abs().max()) != 1:  # as often as it counts
            order, ordered = (each.repeat_interleave(signs.abs()) for each in (order, ordered))
    places, counts = torch.unique_consecutive(ordered, return_counts=True)
    begins = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    joined = torch.cat([each.to(integer) for each in (places, begins, order)])
    return Sorted(joined, len(places))


def _table(loop: Loop, device: torch.device, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
    """Index and sign of rows [start, stop) of a table, on a device."""
    kept = _kept.setdefault(loop, Kept()).tables
    if device not in kept:
        assert loop.index is not None
        sign = None if loop.sign is None else loop.sign.to(device)
        kept[device] = loop.index.to(device), sign
    index, sign = kept[device]
    return index[start:stop], None if sign is None else sign[start:stop]


def _form(loop: Loop, like: Tensor, segments: Segments) -> Form:
    """What is fixed about a map and its sums, in the dtype of ``like`` or a wider one."""
    name, tile = loop.name, 1
    if loop.name == "laps":
        tile, _, permutes = loop.more
        name = "ring" if permutes else "sequence"
    if name == "sequence":
        tile = min(64, loop.dof)
    elif loop.name == "folds":
        name, tile = "fold", min(64, loop.more[0])
    return Form(
        MAP=name,
        SIGNED=loop.sign_key is not None,
        SCALED=len(segments) > 1,
        SUM=tl.float64 if like.dtype == torch.float64 else tl.float32,
        TILE=tile,
        INDEX=tl.int32 if max(loop.dof, _length(loop)) < NARROW or not tile else tl.int64,
    )


def _has_laps(form: Form) -> bool:
    return form.MAP in ("ring", "fold", "sequence")


def _length(loop: Loop) -> int:
    """Rows of a lap, or of a whole deck."""
    return loop.more[0] if loop.name in ("folds", "decks") else loop.dof


def _slot(loop: Loop, form: Form, row: int) -> int:
    """The number of the slot in which a row lies, over all laps."""
    lap, place = divmod(row, _length(loop))
    return lap * (_length(loop) // form.TILE + 1) + place // form.TILE


def _numbers(loop: Loop, device: torch.device, segments: Segments) -> Int[Tensor, " n"]:
    """What loops read: see the constants of `gpu_loops`."""
    kept = _kept.setdefault(loop, Kept()).numbers
    if (numbers := kept.get((device, segments))) is None:
        if len(kept) == NUMBERS:
            kept.clear()
        words = np.array([number % (1 << 64) for number in _words(loop, segments)], np.uint64)
        with torch.inference_mode(False):
            numbers = torch.from_numpy(words.view(np.int64)).to(device)
        kept[device, segments] = numbers
    return numbers


def _words(loop: Loop, segments: Segments) -> list[int]:
    tile = _form(loop, torch.empty(0), segments).TILE
    tiles, starts = _length(loop) // tile, loop.more[1] if loop.name == "folds" else 0
    rounds = loop.more[1:] if loop.name == "decks" else (0,) * 6
    permuted = _length(loop) if loop.name == "decks" else tiles
    signs = (0, 0) if loop.sign_key is None else halves(loop.sign_key)
    count = len(segments)
    step = _power(count + 1) // 2
    scales = np.array([scale for *_, scale in segments], np.float64).view(np.int64).tolist()
    return [
        *(*signs, loop.dof, *halves(loop.key), _length(loop), tiles, starts),
        *(*radix(permuted), *rounds, segments[-1][1], count, step),
        *(*(low for low, *_ in segments), *scales),
    ]


def _power(number: int) -> int:
    """The smallest power of two that is no smaller."""
    return 1 << (number - 1).bit_length()


def _parts(size: int, block: int) -> int:
    return -(-size // block)


def _launch(function: Any, programs: int | tuple[int, int], *arguments: Any) -> None:
    """Run a loop. A product is never fused with a sum, which would round differently."""
    grid = programs if isinstance(programs, tuple) else (programs,)
    with torch.cuda.device_of(arguments[0]):
        function[grid](*arguments, enable_fp_fusion=False)
