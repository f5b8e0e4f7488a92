"""Random corruptions of proof files: of bytes, of arrays, of the header."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from typing import Any

import numpy as np

NUMBERS = [
    0,
    1,
    -1,
    2,
    255,
    256,
    2**31,
    2**63,
    10**30,
    1e308,
    1e-320,
    0.5,
    None,
    True,
    "",
    "a0",
    "1/0",
    "1e9999",
    [],
    {},
]


def unpacked(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and arrays of a sound proof file."""
    with np.load(io.BytesIO(content)) as held:
        arrays = {name: held[name] for name in held.files}
    return json.loads(arrays.pop("header").tobytes()), arrays


def packed(header: Any, arrays: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez_compressed(stream, header=text, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The file with one to three corruptions of one kind."""
    kind = rng.choice([_bytes, _stored, _array, _array, _header, _header, _facts])
    for _ in range(int(rng.integers(1, 4))):
        content = kind(content, rng)
        if kind in (_bytes, _stored):
            break
    return content


def _bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Bits of the file as it lies on disk, or a part of it."""
    held = bytearray(content)
    if rng.random() < 0.2:
        return bytes(held[: rng.integers(0, len(held))])
    for at in rng.integers(0, len(held), rng.integers(1, 6)):
        held[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(held)


def _stored(content: bytes, rng: np.random.Generator) -> bytes:
    """Bits of one member, with a check sum that fits."""
    stream, source = io.BytesIO(), zipfile.ZipFile(io.BytesIO(content))
    names = source.namelist()
    chosen = str(rng.choice(names))
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for name in names:
            held = bytearray(source.read(name))
            if name == chosen:
                for at in rng.integers(0, len(held), rng.integers(1, 4)):
                    held[at] ^= 1 << int(rng.integers(0, 8))
            target.writestr(name, bytes(held))
    return stream.getvalue()


def _array(content: bytes, rng: np.random.Generator) -> bytes:
    """Entries, shape, type or order of one array."""
    header, arrays = unpacked(content)
    name = str(rng.choice(sorted(arrays)))
    held = arrays[name].copy()
    what = rng.integers(0, 7) if held.dtype.kind in "iuf" else 4
    if what == 0 and held.size:
        limits = np.finfo(held.dtype) if held.dtype.kind == "f" else np.iinfo(held.dtype)
        extremes = [limits.min, limits.max, *((np.nan, np.inf, -0.0) if held.dtype.kind == "f" else (0, 1))]
        held.reshape(-1)[rng.integers(0, held.size)] = extremes[rng.integers(0, len(extremes))]
    elif what == 1 and held.size:
        at = rng.integers(0, held.size)
        with np.errstate(all="ignore"):
            changed = held.reshape(-1)[at] * (1 + 1e-6) if held.dtype.kind == "f" else int(held.reshape(-1)[at]) + 1
            held.reshape(-1)[at] = np.asarray(changed).astype(held.dtype)
    elif what == 2 and held.size:
        held = held.reshape(-1)[rng.permutation(held.size)].reshape(held.shape)
    elif what == 3:
        held = held[: rng.integers(0, len(held) + 1)]
    elif what == 4 and len(held):
        held = np.concatenate([held, held[-1:]])
    elif what == 5:
        with np.errstate(all="ignore"):
            held = held.astype(str(rng.choice(["float16", "complex64", "bool", "uint64", "float64", ">i4", "U3"])))
    else:
        other = str(rng.choice(sorted(arrays)))
        arrays[other], held = held, arrays[other]
    arrays[name] = held
    return packed(header, arrays)


def _places(item: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    pairs = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    for key, value in pairs:
        found.append((item, key))
        _places(value, found)
    return found


def _header(content: bytes, rng: np.random.Generator) -> bytes:
    """One value of the header: replaced, removed, doubled or exchanged with another."""
    header, arrays = unpacked(content)
    places = _places(header, [])
    parent, key = places[rng.integers(0, len(places))]
    what = rng.integers(0, 4)
    if what == 0:
        parent[key] = copy.deepcopy(NUMBERS[rng.integers(0, len(NUMBERS))])
    elif what == 1:
        del parent[key]
    elif what == 2 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    else:
        other, place = places[rng.integers(0, len(places))]
        parent[key] = copy.deepcopy(other[place])
    return packed(header, arrays)


def _facts(content: bytes, rng: np.random.Generator) -> bytes:
    """A fact that is dropped, moved, or rests on another; a case or condition that is dropped."""
    header, arrays = unpacked(content)
    facts = header.get("facts", [])
    if not isinstance(facts, list) or not facts or not all(isinstance(fact, dict) for fact in facts):
        return content
    at = int(rng.integers(0, len(facts)))
    what = rng.integers(0, 5)
    if what == 0:
        del facts[at]
    elif what == 1:
        facts.insert(int(rng.integers(0, len(facts))), facts.pop(at))
    elif what == 2:
        facts[at]["of"] = int(rng.integers(-1, len(facts) + 1))
    elif what == 3 and isinstance(header.get("cases"), list) and header["cases"]:
        header["cases"].pop()
    else:
        facts[at]["rule"] = str(rng.choice(["interval", "tighten", "exclude", "phases", "boxes", "cut"]))
    return packed(header, arrays)
