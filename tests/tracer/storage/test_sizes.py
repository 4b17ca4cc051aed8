"""What reading takes: added up before anything is read, and refused where the files do not account for it."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
from pathlib import Path

import pytest

from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.errors import TraceFormatError
from diffusion_xray.tracer.layout import tensor_spec
from diffusion_xray.tracer.storage.sizes import LIMIT, check_depth, check_read, check_stored, most_bytes

GOLDEN = Path(__file__).parents[2] / "data" / "golden-v2.zarr"


def check(shape: tuple[int, ...], held: int | None) -> None:
    """Ask for a tensor without steps whose file takes so many bytes; None where there is none."""
    spec = tensor_spec("x", "float32", shape, ["axis"] * len(shape), steps=None, codec="lz4", attributes={})
    check_read(spec.metadata(), (), lambda name: None if held is None else (held, held), None)


@pytest.mark.parametrize("held", [None, 100, 1 << 20])
def test_what_files_do_not_account_for(held: int | None) -> None:
    """Two gigabytes out of a megabyte, of a few bytes, or of no file, are refused, with what to do."""
    with pytest.raises(ValueError, match=f"{LIMIT}=2147483648"):
        check((1 << 29,), held)


def test_what_is_large_or_small_passes() -> None:
    """A large tensor in a large file passes, and so does a small one, also of next to nothing, or never written."""
    check((1 << 29,), 1 << 26)
    check((1 << 20,), 40)
    check((1 << 20,), None)


def test_the_limit_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the number from the message it passes; what is no number is refused."""
    monkeypatch.setenv(LIMIT, "2147483648")
    check((1 << 29,), 100)
    monkeypatch.setenv(LIMIT, "2147483647")
    with pytest.raises(ValueError, match="would become"):
        check((1 << 29,), 100)
    monkeypatch.setenv(LIMIT, "lots")
    with pytest.raises(TraceFormatError, match="lots"):
        most_bytes()


def test_other_codecs_need_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """A codec that the writer never uses is not run, unless the user says so."""
    spec = tensor_spec("x", "float32", (4,), ["axis"], steps=None, codec="raw", attributes={})
    metadata = spec.metadata() | {"codecs": [{"name": "bytes"}, {"name": "gzip"}]}
    with pytest.raises(ValueError, match="gzip"):
        check_read(metadata, (), lambda name: (16, 16), None)
    monkeypatch.setenv(LIMIT, "1000000")
    check_read(metadata, (), lambda name: (16, 16), None)


def test_deep_documents() -> None:
    """A document has sixty levels at most; brackets in a text are no levels."""
    deep: list[object] = []
    for _ in range(80):
        deep = [deep]
    with pytest.raises(ValueError, match="levels"):
        check_depth({"attributes": deep})
    check_depth({"attributes": "[" * 1000})


def test_what_a_zip_file_promises(tmp_path: Path) -> None:
    """A member that becomes far more than it takes is refused, whichever it is, and the others are read."""
    with pytest.raises(ValueError, match="would become"):
        check_stored("c.0", 2 << 30, 2 << 20)
    check_stored("c.0", 2 << 30, 1 << 30)
    for bomb in ("zarr.json", "statistics/model/statistics/c.0.0.0"):
        path = tmp_path / f"{bomb.replace('/', '-')}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(file for file in GOLDEN.rglob("*") if file.is_file()):
                name = str(file.relative_to(GOLDEN))
                archive.writestr(name, bytes(64 << 20) if name == bomb else file.read_bytes())
        with pytest.raises(TraceFormatError, match="would become"):
            list(open_trace(path).tables())


def test_files_that_are_longer_than_their_chunk(tmp_path: Path) -> None:
    """Of a sparse file of gigabytes, and of texts whose count takes gigabytes, nothing is read."""
    copy = tmp_path / "run.zarr"
    shutil.copytree(GOLDEN, copy)
    os.truncate(copy / "statistics/records_once/statistics/c.0.0", 1 << 36)
    (copy / "statistics/records/site/c.0").write_bytes(struct.pack("<I", 2**32 - 1))
    trace = open_trace(copy)
    with pytest.raises(TraceFormatError, match="more than a chunk"):
        list(trace.tables())
    with pytest.raises(TraceFormatError, match="texts"):
        trace.tree  # noqa: B018


@pytest.mark.parametrize("component", [None, "", "model"])
def test_a_table_says_whose_it_is(component: str | None, tmp_path: Path) -> None:
    """A table of nobody, or of the component of another, is damage."""
    copy = tmp_path / "run.zarr"
    shutil.copytree(GOLDEN, copy)
    document = json.loads((copy / "zarr.json").read_text())
    document["consolidated_metadata"]["metadata"]["statistics/latents"]["attributes"]["component"] = component
    (copy / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(TraceFormatError, match="is damaged"):
        open_trace(copy).modules  # noqa: B018
