"""Which codec an array gets where nobody chose one: that of its first chunk, once and for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
import zarr.storage
from numpy.typing import NDArray

from diffusion_xray.tracer.layout import tensor_spec
from diffusion_xray.tracer.storage.library_store import LibraryStore
from diffusion_xray.tracer.storage.library_writer import LibraryWriter
from diffusion_xray.tracer.storage.store import StoreWriter

NOISE = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
ZEROS = np.zeros((40, 50), np.float32)
RECTIFIED = np.where(NOISE > 1, NOISE, 0).astype(np.float32)
WIDE = np.concatenate([np.random.default_rng(1).normal(size=2 << 19), np.zeros(6 << 19)]).astype(np.float32)
"""Larger than the sample; its beginning alone would not compress."""


def spec_of(path: str, values: NDArray[Any], *, stepped: bool) -> Any:
    """An array for which nobody chose a codec."""
    dims = ("a", "b")[: values.ndim]
    steps = 3 if stepped else None
    return tensor_spec(path, values.dtype.name, values.shape, dims, steps=steps, codec="auto", attributes={})


def codec_of(document: dict[str, Any]) -> str:
    """The compressor in an array's metadata."""
    codecs = document["codecs"][0].get("configuration", {}).get("codecs", document["codecs"])
    found = [codec["configuration"]["cname"] for codec in codecs if codec["name"] == "blosc"]
    return found[0] if found else "raw"


CASES = [
    (NOISE, "raw"),
    (ZEROS, "lz4"),
    (RECTIFIED, "lz4"),
    (WIDE, "lz4"),
    (NOISE.astype(np.float16), "raw"),
    (np.arange(2000), "lz4"),
    (np.array([1.5], np.float32), "raw"),
]


@pytest.mark.parametrize(("values", "expected"), CASES)
@pytest.mark.parametrize("stepped", [True, False])
@pytest.mark.parametrize("bulk", [True, False])
def test_the_first_chunk_decides(
    values: NDArray[Any], expected: str, stepped: bool, bulk: bool, tmp_path: Path
) -> None:
    """lz4 where it saves a fifth, else raw; later chunks of another kind do not change it, and all are read back."""
    store = StoreWriter(tmp_path / "t.zarr", {})
    store.add_array(spec_of("x", values, stepped=stepped))
    later = np.ones_like(values)
    for step, chunk in enumerate((values, later)[: 1 + stepped]):
        if not stepped:
            store.write("x", (0,) * chunk.ndim, chunk)
        elif bulk:
            store.append_all([("x", step, chunk, 0)])
        else:
            store.append("x", (step,), chunk[None])
    store.publish()
    store.close()
    assert codec_of(json.loads((store.path / "x/zarr.json").read_text())) == expected
    read = np.asarray(zarr.open_array(store.path / "x", mode="r")[...])
    np.testing.assert_array_equal(read[:2] if stepped else read, [values, later] if stepped else values)


def test_an_array_told_before_its_first_chunk_has_one_codec(tmp_path: Path) -> None:
    """Metadata that went out stay true: what compresses badly is compressed then, too."""
    store = StoreWriter(tmp_path / "t.zarr", {})
    store.add_array(spec_of("x", NOISE, stepped=True))
    store.publish()
    store.append_all([("x", 0, NOISE, 0)])
    store.publish()
    store.close()
    assert codec_of(json.loads((store.path / "x/zarr.json").read_text())) == "lz4"
    np.testing.assert_array_equal(zarr.open_array(store.path / "x", mode="r")[0], NOISE)


def test_chunks_that_move_take_their_codec_along(tmp_path: Path) -> None:
    """Steps copied byte by byte into another array are read there, whatever that array's own would have chosen."""
    store = StoreWriter(tmp_path / "t.zarr", {})
    for path in ("x", "y"):
        store.add_array(spec_of(path, NOISE, stepped=True))
    store.append_all([("x", 0, NOISE, 0), ("x", 1, ZEROS, 0)])
    store.copy_chunks("x", "y", [1])
    store.append_all([("y", 2, NOISE, 0)])
    store.publish()
    store.close()
    read = np.asarray(zarr.open_array(store.path / "y", mode="r")[...])
    assert np.isnan(read[0]).all()
    np.testing.assert_array_equal(read[1:], [ZEROS, NOISE])


def test_stores_of_the_library_choose_alike() -> None:
    """In memory, too, noise is raw and zeros are not."""
    memory = zarr.storage.MemoryStore()
    store = LibraryWriter(LibraryStore(memory), {})
    for path, values in (("noise", NOISE), ("zeros", ZEROS)):
        store.add_array(spec_of(path, values, stepped=True))
        store.append_all([(path, 0, values, 0)])
    store.publish()
    group = zarr.open_group(memory, mode="r")
    for path, values, expected in (("noise", NOISE, "raw"), ("zeros", ZEROS, "lz4")):
        array: Any = group[path]
        assert codec_of(array.metadata.to_dict()) == expected
        np.testing.assert_array_equal(array[0], values)
