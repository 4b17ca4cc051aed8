"""How much reading an array may take: against its declared shape, what its files hold, and a limit that can be raised.

A few bytes may promise gigabytes: a shape nobody filled, a frame that decodes to zeros, a sparse file, a list of texts
whose count alone takes more than there is. What is asked for is added up before anything is read or decoded. Up to the
limit all passes; beyond it what the files hold must be in proportion.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import TraceFormatError
from ..info import printable
from ..layout import item_size

__all__ = [
    "LIMIT",
    "MOST_PER_BYTE",
    "Form",
    "Size",
    "check_depth",
    "check_read",
    "check_stored",
    "form_of",
    "most_bytes",
]

LIMIT: Final = "DXRAY_MOST_BYTES"
"""Environment variable: bytes that one read may take whatever the files hold; with it any codec is let through."""
_MOST: Final = 1 << 28
MOST_PER_BYTE: Final = 64
"""Bytes that a stored one may become beyond the limit; activations hardly shrink to a half."""
_MOST_FILES: Final = 1 << 16
_MOST_SLOTS: Final = 1 << 16
"""Files of one read, and chunks in a file; the writer has 128 of these and, at the root, 16384 of those."""
_OVERHEAD: Final = 4096
"""Bytes by which a small Blosc frame and its checksum may be longer than what is in them; see `Form.longest`."""
_TEXT: Final = 64
"""Bytes that a text takes in memory, and more."""
_KNOWN: Final = frozenset({"bytes", "blosc", "crc32c", "vlen-utf8"})
_DEEPEST: Final = 60
"""Levels of lists and objects in a document; what goes through them level by level has an end much sooner than JSON."""
_TYPE: Final = re.compile(r"bool|string|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)")

Size = Callable[[str], "tuple[int, int] | None"]
"""Of a file of the array: its length, and the bytes that it takes where it is; None where there is none."""


def most_bytes() -> int:
    """What one read may take however small the files are.

    Raises:
        TraceFormatError: The environment variable has no number of bytes.
    """
    given = os.environ.get(LIMIT, "")
    if not given:
        return _MOST
    if not given.isdecimal() or len(given) > 18:
        raise TraceFormatError(f"{LIMIT}={printable(given)[:40]!r}: give a number of bytes, such as 8000000000")
    return int(given)


@dataclass(frozen=True, slots=True)
class Form:
    """How an array is stored."""

    shape: tuple[int, ...]
    file: tuple[int, ...]
    """Extent of a file."""
    chunk: tuple[int, ...]
    """Extent of what is decoded at once."""
    codecs: tuple[str, ...]
    """Of a chunk."""
    slots: int
    """Chunks in a file; 0 where a file is one chunk without an index."""
    index: tuple[int, int]
    """Bytes of an index at the beginning, and at the end of a file."""
    item: int

    @property
    def nbytes(self) -> int:
        """Bytes of a decoded chunk."""
        return math.prod(self.chunk) * self.item

    @property
    def longest(self) -> int:
        """Bytes that a chunk may have as it is stored: its frame, the places of its blocks, a checksum."""
        return self.nbytes + self.nbytes // 8 + _OVERHEAD

    @property
    def is_text(self) -> bool:
        """Whether elements are texts of any length."""
        return "vlen-utf8" in self.codecs


def form_of(metadata: Mapping[str, Any]) -> Form:
    """How an array is stored, as far as the writer makes such arrays.

    Raises:
        ValueError: It is in another form; with `LIMIT` set only what makes no sense is refused.
    """
    try:
        shape, outer = metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"]
        chain, inner, index, slots = metadata["codecs"], outer, (0, 0), 0
        if chain[0]["name"] == "sharding_indexed":
            inside = chain[0]["configuration"]
            inner, whole = inside["chunk_shape"], chain
            chain = inside["codecs"]
            slots = math.prod(size // part for size, part in zip(outer, inner, strict=True))
            length = 16 * slots + 4 * sum(codec["name"] == "crc32c" for codec in inside["index_codecs"])
            index = (length, 0) if inside.get("index_location", "end") == "start" else (0, length)
            if len(whole) != 1:
                raise ValueError("shards are encoded once more")
        names, kind = tuple(codec["name"] for codec in chain), str(metadata["data_type"])
        form = Form(tuple(shape), tuple(outer), tuple(inner), names, slots, index, item_size(kind))
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"it does not say how it is stored: {type(error).__name__} {error}") from error
    _check_form(form, kind)
    return form


def _check_form(form: Form, kind: str) -> None:
    if form.slots > _MOST_SLOTS:
        raise ValueError(f"its files have room for {form.slots} chunks")
    text = kind == "string"
    if text != form.is_text or (text and len(form.codecs) - ("crc32c" in form.codecs) != 1):
        raise ValueError(f"its elements of type {printable(kind)[:40]} are stored by {_listed(form.codecs)}")
    if os.environ.get(LIMIT):
        return
    if not set(form.codecs) <= _KNOWN or len(set(form.codecs)) != len(form.codecs):
        raise ValueError(f"it is stored by {_listed(form.codecs)}, which diffusion-xray never writes; {_raise_it()}")
    if not _TYPE.fullmatch(kind):
        raise ValueError(f"its elements are of type {printable(kind)[:40]}, which is never written; {_raise_it()}")


def check_read(
    metadata: Mapping[str, Any], place: Sequence[int | slice], size: Size, read: Callable[[str, int], bytes] | None
) -> None:
    """Make sure that a part of an array takes no more than its files account for.

    Args:
        metadata: Of the array.
        place: Of the part, along the first dimensions.
        size: Tells how large a file is, by its name.
        read: The beginning of a file, where that is at hand; the index of shards is looked at then.

    Raises:
        ValueError: It would take too much, or is stored in no form of the writer; the message says what to do.
    """
    form = form_of(metadata)
    if len(place) > len(form.shape):
        raise ValueError(f"{len(place)} indices are too many for the shape {list(form.shape)}")
    spans = [_span(at, total) for at, total in itertools.zip_longest(place, form.shape, fillvalue=slice(None))]  # type: ignore[arg-type]  # places are the shorter ones
    wanted = max(math.prod(len(span) for span in spans) * (_TEXT if form.is_text else form.item), form.nbytes)
    grid = [
        range(span[0] // part, span[-1] // part + 1) if span else span
        for span, part in zip(spans, form.file, strict=True)
    ]
    if math.prod(map(len, grid)) > _MOST_FILES:
        raise ValueError(f"its shape {list(form.shape)} is one of more than {_MOST_FILES} files")
    stored, most = 0, most_bytes()
    is_shard_of_steps = form.slots and form.file[1:] == form.chunk[1:] and form.chunk[0] == 1
    for at in itertools.product(*grid):
        name = ".".join(["c", *map(str, at)])
        found = size(name)
        if found is None:
            continue
        length, held = found
        stored += min(length, held)
        largest = max(most, MOST_PER_BYTE * held) if form.is_text else form.longest
        if not form.slots and length > largest:
            raise ValueError(f"{name} has {length} bytes, more than a chunk of {form.nbytes} can have")
        if form.slots and form.index[0] and read is not None:
            first = range(at[0] * form.file[0], (at[0] + 1) * form.file[0])
            slots = (
                [spans[0].start % form.slots]
                if is_shard_of_steps and len(spans[0]) == 1 and spans[0].start in first
                else None
            )
            _check_lengths(read(name, 16 * form.slots), name, form, slots)
    if wanted > most and wanted > MOST_PER_BYTE * stored:
        raise ValueError(f"{stored} stored bytes would become {wanted}; {_raise_it(wanted)}")


def _span(at: int | slice, total: int) -> range:
    """The places along one dimension that are asked for, from the first to the last."""
    if isinstance(at, slice):
        found = range(*at.indices(total))
        return found if len(found) < 2 or found.step == 1 else range(min(found), max(found) + 1)
    at = at + total if at < 0 else at
    return range(at, at + 1) if 0 <= at < total else range(0)


def _check_lengths(index: bytes, name: str, form: Form, slots: Sequence[int] | None) -> None:
    """Refuse chunks that are longer than what is in them; the rest of an index is looked at where it is used."""
    import numpy as np

    entries = np.frombuffer(index[: len(index) // 16 * 16], "<u8").reshape(-1, 2)
    lengths = entries[:, 1] if slots is None else entries[slots[0] : slots[0] + 1, 1]
    lengths = lengths[lengths != np.iinfo(np.uint64).max]
    if not form.is_text and len(lengths) and int(lengths.max()) > form.longest:
        raise ValueError(f"{name} has a chunk of {lengths.max()} bytes, more than the {form.nbytes} that are in it")


def check_stored(name: str, length: int, held: int) -> None:
    """Make sure that what is packed once more, as in a zip file, does not become more than it accounts for.

    Raises:
        ValueError: It does.
    """
    if length > most_bytes() // 16 and length > MOST_PER_BYTE * held:
        raise ValueError(
            f"{printable(name)[:80]} has {held} stored bytes that would become {length}; {_raise_it(length)}"
        )


def check_depth(document: Any) -> None:
    """Refuse a document of many levels.

    Raises:
        ValueError: It has more than any trace has.
    """
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(_DEEPEST):
        level = [
            value
            for holder in level
            for value in (holder.values() if type(holder) is dict else holder)
            if type(value) is dict or type(value) is list
        ]
        if not level:
            return
    raise ValueError(f"its metadata are more than {_DEEPEST} levels deep")


def _raise_it(nbytes: int | None = None) -> str:
    return f"if you trust the trace, set {LIMIT}={nbytes or '8000000000'}"


def _listed(codecs: Sequence[str]) -> str:
    return printable(", ".join(map(str, codecs)))[:80]
