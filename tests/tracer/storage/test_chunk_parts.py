"""Parts of chunks, against the whole of them as any Zarr reader sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from diffusion_xray.tracer.layout import tensor_spec
from diffusion_xray.tracer.storage.chunk_parts import is_one_chunk, read_part
from diffusion_xray.tracer.storage.store import StoreWriter

RNG = np.random.default_rng(0)


def write(path: Path, data: NDArray[Any], *, codec: Any = "lz4", steps: bool = True) -> dict[str, Any]:
    """Store an array as the recorder does, step by step where it has steps; its metadata."""
    store = StoreWriter(path, {"format_version": 1})
    shape = data.shape[1:] if steps else data.shape
    dims = [f"axis_{axis}" for axis in range(len(shape))]
    count = len(data) if steps else None
    spec = tensor_spec("array", str(data.dtype), shape, dims, steps=count, codec=codec, attributes={})
    store.add_array(spec)
    if steps:
        for step in range(len(data)):
            store.append("array", (step,), data[step : step + 1])
    else:
        store.write("array", (0,) * data.ndim, data)
    store.publish()
    store.close()
    return spec.metadata()


@settings(max_examples=25)
@given(st.data())
def test_a_part_is_a_slice_of_the_whole(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any run of elements, of any dtype and codec, in blocks of whatever size Blosc chose, is that of the array."""
    dtype = data.draw(st.sampled_from(["float32", "float16", "float64", "bool"]))
    steps = data.draw(st.booleans())
    size = data.draw(st.sampled_from([1, 7, 40_000, 100_003]))
    whole = (4 * RNG.standard_normal((2, size, 3))).astype(dtype)
    path = tmp_path_factory.mktemp("parts") / "run.zarr"
    metadata = write(path, whole, codec=data.draw(st.sampled_from(["lz4", "zstd", "raw"])), steps=steps)
    assert is_one_chunk(metadata)
    step = data.draw(st.integers(0, 1)) if steps else None
    flat = (whole if step is None else whole[step]).ravel()
    for _ in range(5):
        start = data.draw(st.integers(0, flat.size))
        count = data.draw(st.integers(0, flat.size - start))
        seen = read_part(path / "array", metadata, step, start, count)
        assert seen is not None
        assert seen.dtype == whole.dtype
        np.testing.assert_array_equal(seen, flat[start : start + count])


def test_what_was_not_written_is_none(tmp_path: Path) -> None:
    """A step beyond those written, in the shard or in none, reads as nothing."""
    metadata = write(tmp_path / "run.zarr", RNG.random((2, 50, 3)).astype(np.float32))
    for step in (2, 127, 128, 500):
        assert read_part(tmp_path / "run.zarr" / "array", metadata, step, 0, 3) is None


@pytest.mark.parametrize("at", [0, 8, 2048, 2050, 2052, 2056, 2060, 2064, 2068, -1])
def test_a_torn_chunk_is_an_error_or_the_truth(tmp_path: Path, at: int) -> None:
    """A file that is cut, or whose index, header or table of blocks lies, never gives anything but an error."""
    whole = RNG.standard_normal((1, 100_000)).astype(np.float32)
    metadata = write(tmp_path / "run.zarr", whole)
    (file,) = (tmp_path / "run.zarr" / "array").glob("c.*")
    content = bytearray(file.read_bytes())
    if at < 0:
        del content[-1000:]
    else:
        content[at : at + 4] = b"\xff\xff\xff\x7f"
    file.write_bytes(content)
    with pytest.raises((ValueError, RuntimeError, OSError)):
        read_part(tmp_path / "run.zarr" / "array", metadata, 0, 10, 70_000)


def test_a_range_outside_of_the_chunk_is_refused(tmp_path: Path) -> None:
    """No elements are read before or behind those of the step."""
    metadata = write(tmp_path / "run.zarr", RNG.random((2, 50)).astype(np.float32))
    for start, count in ((-1, 2), (49, 2), (0, 51), (10, -1)):
        with pytest.raises(ValueError, match="outside"):
            read_part(tmp_path / "run.zarr" / "array", metadata, 0, start, count)


@pytest.mark.parametrize("broken", [{}, {"codecs": 3}, {"codecs": [{"name": "bytes"}], "shape": [2], "chunk_grid": 1}])
def test_other_layouts_are_left_to_zarr(tmp_path: Path, broken: dict[str, Any]) -> None:
    """Arrays in another form, and metadata that make no sense, are not read here."""
    assert not is_one_chunk(broken)
    zarr.create_array(tmp_path / "other.zarr", shape=(4, 4), chunks=(2, 2), dtype="float32")
    other = zarr.open_array(tmp_path / "other.zarr", mode="r").metadata.to_dict()
    assert not is_one_chunk(other)
