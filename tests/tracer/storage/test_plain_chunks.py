"""Arrays read without the library agree with what the library reads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr import codecs

from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.storage.plain_chunks import is_plain, read_plain

GOLDEN = Path(__file__).parents[2] / "data" / "golden-v1.zarr"


def metadata(path: Path) -> dict[str, Any]:
    """Of an array of zarr-python."""
    import json

    document: dict[str, Any] = json.loads((path / "zarr.json").read_text())
    return document


def golden_arrays() -> list[str]:
    """Every numeric array of the golden trace."""
    return [name for name, node in open_trace(GOLDEN)._archive._nodes.items() if is_plain(node)]


def test_most_arrays_are_plain() -> None:
    """What the browser draws its first picture from is among them."""
    assert {"committed", "timestep", "statistics/model/statistics", "statistics/model/histogram"} <= set(
        golden_arrays()
    )


@pytest.mark.parametrize("name", golden_arrays())
def test_agrees_with_the_library(name: str) -> None:
    """Whole arrays, steps and rows of the golden trace are what zarr-python reads."""
    nodes = open_trace(GOLDEN)._archive._nodes
    expected = zarr.open_group(GOLDEN, mode="r")[name]
    assert isinstance(expected, zarr.Array)
    places: list[tuple[int, ...]] = [(), (0,), (min(1, expected.shape[0] - 1),), (0, 0)[: expected.ndim]]
    for place in places:
        found = read_plain(GOLDEN / name, nodes[name], place)
        wanted = np.asarray(expected[:])[place]
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("chunks", [(1, 3), (2, 3), (7, 7)], ids=str)
@pytest.mark.parametrize("packed", [False, True])
def test_partial_chunks(tmp_path: Path, chunks: tuple[int, int], packed: bool) -> None:
    """Chunks that reach beyond the array, and chunks that are missing, read as by the library."""
    array = zarr.create_array(
        tmp_path / "a",
        shape=(5, 4),
        chunks=chunks,
        dtype="float32",
        fill_value=7,
        compressors=codecs.BloscCodec() if packed else None,
        chunk_key_encoding={"name": "default", "separator": "."},
    )
    array[1:3, :2] = np.arange(4).reshape(2, 2)
    document = metadata(tmp_path / "a")
    assert is_plain(document)
    np.testing.assert_array_equal(read_plain(tmp_path / "a", document, ()), array[:])
    np.testing.assert_array_equal(read_plain(tmp_path / "a", document, (2,)), array[2])
    assert read_plain(tmp_path / "a", document, (2, 1)) == array[2, 1]


@pytest.mark.parametrize("change", ["codec", "key", "type", "order"])
def test_other_forms_are_left_to_the_library(tmp_path: Path, change: str) -> None:
    """What is not as the writer makes it is not touched."""
    options: dict[str, Any] = {"dtype": "bool" if change == "type" else "float32"}
    if change == "codec":
        options["compressors"] = codecs.GzipCodec()
    elif change != "key":
        options["compressors"] = None
    if change == "order":
        options["filters"] = [codecs.TransposeCodec(order=(1, 0))]
    if change != "key":
        options["chunk_key_encoding"] = {"name": "default", "separator": "."}
    zarr.create_array(tmp_path / "a", shape=(5, 4), chunks=(2, 2), **options)
    assert not is_plain(metadata(tmp_path / "a"))


def test_torn_files(tmp_path: Path) -> None:
    """A file that is cut, at whatever place, is refused or reads as before; it never reads as something else."""
    import shutil

    name = "statistics/model/statistics"
    nodes = open_trace(GOLDEN)._archive._nodes
    expected = read_plain(GOLDEN / name, nodes[name], ())
    shutil.copytree(GOLDEN / name, tmp_path / "a")
    (file,) = (path for path in (tmp_path / "a").glob("c.*"))
    whole = file.read_bytes()
    refused = 0
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        try:
            found = read_plain(tmp_path / "a", nodes[name], ())
        except ValueError:
            refused += 1
        else:
            np.testing.assert_array_equal(found, expected)
    assert refused > 10


@pytest.mark.parametrize("place", [(9,), (-1,), (0, 99), (0, 0, 0, 0)])
def test_places_outside(place: tuple[int, ...]) -> None:
    """A place that is not there is an error, not another place."""
    name = "statistics/model/statistics"
    with pytest.raises(IndexError, match="outside"):
        read_plain(GOLDEN / name, open_trace(GOLDEN)._archive._nodes[name], place)
