"""Damage to a trace, chosen by a seed: its metadata, its chunks, its files and links, alone or several at once."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import struct
from pathlib import Path
from typing import Any

__all__ = ["LOSSES", "mutate"]

_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 10**6, 2**31, 2**32, 2**63, 10**18, 10**30, -(2**63), 0.5, 1e308),
    *(float("nan"), float("inf"), "", "x", "NaN", "output", "\x1b[2J", "..", "/etc/passwd", "\ud800", "a" * 5000, "é"),
    *([], [1], [[]], [None], ["x"], [-1], [10**9], {}, {"x": 1}, {"call": []}),
]
"""What a field may be instead."""


def mutate(path: Path, outside: Path, random: random.Random) -> list[str]:
    """Damage a trace in one way, or in several.

    Args:
        path: A copy of a trace.
        outside: A folder with files that nothing may read, for links.
        random: Decides everything.

    Returns:
        What was done.
    """
    done = []
    for _ in range(random.choices((1, 2, 4), (6, 2, 1))[0]):
        kind = random.choices(list(_KINDS), list(_KINDS.values()))[0]
        try:
            done.append(f"{kind.__name__} {kind(path, outside, random)}")
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:  # damaged
            done.append(f"{kind.__name__} failed: {type(error).__name__}")
    return done


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all values of a document."""
    found = [at] if at else []
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        found += _places(inner, (*at, key))
    return found


def _inside(document: Any, place: tuple[Any, ...]) -> tuple[Any, Any]:
    """The holder of a value, and its key there."""
    for key in place[:-1]:
        document = document[key]
    return document, place[-1]


def _document(path: Path) -> Any:
    return json.loads(_bytes_of(path))


def _bytes_of(path: Path) -> bytes:
    """The document, where an earlier damage has left a file."""
    if not (path / "zarr.json").is_file():
        raise OSError("it is no file any more")
    return (path / "zarr.json").read_bytes()


def _put(path: Path, document: Any) -> None:
    (path / "zarr.json").write_text(json.dumps(document))


def _part(document: Any, random: random.Random) -> Any:
    """A part of the metadata: each counts alike, however many fields it has."""
    nodes = document["consolidated_metadata"]["metadata"]
    tables = [name for name in nodes if name.startswith("statistics/") and nodes[name]["node_type"] == "group"]
    return random.choice(
        [document["attributes"], nodes[random.choice(list(nodes))], nodes[random.choice(tables)], document]
    )


def another_value(path: Path, outside: Path, random: random.Random) -> str:
    """Another value in place of one of the metadata."""
    document = _document(path)
    part = _part(document, random)
    place = random.choice(_places(part))
    holder, key = _inside(part, place)
    holder[key] = copy.deepcopy(random.choice(_VALUES))
    _put(path, document)
    return f"{place} = {holder[key]!r:.60}"


def no_value(path: Path, outside: Path, random: random.Random) -> str:
    """A value of the metadata is gone."""
    document = _document(path)
    part = _part(document, random)
    place = random.choice(_places(part))
    holder, key = _inside(part, place)
    del holder[key]
    _put(path, document)
    return str(place)


def swapped(path: Path, outside: Path, random: random.Random) -> str:
    """A value of the metadata is that of another field."""
    document = _document(path)
    one, other = _part(document, random), copy.deepcopy(_part(document, random))
    place, source = random.choice(_places(one)), random.choice(_places(other))
    holder, key = _inside(one, place)
    found, own = _inside(other, source)
    holder[key] = found[own]
    _put(path, document)
    return f"{place} = {source}"


def another_number(path: Path, outside: Path, random: random.Random) -> str:
    """A number in the metadata of an array is another one."""
    document = _document(path)
    nodes = document["consolidated_metadata"]["metadata"]
    name = random.choice([name for name, node in nodes.items() if node["node_type"] == "array"])
    places = [place for place in _places(nodes[name]) if type(_value(nodes[name], place)) is int]
    holder, key = _inside(nodes[name], random.choice(places))
    holder[key] = random.choice([0, 1, 2, 3, 5, 17, 128, 255, 10**4, 10**6, 10**8, 10**9, 10**10, 2**40, 2**62, -1])
    _put(path, document)
    return f"{name} {key} = {holder[key]}"


def _value(document: Any, place: tuple[Any, ...]) -> Any:
    holder, key = _inside(document, place)
    return holder[key]


def deep(path: Path, outside: Path, random: random.Random) -> str:
    """A value is lists in lists."""
    document = _document(path)
    part = _part(document, random)
    place = random.choice(_places(part))
    holder, key = _inside(part, place)
    value: Any = 1
    depth = random.choice([3, 50, 300, 900])
    for _ in range(depth):
        value = [value] if random.random() < 0.5 else {"x": value}
    holder[key] = value
    _put(path, document)
    return f"{place} {depth} levels"


def torn_document(path: Path, outside: Path, random: random.Random) -> str:
    """The document is cut, or bytes of it are others."""
    data = bytearray(_bytes_of(path))
    for _ in range(random.choice([0, 1, 5])):
        data[random.randrange(len(data))] = random.randrange(256)
    end = random.choice([len(data), random.randrange(len(data))])
    (path / "zarr.json").write_bytes(data[:end])
    return f"{end} bytes"


def _chunk(path: Path, random: random.Random) -> Path:
    """A chunk file; folders count alike, however many there are in them."""
    files = sorted(file for file in path.rglob("c*") if file.is_file() and file.name.startswith("c."))
    return random.choice(files)


def flipped(path: Path, outside: Path, random: random.Random) -> str:
    """Bytes of a chunk are others, mostly at its beginning, where indices and headers are."""
    file = _chunk(path, random)
    data = bytearray(file.read_bytes())
    for _ in range(random.choice([1, 1, 3, 20])):
        most = len(data) if random.random() < 0.4 else min(len(data), random.choice([16, 2100]))
        data[random.randrange(most)] = random.choice([0, 255, 1, 127, 128, random.randrange(256)])
    file.write_bytes(data)
    return str(file.relative_to(path))


def another_index(path: Path, outside: Path, random: random.Random) -> str:
    """An entry of an index points elsewhere, or is far longer."""
    file = _chunk(path, random)
    data = bytearray(file.read_bytes())
    values = [0, 1, 16, len(data) - 1, len(data), 2048, 2**31, 2**32, 2**40, 2**63, 2**64 - 1, 2**64 - 2]
    struct.pack_into("<QQ", data, 16 * random.randrange(3), random.choice(values), random.choice(values))
    file.write_bytes(data)
    return str(file.relative_to(path))


def another_header(path: Path, outside: Path, random: random.Random) -> str:
    """The header of a frame, wherever it lies, promises something else."""
    file = _chunk(path, random)
    data = bytearray(file.read_bytes())
    at = struct.unpack_from("<Q", data)[0] if len(data) > 2048 else 0
    at = at if at < len(data) - 16 else 0
    field = random.randrange(3)
    value = random.choice([0, 1, 16, 2**20, 2**31 - 1, 2**31, 2**32 - 1])
    struct.pack_into("<I", data, at + 4 + 4 * field, value)
    file.write_bytes(data)
    return f"{file.relative_to(path)} field {field} = {value}"


def gone(path: Path, outside: Path, random: random.Random) -> str:
    """A chunk file is gone."""
    file = _chunk(path, random)
    file.unlink()
    return str(file.relative_to(path))


def cut(path: Path, outside: Path, random: random.Random) -> str:
    """A chunk file is cut."""
    file = _chunk(path, random)
    size = file.stat().st_size
    os.truncate(file, random.choice([0, size // 2, max(size - 1, 0), random.randrange(size)]))
    return str(file.relative_to(path))


def no_folder(path: Path, outside: Path, random: random.Random) -> str:
    """A folder is gone."""
    folder = _chunk(path, random).parent
    shutil.rmtree(folder)
    return str(folder.relative_to(path))


def sparse(path: Path, outside: Path, random: random.Random) -> str:
    """A chunk file has gigabytes that were never written."""
    file = _chunk(path, random)
    os.truncate(file, random.choice([2**20, 2**31, 2**36]))
    return str(file.relative_to(path))


def exchanged(path: Path, outside: Path, random: random.Random) -> str:
    """A chunk file is that of another array."""
    file, other = _chunk(path, random), _chunk(path, random)
    file.write_bytes(other.read_bytes())
    return f"{file.relative_to(path)} = {other.relative_to(path)}"


def linked(path: Path, outside: Path, random: random.Random) -> str:
    """A file or a folder is a link: out of the trace, to itself, to a device, up."""
    file = _chunk(path, random)
    file = random.choice([file, file, file.parent, path / "zarr.json", path / "statistics"])
    target = random.choice(
        [outside / "secret", outside, Path("/dev/zero"), Path("/dev/stdin"), file, file.parent, path, Path("..")]
    )
    shutil.rmtree(file) if file.is_dir() else file.unlink()
    file.symlink_to(target)
    return f"{file.relative_to(path)} -> {target}"


def no_file(path: Path, outside: Path, random: random.Random) -> str:
    """A pipe or a folder is where a file should be."""
    file = random.choice([_chunk(path, random), path / "zarr.json"])
    file.unlink()
    if random.random() < 0.5:
        os.mkfifo(file)
    else:
        file.mkdir()
    return str(file.relative_to(path))


_KINDS = {
    another_value: 12,
    no_value: 5,
    swapped: 5,
    another_number: 8,
    deep: 1,
    torn_document: 2,
    flipped: 6,
    another_index: 3,
    another_header: 3,
    gone: 3,
    cut: 3,
    no_folder: 1,
    sparse: 2,
    exchanged: 2,
    linked: 3,
    no_file: 2,
}
"""Each with its share."""

LOSSES = ("gone", "cut", "no_folder")
"""After which everything that can be read is as it was."""
