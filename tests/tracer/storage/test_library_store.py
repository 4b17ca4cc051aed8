"""Stores that are no local folder: what is recorded into them, and read from them, is what a folder holds."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import obstore.store
import pytest
import torch
import xarray
import zarr
from numpy.typing import NDArray
from torch import Tensor, nn
from zarr.abc.store import Store
from zarr.buffer.cpu import Buffer
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore, WrapperStore, ZipStore

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import (
    StoreError,
    StoreExistsError,
    Trace,
    TraceFormatError,
    TraceNotFoundError,
    Tracer,
    TracerWarning,
    open_trace,
)
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.layout import tensor_spec
from diffusion_xray.tracer.storage.library_store import LibraryStore, Where
from diffusion_xray.tracer.storage.library_writer import LibraryWriter

from ..networks import Denoiser, denoise

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)
ODD_NAMES = ("_hidden", "a b", "%41", "ü", "x/y")
CHANGING = ("started", "seconds", "title")
"""Attributes that differ from one run to the next."""


@dataclass
class Kind:
    """One kind of place: where to record, and as what other libraries read it afterwards."""

    where: Where
    reading: Callable[[], Any] = field(default=lambda: None)


def folder_for_obstore(tmp_path: Path) -> ObjectStore[Any]:
    """An object store on a disk."""
    return ObjectStore(obstore.store.LocalStore(tmp_path / "objects", mkdir=True))


def closed_zip(store: ZipStore) -> ZipStore:
    """Close a zip file, as its owner does, and open it for reading."""
    store.close()
    return ZipStore(store.path, mode="r")


def kind_of(name: str, tmp_path: Path) -> Kind:
    """Make a place of some kind."""
    url = f"memory://{uuid4().hex}/run.zarr"
    if name == "zip store":
        packed = ZipStore(tmp_path / "store.zarr.zip", mode="w")
        return Kind(packed, lambda: closed_zip(packed))
    places: dict[str, Callable[[], Where]] = {
        "folder": lambda: tmp_path / "folder.zarr",
        "file URL": lambda: f"file://{tmp_path}/file.zarr",
        "local store": lambda: LocalStore(tmp_path / "local.zarr"),
        "memory": lambda: MemoryStore(),  # noqa: PLW0108 — mypy knows what this returns
        "zip file": lambda: tmp_path / "file.zarr.zip",
        "fsspec": lambda: FsspecStore.from_url(url),
        "fsspec on a disk": lambda: FsspecStore.from_url(f"file://{tmp_path}/fsspec.zarr"),
        "URL": lambda: url,
        "obstore": lambda: ObjectStore(obstore.store.MemoryStore()),
        "obstore on a disk": lambda: folder_for_obstore(tmp_path),
    }
    where = places[name]()
    return Kind(where, lambda: ZipStore(where, mode="r") if str(where).endswith(".zip") else where)  # type: ignore[arg-type]


KINDS = (
    "file URL",
    "local store",
    "memory",
    "zip file",
    "zip store",
    "fsspec",
    "fsspec on a disk",
    "URL",
    "obstore",
    "obstore on a disk",
)
REMOTE = ("memory", "fsspec", "URL", "obstore", "obstore on a disk")
"""Those that are written key by key."""


def run(where: Where, **options: Any) -> tuple[Tracer, Tensor]:
    """A run with tensors of every dtype and records of odd names, the same every time."""
    model = Denoiser()
    with torch.no_grad(), Tracer(model, where, capture="all", **options) as tracer:
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        for step in range(3):
            latents = latents - 0.1 * model(latents, 1000.0 - 100 * step)[0]
            for dtype in DTYPES:
                tracer.record(f"kinds.{str(dtype).removeprefix('torch.')}", (latents * 9).abs().to(dtype))
            for name in ODD_NAMES:
                tracer.record(name, latents.sum())
        tracer.step(None)
        model.never(torch.ones(2))  # outside of the loop
    return tracer, latents


def same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Equal in dtype, shape and value, NaN included."""
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def attributes_of(node: Any) -> dict[str, Any]:
    """Attributes that do not change from run to run."""
    return {key: value for key, value in dict(node.attrs).items() if key not in CHANGING}


def assert_same_trace(trace: Trace, expected: Trace) -> None:
    """Two traces say the same, whatever they are stored in."""
    assert list(trace.modules) == list(expected.modules)
    assert trace.n_steps == expected.n_steps
    assert (trace.info.status, trace.info.gaps) == (expected.info.status, expected.info.gaps)
    assert same(trace.timestep, expected.timestep)
    for table, other in zip(trace.tables(), expected.tables(), strict=True):
        assert table.sites == other.sites
        assert same(table.values, other.values)
        assert same(table.captured, other.captured)
    for module in expected.modules.values():
        for site in module.sites:
            step = expected.n_steps - 1 if site.stepped else 0
            assert (trace.histogram(site, step).counts == expected.histogram(site, step).counts).all()
            if site.array:
                assert same(trace.tensor(site, step), expected.tensor(site, step))
    name = next(name for name, module in expected.modules.items() if module.stored)
    assert trace[name].load().identical(expected[name].load())
    assert trace.tree.groups == expected.tree.groups


def assert_same_by_other_libraries(where: Any, expected: Path) -> None:
    """zarr-python and xarray, on their own, find the same arrays in both stores."""
    nodes = dict(zarr.open_group(expected, mode="r").members(max_depth=None))
    found = dict(zarr.open_group(where, mode="r").members(max_depth=None))
    assert set(found) == set(nodes)
    for path, node in nodes.items():
        assert attributes_of(found[path]) == attributes_of(node)
        if isinstance(node, zarr.Array):
            array = found[path]
            assert isinstance(array, zarr.Array)
            assert array.metadata.dimension_names == node.metadata.dimension_names  # type: ignore[union-attr]
            assert same(np.asarray(array[...]), np.asarray(node[...]))
    dataset, other = (xarray.open_zarr(at, group="statistics/model", chunks=None) for at in (where, expected))
    assert dataset.load().identical(other.load())
    tree, other_tree = (xarray.open_datatree(at, engine="zarr", chunks=None) for at in (where, expected))
    assert set(tree.groups) == set(other_tree.groups)
    for group in tree.groups[1:]:
        assert tree[group].to_dataset().load().identical(other_tree[group].to_dataset().load())


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in a folder."""
    path = tmp_path_factory.mktemp("local") / "run.zarr"
    run(path)
    return path


@pytest.mark.parametrize("name", KINDS)
def test_every_store_holds_what_a_folder_holds(name: str, tmp_path: Path, local: Path) -> None:
    """A run recorded into any store is read back the same by this package, by zarr-python and by xarray."""
    kind = kind_of(name, tmp_path)
    tracer, _ = run(kind.where)
    assert tracer.trace.n_steps == 3
    reading = kind.reading()
    assert_same_trace(open_trace(reading), open_trace(local))
    assert_same_by_other_libraries(reading, local)


def test_a_pipeline_is_recorded_into_a_store(tmp_path: Path) -> None:
    """Prompts, previews and pictures of the embedded model are in a store as they are in a folder."""
    pipeline = load_pipeline()
    pipeline.set_progress_bar_config(disable=True)

    def traced(where: Where) -> tuple[Trace, NDArray[Any]]:
        generator = torch.Generator().manual_seed(3)
        with Tracer(pipeline, where) as tracer:
            drawn = pipeline("a red circle on white", num_inference_steps=2, generator=generator, output_type="np")
        return tracer.trace, drawn.images

    (trace, images), (expected, plain) = traced(MemoryStore()), traced(tmp_path / "run.zarr")
    assert np.array_equal(images, plain)
    assert_same_trace(trace, expected)
    assert trace.prompts[0].tokens == expected.prompts[0].tokens
    assert trace.images is not None
    assert expected.images is not None
    assert same(trace.images, expected.images)
    assert trace.steps.load().identical(expected.steps.load())
    assert "preview_x0" in trace.steps


class Logged(WrapperStore):  # type: ignore[type-arg]
    """A store that notes what is set, in the order of arrival."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.log: list[tuple[str, bytes]] = []

    async def set(self, key: str, value: Buffer) -> None:  # type: ignore[override]
        """Set, and note."""
        await super().set(key, value)
        self.log.append((key, value.to_bytes()))


def test_a_trace_in_a_store_is_readable_after_every_write() -> None:
    """Stopped after any key, a trace opens, shows only committed steps, and these are complete."""
    logged = Logged(MemoryStore())
    whole = run(logged)[0].trace
    key_of_commit = "committed/c.0"
    replayed: dict[str, Any] = {}
    shown = []
    for key, value in logged.log:
        replayed[key] = Buffer.from_bytes(value)
        if key not in (key_of_commit, "zarr.json"):
            continue
        trace = open_trace(MemoryStore(replayed))
        with xarray.open_datatree(MemoryStore(replayed), engine="zarr", chunks=None) as tree:  # type: ignore[arg-type]
            tree.load()
        shown.append(trace.n_steps)
        for table in trace.tables():
            if table.stepped:
                full = whole.table(table.component)
                assert same(table.values, full.values[: trace.n_steps, : len(table.sites)])
                assert table.captured.all()
        for module in trace.modules.values():
            for site in module.sites:
                for step in range(trace.n_steps) if site.stepped and site.array else ():
                    assert same(trace.tensor(site, step), whole.tensor(whole.site(site.key), step))
    assert shown[0] == 0
    assert shown == sorted(shown)
    assert set(shown) == {0, 1, 2, 3}


def await_steps(trace: Trace, steps: int) -> None:
    """Wait until the writer, in its thread, has committed so many steps."""
    deadline = time.monotonic() + 30
    while trace.n_steps < steps and time.monotonic() < deadline:
        time.sleep(0.01)
        trace.refresh()
    assert trace.n_steps == steps


@pytest.mark.parametrize("name", [*REMOTE, "zip file"])
def test_a_running_trace_is_followed(name: str, tmp_path: Path) -> None:
    """Steps show up while the run goes on; of a zip file, in what will be packed into it."""
    model = Denoiser()
    with Tracer(model, kind_of(name, tmp_path).where) as tracer:
        trace = tracer.trace
        for step in range(4):
            model(torch.zeros(1, 4, 8, 8), 10.0 - step)
            await_steps(trace, step)
            assert trace.info.status == "recording"
    assert tracer.trace.n_steps == 4


class Full(WrapperStore):  # type: ignore[type-arg]
    """A store that takes so many keys and then no more."""

    def __init__(self, store: Store, room: int = 0, error: type[Exception] = OSError) -> None:
        super().__init__(store)
        self.room = room
        self.error = error

    async def set(self, key: str, value: Buffer) -> None:  # type: ignore[override]
        """Set, or fail."""
        self.room -= 1
        if self.room < 0:
            raise self.error(errno.ENOSPC, "No space left in this bucket")
        await super().set(key, value)

    def with_read_only(self, read_only: bool = False) -> Any:
        """What is there can be read."""
        return self._store.with_read_only(read_only)


@pytest.mark.parametrize("error", [OSError, RuntimeError])
@pytest.mark.parametrize("room", [1, 5, 40, 120])
def test_a_failing_store_costs_records_not_the_run(room: int, error: type[Exception], local: Path) -> None:
    """Whenever a store fails, and however, the output is the same, one warning is shown, and the trace still opens."""
    _, plain = run(MemoryStore())
    inside = MemoryStore()
    with pytest.warns(TracerWarning, match="incomplete.*No space left in this bucket") as caught:
        _, traced = run(Full(inside, room, error))
    assert len(caught) == 1
    assert torch.equal(plain, traced)
    assert open_trace(inside).n_steps < 3
    assert open_trace(inside).info.status == "recording", "a full store does not take the last words either"


def test_a_store_that_recovers_says_why_it_is_incomplete() -> None:
    """Where the last words can be written they name what was wrong."""

    class Shaky(Full):
        async def set(self, key: str, value: Buffer) -> None:  # type: ignore[override]
            self.room -= 1
            if self.room == 0:
                raise OSError("connection lost")
            await self._store.set(key, value)

    store = Shaky(MemoryStore(), 90)
    with pytest.warns(TracerWarning, match="connection lost"):
        tracer, _ = run(store)
    assert tracer.trace.info.status == "incomplete"
    assert "connection lost" in tracer.trace.info.error["message"]


def test_a_store_emptied_in_mid_run_is_not_brought_to_life() -> None:
    """Half a trace is not written into a store from which the other half was deleted."""
    model = Denoiser()
    inside: dict[str, Any] = {}
    plain = denoise(model)

    def traced() -> Tensor:
        with Tracer(model, MemoryStore(inside)) as tracer:
            output = denoise(model)
            await_steps(tracer.trace, 3)  # the last step ends with the block
            inside.clear()
            return output

    with pytest.warns(TracerWarning, match="was deleted while"):
        output = traced()
    assert torch.equal(plain, output)
    assert "zarr.json" not in inside


def test_a_store_that_cannot_be_written_is_told_before_the_run() -> None:
    """The first key that fails, and a store for reading only, are errors at the start."""
    with pytest.raises(StoreError, match=r"zarr\.json cannot be written: .*No space left"):
        run(Full(MemoryStore()))
    with pytest.raises(StoreError, match="reading only"):
        run(MemoryStore(read_only=True))


@pytest.mark.parametrize("name", [*REMOTE, "zip file", "zip store"])
def test_an_older_trace_in_a_store_is_replaced_on_request_only(name: str, tmp_path: Path) -> None:
    """What is there stays without `overwrite`, and leaves nothing behind with it."""
    where = kind_of(name, tmp_path).where
    run(where)
    with pytest.raises(StoreExistsError, match="overwrite=True"):
        run(where)
    with Tracer(nn.Linear(1, 1), where, overwrite=True) as tracer:
        tracer._target.components["model"](torch.zeros(1))
    assert list(tracer.trace.modules) == ["model"]
    assert not {node for node in tracer.trace.tree.groups if "records" in node}


@pytest.mark.parametrize("name", [*REMOTE, "zip store"])
def test_what_is_not_a_trace_is_never_deleted_from_a_store(name: str, tmp_path: Path) -> None:
    """`overwrite` does not touch another Zarr store."""
    where = kind_of(name, tmp_path).where
    group = zarr.open_group(where, mode="w")
    group.create_array("thesis", data=np.arange(3))
    with pytest.raises(StoreExistsError, match="not a trace"):
        run(where, overwrite=True)
    if name != "zip store":
        assert zarr.open_group(where, mode="r")["thesis"][...].tolist() == [0, 1, 2]  # type: ignore[index,union-attr]


def test_a_zip_file_holds_each_key_once_and_nothing_else_stays(tmp_path: Path) -> None:
    """After the run there is the file, without duplicates, and the folder it was packed from is gone."""
    run(tmp_path / "run.zarr.zip")
    with zipfile.ZipFile(tmp_path / "run.zarr.zip") as packed:
        names = packed.namelist()
        assert packed.testzip() is None
    assert len(set(names)) == len(names)
    assert "zarr.json" in names
    assert not [name for name in names if name.endswith((".reserve", ".partial"))]
    assert [file.name for file in tmp_path.iterdir()] == ["run.zarr.zip"]


def test_a_recording_that_was_not_packed_is_kept(tmp_path: Path) -> None:
    """What a killed process leaves is a trace in a folder, which is not thrown away without being asked for."""
    path, folder = tmp_path / "run.zarr.zip", tmp_path / "run.recording.zarr"
    model = Denoiser()
    with Tracer(model, path):
        denoise(model)
        assert open_trace(folder).info.status == "recording"
    assert not folder.exists()
    run(folder)
    with pytest.raises(StoreExistsError, match=r"run\.recording\.zarr holds a trace already"):
        run(path, overwrite=False)
    run(path, overwrite=True)
    assert not folder.exists()


def test_a_zip_file_that_cannot_be_made_costs_nothing(tmp_path: Path) -> None:
    """When packing fails there is one warning, and the recording stays where it says."""
    path = tmp_path / "run.zarr.zip"
    model = Denoiser()
    tracer = Tracer(model, path)

    def traced() -> None:
        with tracer:
            denoise(model)
            path.mkdir()

    with pytest.warns(TracerWarning, match=r"cannot be packed, what was recorded is in .*run\.recording\.zarr"):
        traced()
    assert tracer.trace.n_steps == 4
    assert {file.name for file in tmp_path.iterdir()} == {"run.zarr.zip", "run.recording.zarr"}


def test_a_folder_zipped_by_hand_is_read(tmp_path: Path, local: Path) -> None:
    """A zip file of what is in a trace's folder is a trace; of the folder itself it is not, and says so."""
    for name, top in (("good.zarr.zip", local), ("bad.zarr.zip", local.parent)):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in local.rglob("*"):
                packed.write(file, file.relative_to(top))
    assert_same_trace(open_trace(tmp_path / "good.zarr.zip"), open_trace(local))
    with pytest.raises(TraceFormatError, match=r"no zarr\.json at its top"):
        open_trace(tmp_path / "bad.zarr.zip")


@pytest.mark.parametrize(
    ("where", "error", "words"),
    [
        ("nosuch://bucket/run.zarr", TraceNotFoundError, "nosuch"),
        ("memory://nothing-here/run.zarr", TraceNotFoundError, "no trace at memory://nothing-here/run.zarr"),
        ("missing.zarr.zip", TraceNotFoundError, r"no trace at .*missing\.zarr\.zip"),
        ("damaged.zarr.zip", TraceFormatError, r"damaged\.zarr\.zip cannot be opened"),
        (ZipStore("missing.zip", mode="r"), TraceNotFoundError, r"no trace at .*missing\.zip"),
        ("missing.zarr", TraceNotFoundError, r"no trace at .*missing\.zarr"),
        (MemoryStore(), TraceNotFoundError, "no trace at memory://"),
        (3, TypeError, "a path, a URL or a Zarr store"),
    ],
)
def test_a_wrong_place_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, error: type[Exception], words: str
) -> None:
    """Whatever is wrong with the place of a trace to read is told in one line that names it."""
    monkeypatch.chdir(tmp_path)
    Path("damaged.zarr.zip").write_bytes(b"PK but no zip file")
    with pytest.raises(error, match=words) as caught:
        open_trace(where)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "error", "words"),
    [
        ("nosuch://bucket/run.zarr", StoreError, "nosuch"),
        ("memory://bucket/run", StoreError, r"must end in \.zarr"),
        (ZipStore("no such folder/run.zip", mode="w"), StoreError, "cannot write a trace at .*no such folder"),
        (3, TypeError, "a path, a URL or a Zarr store"),
    ],
)
def test_a_wrong_place_for_a_trace_is_a_clear_error(where: Any, error: type[Exception], words: str) -> None:
    """Likewise for a trace to write, before anything runs."""
    with pytest.raises(error, match=words):
        Tracer(nn.Linear(1, 1), where)


def test_a_store_is_not_trusted(local: Path) -> None:
    """Nodes that lead out of the store are not read, and a damaged key is a format error."""
    inside: dict[str, Any] = {}
    run(MemoryStore(inside))
    document = json.loads(inside["zarr.json"].to_bytes())
    nodes = document["consolidated_metadata"]["metadata"]
    nodes["../secret"] = nodes["step"]
    inside["zarr.json"] = Buffer.from_bytes(json.dumps(document).encode())
    inside["statistics/model/statistics/c.1.0.0"] = Buffer.from_bytes(b"damaged")
    trace = open_trace(MemoryStore(inside))
    assert "../secret" not in trace._archive
    with pytest.raises(TraceFormatError, match="no array"):
        trace._archive.load("../secret")
    with pytest.raises(TraceFormatError, match="cannot be read"):
        trace.table("model")
    for document_text in (b"\xff", b"[" * 100_000, b"[]", b"{}"):
        with pytest.raises(TraceFormatError):
            open_trace(MemoryStore({"zarr.json": Buffer.from_bytes(document_text)}))


def test_a_store_that_does_not_answer_is_a_clear_error() -> None:
    """An error of a store's client becomes ours."""

    class Silent(WrapperStore):  # type: ignore[type-arg]
        async def get(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("the network is down")

    with pytest.raises(TraceFormatError, match="the network is down"):
        open_trace(Silent(MemoryStore()))


def test_keys_that_wait_go_out_when_they_are_many() -> None:
    """What waits to be written together is bounded, and is what it was when it came."""
    inside: dict[str, Any] = {}
    writer = LibraryWriter(LibraryStore(MemoryStore(inside)), {})
    spec = tensor_spec("x", "float32", (1 << 20,), ("a",), steps=9, codec="raw", attributes={})
    writer.add_array(spec)
    chunk = np.empty((1, 1 << 20), np.float32)
    for step in range(4):
        assert "x/c.0.0" not in inside
        chunk[:] = step
        writer.append("x", (step,), chunk)
    writer.publish()
    array = zarr.open_group(MemoryStore(inside), mode="r")["x"]
    assert isinstance(array, zarr.Array)
    assert np.asarray(array[:4, 0]).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["zip file", "URL"])
def test_commands_take_any_place(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`dxray` reads zip files and URLs like folders."""
    where = str(kind_of(name, tmp_path).where)
    run(where)
    for command in (["info", where], ["info", where, "--json"], ["ls", where], ["stats", where]):
        assert main(command) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert where in shown.out
    assert "model.conv_in" in shown.out
    assert main(["info", "nosuch://bucket/run.zarr"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_reading_a_store_needs_no_torch(tmp_path: Path) -> None:
    """A zip file is read where torch cannot be imported."""
    run(tmp_path / "run.zarr.zip")
    read = (
        "import sys; sys.modules['torch'] = None\n"
        "from diffusion_xray.tracer import open_trace\n"
        "trace = open_trace(sys.argv[1])\n"
        "assert trace['model.conv_in']['output'].sizes['step'] == 3\n"
    )
    path = str(tmp_path / "run.zarr.zip")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", read, path], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
