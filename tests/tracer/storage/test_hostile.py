"""Traces that are not what they should be: each is one clear line, at once, and nothing outside of them is read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.errors import DxrayError, TraceFormatError
from diffusion_xray.tracer.layout import tensor_spec
from diffusion_xray.tracer.storage.integrity import reason_against
from diffusion_xray.tracer.storage.regular import open_regular, read_regular

GOLDEN = sorted((Path(__file__).parents[2] / "data").glob("golden-v*.zarr"))

Change = Callable[[dict[str, Any], dict[str, Any]], object]
"""Is given the root's document and the metadata of all nodes."""


@pytest.fixture(params=[path.stem for path in GOLDEN])
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A trace to spoil."""
    path = tmp_path / "run.zarr"
    shutil.copytree(GOLDEN[0].with_name(f"{request.param}.zarr"), path)
    return path


def table(nodes: dict[str, Any]) -> dict[str, Any]:
    """Attributes of a table."""
    found: dict[str, Any] = nodes["statistics/model"]["attributes"]
    return found


WRONG: dict[str, Change] = {
    "sites is an object": lambda _, nodes: table(nodes).update(sites={"x": None}),
    "sites is a number": lambda _, nodes: table(nodes).update(sites=3),
    "a shape holds text": lambda _, nodes: table(nodes)["sites"][0].update(shape=["x"]),
    "a call is a list": lambda _, nodes: table(nodes)["sites"][0].update(call=[1]),
    "an order is text": lambda _, nodes: table(nodes)["sites"][0].update(order="x"),
    "a call is infinite": lambda _, nodes: table(nodes)["sites"][0].update(call=float("inf")),
    "seconds beyond floats": lambda head, _: head["attributes"].update(seconds=10**400),
    "steps of a float": lambda _, nodes: nodes["committed"].update(shape=[1e3]),
    "no dimension of steps": lambda _, nodes: nodes["committed"].update(shape=[]),
    "10¹⁰ steps": lambda _, nodes: nodes["committed"].update(shape=[10**10]),
    "10⁹ noise levels": lambda _, nodes: nodes["sigma"].update(shape=[10**9]),
    "a table of another rank": lambda _, nodes: nodes["statistics/model/statistics"].update(shape=[2]),
    "a table without marks": lambda _, nodes: nodes["statistics/model/captured"].update(shape=[2, 0]),
    "chunks that are no list": lambda _, nodes: nodes["committed"]["chunk_grid"]["configuration"].update(chunk_shape=3),
    "an array without chunks": lambda _, nodes: nodes["committed"].pop("chunk_grid"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_said_in_another_way_than_it_should_be(
    name: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A field of another type, rank or size is one error of ours, and one line with exit code 2."""
    document = json.loads((copy / "zarr.json").read_text())
    WRONG[name](document, document["consolidated_metadata"]["metadata"])
    (copy / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(DxrayError):
        list(open_trace(copy).tables())
    assert main(["stats", str(copy)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dxray: ") and error.count("\n") == 1


def test_chunks_that_decode_to_much_more_than_there_is(copy: Path) -> None:
    """A chunk far larger than its array is refused before anything is decoded."""
    document = json.loads((copy / "zarr.json").read_text())
    node = document["consolidated_metadata"]["metadata"]["statistics/model/statistics"]
    for chunk in (node["chunk_grid"]["configuration"], node["codecs"][0]["configuration"]):
        chunk["chunk_shape"][2] = 10**6
    (copy / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(TraceFormatError, match="in chunks of"):
        open_trace(copy)


@pytest.mark.parametrize(
    ("shape", "steps"), [((32, 3, 1024, 1024), None), ((32, 64, 512, 512), 50), ((32, 64, 512, 512), 0), ((), None)]
)
def test_large_tensors_are_not_refused(shape: tuple[int, ...], steps: int | None) -> None:
    """What the writer makes of large batches, in the loop or outside, also of a run that completed no step, passes."""
    dims = [f"axis_{axis}" for axis in range(len(shape))]
    spec = tensor_spec("vae/output", "float32", shape, dims, steps=steps, codec="lz4", attributes={})
    assert not reason_against("vae/output", spec.metadata())


def fifo(path: Path) -> None:
    """A pipe that nobody writes into."""
    path.unlink()
    os.mkfifo(path)


def zeros(path: Path) -> None:
    """A device without an end."""
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    """A folder."""
    path.unlink()
    path.mkdir()


def link(path: Path) -> None:
    """A link to a file elsewhere, with the same contents."""
    root = next(above for above in path.parents if above.suffix == ".zarr")
    outside = root.parent / "outside"
    outside.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(outside)


@pytest.mark.parametrize("make", [fifo, zeros, folder, link])
@pytest.mark.parametrize("kind", ["zarr.json", "committed/c.0", "statistics/model/statistics/c.0.0.0"])
def test_what_is_no_file_is_not_opened(make: Callable[[Path], None], kind: str, copy: Path) -> None:
    """A pipe, device, folder, or a link out of the trace is refused at once, wherever it lies."""
    make(copy / kind)
    with pytest.raises(DxrayError):
        list(open_trace(copy).tables())


@pytest.mark.parametrize("make", [fifo, zeros])
def test_what_xarray_reads_is_looked_at_as_well(make: Callable[[Path], None], copy: Path) -> None:
    """Lazy arrays and the tree open no pipes and no devices either."""
    make(copy / "model/conv_in/output/c.0.0.0.0.0")
    trace = open_trace(copy)
    with pytest.raises(DxrayError):
        trace["model.conv_in"]["output"].values  # noqa: B018
    with pytest.raises(DxrayError):
        trace.tree["model/conv_in/output"].values  # noqa: B018


def test_a_link_within_the_trace_is_followed(copy: Path) -> None:
    """A file may be a link to another one of the same trace."""
    chunk = copy / "model/conv_in/output/c.0.0.0.0.0"
    moved = copy / "moved"
    chunk.rename(moved)
    chunk.symlink_to(moved)
    trace = open_trace(copy)
    assert trace.tensor(trace.site("model.conv_in")).size


def test_a_document_has_a_bound(tmp_path: Path) -> None:
    """Of a file that is larger than it may be nothing is read, though it takes no room on the disk."""
    path = tmp_path / "zarr.json"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(OSError, match="more than"):
        read_regular(path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["[" * 10**5, '{"attributes": {"format_version": ' + "9" * 5000 + "}}", "\x00"])
def test_documents_that_cannot_be_parsed(text: str, copy: Path) -> None:
    """Lists a hundred thousand deep and numbers of thousands of digits are no trace."""
    (copy / "zarr.json").write_text(text)
    with pytest.raises(TraceFormatError):
        open_trace(copy)


def test_an_error_nobody_thought_of_is_one_line(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of tests the command line shows no traceback, and says how to get one."""
    document = json.loads((copy / "zarr.json").read_text())
    document["attributes"]["process"] = {"pid": [], "started": {}, "machine": 3}
    document["attributes"]["call"] = {"prompt": {"\x1b[31m": [1]}}
    (copy / "zarr.json").write_text(json.dumps(document))
    monkeypatch.delenv("DXRAY_DEBUG")
    assert main(["info", str(copy)]) in (0, 2)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err and "\x1b" not in shown.out + shown.err
