"""Every chunk ends in a checksum, which each way to read it checks: a flipped bit is told, never another value."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr

from diffusion_xray.tracer import Trace, TraceFormatError, open_trace
from diffusion_xray.tracer.data_check import check_data
from diffusion_xray.tracer.layout import ROOT_ARRAYS, tensor_spec
from diffusion_xray.tracer.storage.checksum import CHECKSUM_BYTES, checked, checksum_of
from diffusion_xray.tracer.storage.store import StoreWriter

GOLDEN = Path(__file__).parents[2] / "data" / "golden-v2.zarr"
FILES = sorted(
    file.relative_to(GOLDEN)
    for file in GOLDEN.rglob("c.*")
    if file.relative_to(GOLDEN).parts[0] not in ROOT_ARRAYS and file.is_file()
)
INDEX = 128 * 16


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The golden trace, to be damaged."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "run.zarr"))


def flip(file: Path, at: int) -> None:
    """Change one bit."""
    data = bytearray(file.read_bytes())
    data[at] ^= 4
    file.write_bytes(bytes(data))


def test_the_checksum_is_that_of_the_standard() -> None:
    """CRC-32C of "123456789" is e3069283 (RFC 3720), stored little endian, of bytes and of arrays."""
    assert checksum_of(b"123456789") == bytes.fromhex("e3069283")[::-1]
    assert checksum_of(np.frombuffer(b"123456789", np.uint8)) == checksum_of(b"123456789")
    assert checksum_of(np.arange(10)[::2]) == checksum_of(np.arange(0, 10, 2))
    assert bytes(checked(b"123456789" + checksum_of(b"123456789"))) == b"123456789"
    for data in (b"", b"abc", b"123456780" + checksum_of(b"123456789")):
        with pytest.raises(ValueError, match="checksum"):
            checked(data)


def test_every_array_has_checksums_but_those_set_in_place(copy: Path) -> None:
    """Zarr's codec crc32c is the last of each chain; the arrays along the steps at the root have none."""
    nodes = json.loads((copy / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    for name, node in nodes.items():
        if node["node_type"] == "array":
            codecs = node["codecs"][0].get("configuration", {}).get("codecs", node["codecs"])
            assert (codecs[-1]["name"] == "crc32c") == (name not in ROOT_ARRAYS), name


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_flipped_bit_in_any_file_is_found(file: Path, copy: Path) -> None:
    """Whichever chunk has a bit that changed, the check of the data names its array, and nothing else."""
    data = (copy / file).read_bytes()
    node = json.loads((copy / file).with_name("zarr.json").read_text())
    is_shard = node["codecs"][0]["name"] == "sharding_indexed"
    flip(copy / file, 1 + (min(np.frombuffer(data[:INDEX], "<u8")[:4:2].tolist()) if is_shard else 0))
    found = {entry.array for entry in check_data(copy).damage} - {""}
    assert str(file.parent) in found
    assert found <= {str(file.parent), *(str(other.parent) for other in FILES if "statistics" in str(file))}


def by_trace(copy: Path) -> object:
    """As the browser does."""
    return [open_trace(copy).tensor(open_trace(copy).site("model.conv_in"), step) for step in range(2)]


def by_parts(copy: Path) -> object:
    """As rows of attention are read."""
    trace = open_trace(copy)
    return [trace.elements(trace.site("model.conv_in"), step, 0, 2) for step in range(2)]


def by_dataset(copy: Path) -> object:
    """Lazily, by a module's name."""
    return open_trace(copy)["model.conv_in"]["output"].values


def by_tree(copy: Path) -> object:
    """As xarray sees the whole store."""
    with open_trace(copy).tree as tree:
        return tree["model/conv_in"]["output"].values


def by_zarr(copy: Path) -> object:
    """Another library."""
    return zarr.open_array(copy / "model/conv_in/output", mode="r")[:]


def by_tensorstore(copy: Path) -> object:
    """A library that has nothing in common with the others."""
    kvstore = {"driver": "file", "path": str(copy / "model/conv_in/output")}
    return tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, read=True).result().read().result()


@pytest.mark.parametrize("read", [by_trace, by_parts, by_dataset, by_tree, by_zarr, by_tensorstore])
def test_no_way_to_read_takes_a_flipped_bit(read: Callable[[Path], object], copy: Path) -> None:
    """In our readers it is a `TraceFormatError`, in other libraries an error of theirs; before, all read the same."""
    assert np.asarray(read(copy)).size
    (file,) = (copy / "model/conv_in/output").glob("c.*")
    flip(file, -CHECKSUM_BYTES - 2)
    foreign = read in (by_zarr, by_tensorstore, by_tree, by_dataset)
    with pytest.raises(Exception if foreign else TraceFormatError, match=r"(?i)checksum|digest"):
        read(copy)


def test_a_part_is_checked_once(copy: Path) -> None:
    """A row that is read again does not read the whole chunk again, and another opening of the trace does."""
    trace: Trace = open_trace(copy)
    site = trace.site("model.conv_in")
    before = trace.elements(site, 1, 0, 3)
    (file,) = (copy / "model/conv_in/output").glob("c.*")
    flip(file, -CHECKSUM_BYTES - 2)  # at the end, not in what is read
    after = trace.elements(site, 1, 0, 3)
    assert before is not None and after is not None and before.tolist() == after.tolist()
    with pytest.raises(TraceFormatError, match="checksum"):
        open_trace(copy).elements(site, 1, 0, 3)


@pytest.mark.parametrize("codec", ["raw", "lz4", "zstd"])
@pytest.mark.parametrize("elements", [1, 100, 300_000])
def test_equal_chunks_are_still_stored_once(tmp_path: Path, codec: str, elements: int) -> None:
    """With checksums, too, a chunk equal to the one before is a second entry of the index and no second copy."""
    store = StoreWriter(tmp_path / "t.zarr", {})
    store.add_array(tensor_spec("x", "float32", (elements,), ("a",), steps=4, codec=codec, attributes={}))  # type: ignore[arg-type]
    values = np.random.default_rng(0).normal(size=elements).astype(np.float32)
    other = values.copy()
    other[-1] += 1
    for step, chunk in enumerate((values, values, other, other)):
        store.append_all([("x", step, chunk, 0)])
    store.publish()
    store.close()
    index = np.frombuffer((store.path / "x/c.0.0").read_bytes()[: 4 * 16], "<u8").reshape(4, 2)
    assert index[0].tolist() == index[1].tolist() != index[2].tolist() == index[3].tolist()
    read = zarr.open_array(store.path / "x", mode="r")[:]
    np.testing.assert_array_equal(read, [values, values, other, other])


@pytest.mark.parametrize("elements", [1, 15, 16, 17, 100])
def test_single_and_bulk_appends_know_each_other(tmp_path: Path, elements: int) -> None:
    """An equal chunk is stored once whichever way it and the one before it came, short ones with their checksum too."""
    store = StoreWriter(tmp_path / "t.zarr", {})
    store.add_array(tensor_spec("x", "float32", (elements,), ("a",), steps=4, codec="raw", attributes={}))
    values = np.arange(elements, dtype=np.float32)
    for step in range(4):
        if step % 2:
            store.append("x", (step,), values[None])
        else:
            store.append_all([("x", step, values, 0)])
    store.close()
    index = np.frombuffer((store.path / "x/c.0.0").read_bytes()[: 4 * 16], "<u8").reshape(4, 2)
    assert len({tuple(entry) for entry in index.tolist()}) == 1


def test_chunks_without_checksums_are_read_as_before() -> None:
    """A trace of format 1 has none; it is read, and the check says that a flipped bit may pass."""
    found = check_data(GOLDEN.with_name("golden-v1.zarr"))
    assert not found.damage
    assert "model/conv_in/output" in found.without_checksums
    assert not check_data(GOLDEN).without_checksums
