"""Read a model file without lincon or torch: NumPy and Python's own library are enough.

    python examples/decoder.py model.safetensors

It follows docs/format.md and was written from it. It checks a file, decodes what is coded, and makes
the weights of `ring`, `hash` and `random`.
"""

import base64
import hashlib
import json
import math
import statistics
import struct
import sys
import zlib

import numpy as np

DTYPES = {
    "F64": ("float64", "<f8"),
    "F32": ("float32", "<f4"),
    "F16": ("float16", "<f2"),
    "BF16": ("bfloat16", "<u2"),
    "I64": ("int64", "<i8"),
    "I32": ("int32", "<i4"),
    "I16": ("int16", "<i2"),
    "I8": ("int8", "|i1"),
    "U8": ("uint8", "|u1"),
    "BOOL": ("bool", "|b1"),
}
MASK = (1 << 64) - 1
U = np.uint64


# The container.


def read(data):
    """The header (JSON), and the tensors by key with the names of their types, of a file's bytes."""
    (length,) = struct.unpack("<Q", data[:8])
    listing = json.loads(data[8 : 8 + length])
    metadata = listing.pop("__metadata__")
    tensors, types = {}, {}
    for name, entry in listing.items():
        types[name], numpy_type = DTYPES[entry["dtype"]]
        low, high = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(data[low:high], numpy_type).reshape(entry["shape"])
    text = header_text(metadata["lincon"])
    if json.loads(text)["sha256"] != checksum(text, tensors, types):
        raise ValueError("the file was altered")
    return json.loads(text), tensors


def header_text(entry):
    outer = json.loads(entry)
    if "deflated" not in outer:
        return entry
    return zlib.decompress(base64.b85decode(outer["deflated"]), -15).decode()


def checksum(text, tensors, types):
    sealed = text[: text.rindex(',"sha256":')] + "}"
    sha = hashlib.sha256(sealed.encode())
    for name in sorted(tensors):
        shape = tuple(tensors[name].shape)
        sha.update(f"\n{name} torch.{types[name]} {shape}\n".encode())
        sha.update(tensors[name].tobytes())
    return sha.hexdigest()


# Coded tensors.


def decoded(header, tensors):
    """All tensors, with those that ``header["coded"]`` lists decoded."""
    coded = header.get("coded", {})
    return {
        name: decode(tensor, coded[name]) if name in coded else tensor
        for name, tensor in tensors.items()
    }


def decode(coded, description):
    count = math.prod(description["shape"])
    way = {"bits": from_bits, "huffman": from_huffman, "gaps": from_gaps}[description["way"]]
    symbols = way(coded.tobytes(), count, description["width"])
    values = symbols.astype(np.int64) + description["low"]
    return values.astype(description["dtype"]).reshape(description["shape"])


def from_bits(coded, count, width):
    bits = np.unpackbits(np.frombuffer(coded, np.uint8))[: count * width].reshape(count, width)
    return (bits.astype(np.int64) << np.arange(width)).sum(1)


def from_huffman(coded, count, width):
    return np.frombuffer(zlib.decompress(coded, -15), np.uint8)


def from_gaps(coded, count, width):
    places, _, first = struct.unpack("<QQQ", coded[:24])
    common, stream = coded[24], np.frombuffer(zlib.decompress(coded[25 : 25 + first], -15), "u1")
    rest = coded[25 + first :]
    others = from_huffman(rest, places, width) if rest else [1 - common] * places
    symbols, place, number = np.full(count, common), -1, 0
    for gap in stream.tolist():
        place += gap if gap == 255 else gap + 1
        if gap < 255:
            symbols[place] = others[number]
            number += 1
    return symbols


# Random bits.


def scramble(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def key(seed, *streams):
    mixed = scramble(seed & MASK)
    while seed not in (0, -1):
        seed >>= 64
        mixed = scramble(mixed ^ scramble((seed & MASK) ^ 0x5851F42D4C957F2D))
    for stream in streams:
        mixed = scramble(mixed ^ scramble(stream ^ 0x14057B7EF767814F))
    return mixed


def bits(of_key, counter):
    x = np.asarray(counter, np.int64).astype(U) * U(0x9E3779B97F4A7C15) ^ U(of_key)
    x = (x ^ (x >> U(33))) * U(0xFF51AFD7ED558CCD) ^ U(scramble(of_key))
    x = (x ^ (x >> U(29))) * U(0xC4CEB9FE1A85EC53)
    return x ^ (x >> U(32))


def mix(keys, counter):
    low = U(0xFFFFFFFF)
    x = (np.asarray(counter).astype(U) & low) ^ (keys & low)
    x = ((x ^ (x >> U(17))) * U(0xED5AD4BB) & low) ^ (keys >> U(32))
    x = (x ^ (x >> U(11))) * U(0xAC4C1B51) & low
    x = (x ^ (x >> U(15))) * U(0x31848BAB) & low
    return x ^ (x >> U(14))


def words(of_key, counter):
    return mix(bits(of_key, np.asarray(counter) >> 32), counter)


def below(word, bound):
    return ((word * U(bound)) >> U(32)).astype(np.int64)


def signs(of_key, rows):
    return 1 - 2 * ((bits(of_key, rows >> 6) >> (rows & 63).astype(U)) & U(1)).astype(np.int64)


def permuted(x, size, round_keys):
    """Images of x under keyed bijections of [0, size); ``round_keys`` are (6, len(x))."""
    h = (size - 1).bit_length() // 2
    a, b = -(-size // (1 << h)), 1 << h
    left, right = x >> h, x & (b - 1)
    for number in range(0, 6, 2):
        left = (left + below(mix(round_keys[number], right), a)) % a
        right = (right + below(mix(round_keys[number + 1], left), b)) % b
    image = (left << h) + right
    outside = image >= size
    if outside.any():
        image[outside] = permuted(image[outside], size, round_keys[:, outside])
    return image


# Generators: the column and the sign of the one nonzero of each row.


def entries(spec):
    makers = {("ring", 2): ring, ("hash", 2): hashed, ("random", 2): random}
    maker = makers.get((spec["name"], spec["version"]))
    if maker is None:
        raise NotImplementedError(f"{spec['name']}, version {spec['version']}")
    rows = np.arange(spec["rows"])
    return maker(rows, spec["dof"], spec["seed"], spec["options"])


def hashed(rows, dof, seed, options):
    return below(words(key(seed, 2), rows), dof), signs(key(seed, 5), rows)


def random(rows, dof, seed, options):
    return below(words(key(seed, 3), rows), dof), np.ones_like(rows)


def ring(rows, dof, seed, options):
    sign = signs(key(seed, 11), rows) if options["sign"] else np.ones_like(rows)
    if not options["permute"]:
        return rows % dof, sign
    if options["order"] == "deck":
        round_keys = np.repeat(bits(key(seed, 12), np.arange(6))[:, None], len(rows), 1)
        return permuted(rows, len(rows), round_keys) % dof, sign
    return laps(rows, dof, key(seed, 10), options["tile"]), sign


def laps(rows, dof, of_key, tile):
    lap, position = rows // dof, rows % dof
    slot, u, tiles = position // tile, position % tile, dof // tile
    whole = slot < tiles
    round_keys = np.stack([bits(of_key, 8 * lap + 1 + number) for number in range(6)])
    place = slot.copy()
    place[whole] = permuted(slot[whole], tiles, round_keys[:, whole])
    cut = ((bits(of_key, 8 * lap) >> U(1)) % U(dof)).astype(np.int64)
    turn = (mix(bits(of_key, 8 * lap + 7), slot) >> U(30)).astype(np.int64)
    width = np.where(whole, tile, dof - tiles * tile)
    return (cut + place * tile + (u + turn * max(1, tile // 4)) % width) % dof


# Weights.


def weights(header, tensors):
    """The generated weights by name."""
    found = {}
    for constraint in header["constraints"]:
        for group in constraint["groups"]:
            found |= weights_of(group, constraint["owner"], tensors)
    return found


def weights_of(group, owner, tensors):
    spec, ledger = group["generator"], group["ledger"]
    index, sign = entries(spec)
    free = free_of(group, owner, tensors)
    sizes = [math.prod(shape) for _, shape, _ in ledger]
    scale = np.repeat([float(scale) for *_, scale in ledger], sizes)
    if group["isometric"]:
        norms = np.sqrt(np.bincount(index, scale**2 * sign**2, spec["dof"]))
        free = free * (1 / np.where(norms > 0, norms, 1)).astype(free.dtype)
    flat = free[index] * sign.astype(free.dtype) * scale.astype(free.dtype)
    if "drawn" in group:
        flat = drawn(group["drawn"], sizes).astype(free.dtype) + flat
    if "origin" in group:
        raise NotImplementedError("W₀ of an adapter is in the base model, not in the file")
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return {
        owner + name: part.reshape(shape)
        for part, (names, shape, _) in zip(parts, ledger, strict=True)
        for name in names
    }


def free_of(group, owner, tensors):
    free = tensors[owner + group["free"]]
    if "steps" in group:
        steps = tensors[owner + group["steps"]["name"]]
        free = free * np.repeat(steps, group["steps"]["size"])[: len(free)]
    return free


def drawn(description, sizes):
    """W₀ that is drawn from a seed, (rows,) float64."""
    normal = statistics.NormalDist()
    levels = [round(normal.inv_cdf((level + 0.5) / 4096) * 4096) for level in range(4096)]
    random_bits = bits(key(description["seed"], 203), np.arange(sum(sizes)))
    quantiles = np.array(levels)[(random_bits & U(4095)).astype(np.int64)] / 4096
    mean, deviation = (
        np.repeat(column, sizes) for column in zip(*description["tensors"], strict=True)
    )
    return quantiles * deviation + mean


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        header, stored = read(file.read())
    stored = decoded(header, stored)
    made = weights(header, stored)
    print(f"format {header['format']}, written by lincon {header['lincon']}")
    for name, tensor in {**stored, **made}.items():
        kind = "generated" if name in made else "stored"
        print(f"{kind:9} {name} {tensor.dtype} {tensor.shape}")
