"""The store: what is written chunk by chunk, every Zarr reader reads, after every single operation."""

from __future__ import annotations

import os
import resource
import shutil
import struct
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import tensorstore
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from diffusion_xray.tracer.layout import (
    IO_GROUP,
    SITE_BLOCK,
    ArraySpec,
    Codec,
    module_group,
    table_specs,
    tensor_spec,
)
from diffusion_xray.tracer.storage.checksum import CHECKSUM_BYTES
from diffusion_xray.tracer.storage.direct import PAGE, aligned_memory
from diffusion_xray.tracer.storage.integrity import check_shards
from diffusion_xray.tracer.storage.store import StoreWriter, bulk_calls

DTYPES = ("float32", "float64", "float16", "int64", "bool", "uint8")
DIMS = ("a", "b", "c")
STEPS = 130
"""More than one shard holds."""


@st.composite
def recordings(draw: st.DrawFn) -> tuple[ArraySpec, dict[int, NDArray[Any]]]:
    """An array to append to, and what to append at which steps, in any order."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=5))
    codec: Codec = draw(st.sampled_from(("lz4", "zstd", "raw")))
    spec = tensor_spec("x/y", dtype, shape, DIMS[: len(shape)], steps=STEPS, codec=codec, attributes={"k": 1})
    steps = draw(st.lists(st.sampled_from((0, 1, 2, 127, 128, 129)), min_size=1, max_size=4, unique=True))
    return spec, {step: draw(hnp.arrays(dtype, shape)) for step in steps}


def by_zarr(root: Path, path: str) -> NDArray[Any]:
    """Read an array with zarr-python, from the root as people do."""
    array = zarr.open_group(root, mode="r")[path]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[...])


def by_tensorstore(root: Path, path: str) -> NDArray[Any]:
    """Read an array with tensorstore, which knows nothing of zarr-python."""
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(root / path)}}
    return np.asarray(tensorstore.open(spec, read=True).result().read().result())


def same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Equal in dtype, shape and value, NaN included."""
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def fill_of(spec: ArraySpec) -> NDArray[Any]:
    """What an array reads as before anything is written."""
    return np.full(spec.shape, float(spec.fill), spec.dtype)


@settings(max_examples=25)
@given(recordings())
def test_every_append_is_read_by_other_libraries(recording: tuple[ArraySpec, dict[int, NDArray[Any]]]) -> None:
    """After each append two independent libraries read what was written, and the fill value everywhere else."""
    spec, chunks = recording
    expected = fill_of(spec)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "t.zarr"
        store = StoreWriter(root, {})
        store.add_array(spec)
        store.publish()
        assert same(by_zarr(root, spec.path), expected)
        for step, chunk in chunks.items():
            store.append(spec.path, (step,), chunk[None])
            expected[step] = chunk
            assert same(by_zarr(root, spec.path), expected)
            assert same(by_tensorstore(root, spec.path), expected)


@settings(max_examples=25)
@given(st.lists(recordings(), min_size=1, max_size=4))
def test_appending_in_bulk_writes_the_same_bytes(several: list[tuple[ArraySpec, dict[int, NDArray[Any]]]]) -> None:
    """Chunks of several arrays appended in one compiled call leave the files that single appends leave."""
    assert bulk_calls() is not None, "compiled appending is not at hand here"
    specs = [replace(spec, path=f"x/{i}") for i, (spec, _) in enumerate(several)]
    with tempfile.TemporaryDirectory() as folder:
        one, two = (StoreWriter(Path(folder) / f"{name}.zarr", {}) for name in ("one", "two"))
        named = zip(specs, (steps for _, steps in several), strict=True)
        chunks = [(spec.path, step, chunk) for spec, steps in named for step, chunk in steps.items()]
        for store in (one, two):
            for spec in specs:
                store.add_array(spec)
        for path, step, chunk in chunks:
            one.append(path, (step,), chunk[None])
        two.append_all([(*chunk, 0) for chunk in chunks])
        files = [file for file in one.path.rglob("c.*") if file.is_file()]
        assert files
        for file in files:
            assert file.read_bytes() == (two.path / file.relative_to(one.path)).read_bytes(), file
        one.close()
        two.close()


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_the_bytes_of_a_chunk_do_not_depend_on_those_beside_it(tmp_path: Path, codec: Codec) -> None:
    """What cannot be made shorter is stored as it is, with a header, also where a larger chunk brings larger memory."""
    assert bulk_calls() is not None, "compiled appending is not at hand here"
    noise = np.frombuffer(np.random.default_rng(0).bytes(400), np.float32)
    store = StoreWriter(tmp_path / "t.zarr", {})
    for path, size in (("noise", 100), ("large", 1000)):
        store.add_array(tensor_spec(path, "float32", (size,), ("a",), steps=STEPS, codec=codec, attributes={}))
    store.append_all([("noise", 0, noise, 0), ("large", 0, np.zeros(1000, np.float32), 0)])
    store.close()
    shard = (store.path / "noise" / "c.0.0").read_bytes()
    offset, length = struct.unpack_from("<QQ", shard)
    assert length == noise.nbytes + 16 + CHECKSUM_BYTES and shard[offset:-CHECKSUM_BYTES].endswith(noise.tobytes())


@pytest.mark.parametrize("codec", ["raw", "lz4"])
def test_large_chunks_begin_on_pages(tmp_path: Path, codec: Codec) -> None:
    """Chunks written past the page cache leave the files of single appends, which all libraries read alike."""
    random = np.random.default_rng(0)
    spec = tensor_spec("x", "float32", (300_001,), ("a",), steps=STEPS, codec=codec, attributes={})
    noise = random.standard_normal((2, 300_001), np.float32)
    chunks = [noise[0], np.zeros(300_001, np.float32), noise[1], noise[1], noise[0]]
    one, two = (StoreWriter(tmp_path / f"{name}.zarr", {}) for name in ("one", "two"))
    for store in (one, two):
        store.add_array(spec)
        store.publish()
    with ThreadPoolExecutor(1) as writer:  # on the main thread blosc has several threads, and orders blocks by chance
        for step, chunk in enumerate(chunks):
            writer.submit(one.append, "x", (step,), chunk[None]).result()
            two.append_all([("x", step, in_pages(chunk), 0)])
            assert same(by_zarr(two.path, "x")[step], chunk) and same(by_tensorstore(two.path, "x")[step], chunk)
    shard = (two.path / "x" / "c.0.0").read_bytes()
    assert shard == (one.path / "x" / "c.0.0").read_bytes()
    offsets = [offset for offset, _ in struct.iter_unpack("<QQ", shard[: 16 * len(chunks)])]
    assert all(offset % PAGE == 0 for offset in offsets) and offsets[2] == offsets[3] and len(set(offsets)) == 4
    check_shards(two.path / "x", spec.metadata(), None)
    one.close()
    two.close()


def in_pages(chunk: NDArray[Any]) -> NDArray[Any]:
    """The chunk in memory that begins on a page boundary, as copies of tensors do."""
    memory = aligned_memory(chunk.nbytes).view(chunk.dtype)
    memory[:] = chunk
    return memory


@pytest.mark.parametrize("large", [100_000, 1_000_000])
def test_a_refused_write_in_bulk_tells_the_reason_and_keeps_the_rest(tmp_path: Path, large: int) -> None:
    """When the system takes only a part of a chunk, its error is raised; the chunks before it are there."""
    store = StoreWriter(tmp_path / "t.zarr", {})
    sizes = {"small": 10, "large": large, "after": 10}
    for path, size in sizes.items():
        store.add_array(tensor_spec(path, "float32", (size,), ("a",), steps=STEPS, codec="raw", attributes={}))
    store.publish()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            store.append_all([(path, 0, in_pages(np.ones(size, np.float32)), 0) for path, size in sizes.items()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        store.close()
    assert (by_zarr(store.path, "small")[0] == 1).all()
    assert np.isnan(by_zarr(store.path, "large")).all()


@settings(max_examples=25)
@given(st.data(), st.sampled_from(DTYPES), st.sampled_from(("lz4", "zstd", "raw")))
def test_an_array_written_whole_is_read_back(data: st.DataObject, dtype: str, codec: Codec) -> None:
    """An array without steps, a scalar too, is the same in both libraries, and writing it again replaces it."""
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=5))
    spec = tensor_spec("x", dtype, shape, DIMS[: len(shape)], steps=None, codec=codec, attributes={})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "t.zarr"
        store = StoreWriter(root, {})
        store.add_array(spec)
        store.publish()
        for _ in range(2):
            array = data.draw(hnp.arrays(dtype, shape))
            store.write("x", (0,) * len(shape), array)
            assert same(by_zarr(root, "x"), array)
            assert same(by_tensorstore(root, "x"), array)


@pytest.mark.parametrize("texts", [["a", "", "ü 🦦", "x" * 500], []])
def test_text_is_read_back(tmp_path: Path, texts: list[str]) -> None:
    """Arrays of strings, empty and not ASCII too, come back as they were."""
    store = StoreWriter(tmp_path / "t.zarr", {})
    store.add_array(tensor_spec("names", "string", (len(texts),), ("n",), steps=None, codec="raw", attributes={}))
    if texts:
        store.write("names", (0,), np.array(texts, dtype=object))
    store.publish()
    assert by_zarr(tmp_path / "t.zarr", "names").tolist() == texts


def test_a_step_written_twice_holds_the_latter(tmp_path: Path) -> None:
    """Writing a step again replaces it and leaves its neighbours."""
    store = StoreWriter(tmp_path / "t.zarr", {})
    store.add_array(tensor_spec("x", "float32", (2,), ("a",), steps=3, codec="lz4", attributes={}))
    store.publish()
    for step, value in ((0, 1), (1, 2), (0, 3)):
        store.append("x", (step,), np.full((1, 2), value))
    assert by_zarr(tmp_path / "t.zarr", "x")[:2].tolist() == [[3, 3], [2, 2]]


def test_a_table_of_many_sites_is_read_whole(tmp_path: Path) -> None:
    """Blocks of sites are appended one by one, the last cut to the number of sites there are."""
    sites = SITE_BLOCK + 3
    store = StoreWriter(tmp_path / "t.zarr", {})
    for spec in table_specs("statistics/unet", steps=2, sites=sites, attributes={}):
        store.add_array(spec)
    store.publish()
    rows = np.arange(2 * SITE_BLOCK, dtype=np.uint8)
    for block in range(2):
        store.append("statistics/unet/captured", (1, block), rows[None, block * SITE_BLOCK : (block + 1) * SITE_BLOCK])
    for read in (by_zarr, by_tensorstore):
        captured = read(tmp_path / "t.zarr", "statistics/unet/captured")
        assert captured[1].tolist() == rows[:sites].tolist()
        assert not captured[0].any()
    assert np.isnan(by_zarr(tmp_path / "t.zarr", "statistics/unet/statistics")).all()


def test_a_table_that_grows_keeps_its_rows(tmp_path: Path) -> None:
    """More sites and more steps than at first change metadata only; what was written reads as before."""
    root = tmp_path / "t.zarr"
    store = StoreWriter(root, {})
    small, large = (
        table_specs("s/u", steps=steps, sites=sites, attributes={}) for steps, sites in ((1, 4), (200, 300))
    )
    for spec in small:
        store.add_array(spec)
    store.append("s/u/captured", (0, 0), np.ones((1, SITE_BLOCK), np.uint8))
    for spec in large:
        store.add_array(spec)
    store.append("s/u/captured", (150, 1), np.full((1, SITE_BLOCK), 2, np.uint8))
    store.publish()
    captured = by_zarr(root, "s/u/captured")
    assert captured.shape == (200, 300)
    assert set(captured[0, :4].tolist()) == {1}
    assert set(captured[150, SITE_BLOCK:].tolist()) == {2}
    assert captured.sum() == SITE_BLOCK + 2 * (300 - SITE_BLOCK)


def test_arrays_can_be_resized(tmp_path: Path) -> None:
    """Growing keeps every chunk and adds the fill value; shrinking cuts."""
    root = tmp_path / "t.zarr"
    store = StoreWriter(root, {})
    store.add_array(tensor_spec("x", "int64", (1,), ("a",), steps=2, codec="lz4", attributes={}))
    store.append("x", (1,), np.full((1, 1), 7))
    for steps, expected in ((300, [0, 7, 0]), (2, [0, 7]), (1, [0])):
        store.resize("x", (steps, 1))
        store.publish()
        for read in (by_zarr, by_tensorstore):
            array = read(root, "x")
            assert array.shape == (steps, 1)
            assert array[:3, 0].tolist() == expected


def test_single_elements_are_set_in_place(tmp_path: Path) -> None:
    """`poke` sets one element of any chunk and leaves the fill value in all others."""
    root = tmp_path / "t.zarr"
    store = StoreWriter(root, {})
    store.add_array(ArraySpec("t", "float64", (10,), ("step",), (4,), None, "raw", "NaN", has_checksums=False))
    store.publish()
    for position in (9, 0):
        store.poke("t", position, position + 0.5)
        for read in (by_zarr, by_tensorstore):
            assert read(root, "t")[position] == position + 0.5
    assert np.isnan(by_zarr(root, "t")[1:9]).all()


def module_tree(root: Path) -> StoreWriter:
    """A store of modules whose sizes clash with those of their parents and siblings."""
    store = StoreWriter(root, {"format_version": 1})
    sizes = {"unet": (True, 2), "unet.down": (True, 4), "unet.down.0": (False, 8), "unet.up": (False, 16)}
    for name, (has_children, size) in sizes.items():
        path = f"{module_group(name, has_children=has_children)}/output"
        store.add_array(tensor_spec(path, "float32", (size,), ("batch",), steps=3, codec="lz4", attributes={}))
        store.append(path, (0,), np.full((1, size), size))
    store.add_array(ArraySpec("step", "int64", (3,), ("step",), (4,), None, "raw", 0))
    store.write("step", (0,), np.arange(4))
    store.publish()
    return store


def test_xarray_opens_modules_of_clashing_sizes(tmp_path: Path) -> None:
    """`open_datatree` and `open_zarr` know the engine by the name, and parent and child never disagree."""
    root = tmp_path / "t.zarr"
    module_tree(root)
    with xarray.open_datatree(root) as tree:
        assert tree["unet/down/_io"]["output"].sizes == {"step": 3, "batch": 4}
        assert tree["unet/down/0"].ds["output"][0].values.tolist() == [8.0] * 8
        assert tree["unet/up"].ds["step"].values.tolist() == [0, 1, 2]
    with xarray.open_zarr(root, group="unet/_io") as dataset:
        assert dataset["output"].dims == ("step", "batch")
        assert np.isnan(dataset["output"][1:]).all()


@pytest.mark.parametrize("name", ["a/b", "..", "_io", "ü", "x y", "c", "a:b", "%41", "A\n", "\x1b[2J", "C:\\x", "~"])
def test_odd_names_stay_inside_the_store(tmp_path: Path, name: str) -> None:
    """No name of a module leads out of the store or into another module's group, and each can be read."""
    root = tmp_path / "t.zarr"
    store = module_tree(root)
    path = f"{module_group('unet', has_children=False)}/{module_group(name.replace('.', 'x'), has_children=True)}/o"
    assert path.count("/") == 3
    store.add_array(tensor_spec(path, "float32", (3,), ("batch",), steps=3, codec="lz4", attributes={}))
    store.append(path, (0,), np.ones((1, 3)))
    store.publish()
    assert (root / path).resolve().is_relative_to(root.resolve())
    assert by_zarr(root, path)[0].tolist() == [1, 1, 1]
    with xarray.open_datatree(root) as tree:
        assert tree[path].shape == (3, 3)
    assert {file.name for file in tmp_path.iterdir()} == {"t.zarr"}


segments = st.lists(st.text(min_size=1, max_size=6).map(lambda text: text.replace(".", "_")), min_size=1, max_size=4)


@given(segments, st.booleans())
def test_group_names_are_injective_and_plain(names: Sequence[str], has_children: bool) -> None:
    """A module's group can be turned back into its name, so two modules never share one; its parts are plain ASCII."""
    group = module_group(".".join(names), has_children=has_children)
    parts = group.split("/")
    if has_children:
        assert parts.pop() == IO_GROUP
    assert IO_GROUP not in parts
    assert [unquote(part) for part in parts] == list(names)
    assert all(part.isascii() and part not in ("", ".", "..") for part in parts)
    assert PurePosixPath(group).as_posix() == group


def test_a_reader_never_sees_a_half_made_store(tmp_path: Path) -> None:
    """Between any two operations of the writer the store opens and reads, and no temporary file is left behind."""
    root = tmp_path / "t.zarr"
    store = StoreWriter(root, {"status": "recording"})
    spec = tensor_spec("unet/a", "float32", (2,), ("batch",), steps=2, codec="lz4", attributes={})
    other = replace(spec, path="unet/b/_io/output", shape=(2, 3), chunk=(1, 3), shard=(128, 3), dims=("step", "n"))
    operations: list[Callable[[], object]] = [
        lambda: store.set_group("unet", {"class": "UNet"}),
        lambda: store.add_array(spec),
        lambda: store.append(spec.path, (0,), np.ones((1, 2))),
        store.publish,
        lambda: store.add_array(other),
        lambda: store.append(other.path, (1,), np.ones((1, 3))),
        lambda: store.append(spec.path, (1,), np.ones((1, 2))),
        store.publish,
        lambda: store.resize(spec.path, (200, 2)),
        lambda: store.resize(other.path, (200, 3)),
        lambda: store.append(spec.path, (180,), np.ones((1, 2))),
        store.publish,
        lambda: store.set_group("", {"status": "complete"}),
        store.release_reserve,
        store.publish,
    ]
    for operation in operations:
        operation()
        with xarray.open_datatree(root) as tree:
            tree.load()
        for _, array in zarr.open_group(root, mode="r").members(max_depth=None):
            if isinstance(array, zarr.Array):
                np.asarray(array[...])
        assert not list(root.rglob("*.partial"))
    assert zarr.open_group(root, mode="r").attrs["status"] == "complete"
    assert np.nansum(by_zarr(root, spec.path)) == 6
    assert {file.name for file in root.iterdir()} == {"zarr.json", "unet"}


def test_a_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    """When a chunk cannot take its place the error is the disk's, and the half-written file is gone."""
    root = tmp_path / "t.zarr"
    store = StoreWriter(root, {})
    store.add_array(tensor_spec("x", "float32", (2,), ("a",), steps=None, codec="lz4", attributes={}))
    (root / "x" / "c.0").mkdir(parents=True)
    with pytest.raises(OSError, match=r"c\.0"):
        store.write("x", (0,), np.ones(2))
    assert not list(root.rglob("*.partial"))


def test_a_deleted_store_is_not_brought_to_life(tmp_path: Path) -> None:
    """Once the folder is gone, writing fails and does not make a part of it anew."""
    root = tmp_path / "t.zarr"
    store = StoreWriter(root, {})
    store.add_array(tensor_spec("x", "float32", (2,), ("a",), steps=2, codec="lz4", attributes={}))
    shutil.rmtree(root)
    with pytest.raises(FileNotFoundError):
        store.append("x", (0,), np.ones((1, 2)))
    assert not root.exists()


def test_a_store_that_was_moved_is_written_on(tmp_path: Path) -> None:
    """What comes after the folder was renamed goes into it, and nothing comes up where it was."""
    root = tmp_path / "t.zarr"
    store = StoreWriter(root, {})
    store.add_array(tensor_spec("x", "float32", (2,), ("a",), steps=2, codec="raw", attributes={}))
    root.rename(tmp_path / "elsewhere.zarr")
    store.append("x", (0,), np.ones((1, 2), np.float32))
    store.publish()
    store.close()
    assert not root.exists()
    read = zarr.open_array(tmp_path / "elsewhere.zarr", path="x", mode="r")
    assert np.asarray(read[0]).tolist() == [1, 1]


@pytest.mark.parametrize("codec", ["lz4", "raw"])
def test_equal_consecutive_chunks_are_stored_once(tmp_path: Path, codec: Codec) -> None:
    """A tensor that does not change costs one chunk, and every reader finds it at every step."""
    spec = tensor_spec("x/key", "float32", (64, 64), ("a", "b"), steps=6, codec=codec, attributes={})
    writer = StoreWriter(tmp_path / "s.zarr", {})
    writer.add_array(spec)
    writer.publish()
    rng = np.random.default_rng(0)
    key, other = rng.standard_normal((2, 64, 64)).astype(np.float32)
    almost = key.copy()
    almost[-1, -1] += 1  # differs in the last bytes only
    sizes = []
    for step, chunk in enumerate((key, key, key, almost, key, other)):
        writer.append("x/key", (step,), chunk[None])
        sizes.append((tmp_path / "s.zarr/x/key/c.0.0.0").stat().st_size)
    assert sizes[0] == sizes[1] == sizes[2] < sizes[3] < sizes[4] < sizes[5]
    expected = np.stack([key, key, key, almost, key, other])
    for reader in (by_zarr, by_tensorstore):
        assert np.array_equal(reader(tmp_path / "s.zarr", "x/key"), expected)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not name open files")
def test_a_durable_store_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `durable` everything written, and the folders it lies in, is synced; without it nothing is."""
    synced: list[str] = []
    wait = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        wait(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    spec = tensor_spec("x/y", "float32", (2,), ("a",), steps=6, codec="raw", attributes={})
    for durable in (False, True):
        root = tmp_path / f"{durable}.zarr"
        writer = StoreWriter(root, {}, durable=durable)
        writer.add_array(spec)
        writer.publish()
        writer.append("x/y", (0,), np.zeros((1, 2), np.float32))
        assert not durable or {str(root / "x/y/c.0.0"), str(root / "x/y"), str(root / "x"), str(root)} <= set(synced)
        assert bool(synced) is durable


def test_a_trace_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    """Where the first words do not fit on the disk, no folder is left that would be in the way of the next try."""

    class Full(StoreWriter):
        def publish(self) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        Full(tmp_path / "deep" / "t.zarr", {})
    assert not (tmp_path / "deep" / "t.zarr").exists()
    StoreWriter(tmp_path / "deep" / "t.zarr", {}).close()
