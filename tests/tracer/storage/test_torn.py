"""A damaged file costs what is in it: the error names the array, and everything else reads as before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from numpy.typing import NDArray

from diffusion_xray.tracer import Capture, Trace, TraceFormatError, Tracer, open_trace
from diffusion_xray.tracer.layout import SHARD_STEPS

from ..networks import Denoiser, denoise

INDEX = 16 * SHARD_STEPS
STEPS = 3
VICTIM = "model.conv_in"


@pytest.fixture(scope="module", params=["lz4", "zstd", "raw"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace that nothing has happened to yet."""
    path, model, codec = tmp_path_factory.mktemp("whole") / "run.zarr", Denoiser(), request.param
    with Tracer(model, path, capture=Capture(modules="**", codec=codec)):
        denoise(model, steps=STEPS)
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "run.zarr"))


def shard_of(path: Path, array: str) -> Path:
    """The file of an array with steps."""
    (file,) = (path / array).glob("c.*")
    return file


def tensors(trace: Trace, *, but: str = "") -> dict[tuple[str, int], NDArray[Any]]:
    """Every stored tensor of the trace, without those in the array `but`."""
    sites = [site for module in trace.modules.values() for site in module.sites if site.array not in ("", but)]
    return {(site.key, step): trace.tensor(site, step) for site in sites for step in range(trace.n_steps)}


def assert_equal(seen: dict[tuple[str, int], NDArray[Any]], expected: dict[tuple[str, int], NDArray[Any]]) -> None:
    """Every one of the tensors is there and as it should be."""
    assert seen
    for key, tensor in seen.items():
        assert np.array_equal(tensor, expected[key]), key


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], set[int]]] = {
    "emptied": (lambda data: b"", {0, 1, 2}),
    "cut in mid-index": (lambda data: data[: INDEX // 2 + 5], {0, 1, 2}),
    "cut behind the index": (lambda data: data[:INDEX], {0, 1, 2}),
    "cut in mid-data": (lambda data: data[: INDEX + 40], {0, 1, 2}),
    "without its last bytes": (lambda data: data[:-3], {2}),
    "index pointing beyond the end": (lambda data: (1 << 40).to_bytes(8, "little") + data[8:], {0}),
    "length beyond the end": (lambda data: data[:24] + (1 << 40).to_bytes(8, "little") + data[32:], {1}),
    "length of nothing": (lambda data: data[:24] + bytes(8) + data[32:], {1}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_torn_shard_is_named_and_the_rest_reads(whole: Path, path: Path, damage: str) -> None:
    """A shard that was cut, or whose index is wrong, is an error that names its array; no other array notices."""
    tear, lost = DAMAGES[damage]
    expected = tensors(open_trace(whole))
    site = open_trace(path).site(VICTIM)
    shard = shard_of(path, site.array)
    shard.write_bytes(tear(shard.read_bytes()))
    trace = open_trace(path)
    assert trace.n_steps == STEPS
    for step in range(STEPS):
        if step in lost:
            with pytest.raises(TraceFormatError, match=f"{site.array} .*cannot be read"):
                trace.tensor(site, step)
        else:
            assert np.array_equal(trace.tensor(site, step), expected[site.key, step])
    assert_equal(tensors(trace, but=site.array), expected)
    assert np.isfinite(trace.table("model").column("mean")).all()


@pytest.mark.parametrize("damage", ["emptied", "cut in mid-index", "cut in mid-data"])
def test_xarray_loses_the_torn_array_only(whole: Path, path: Path, damage: str) -> None:
    """Readers that know nothing of traces open the rest: what is torn is told, at the latest, when it is read."""
    shard = shard_of(path, open_trace(path).site(VICTIM).array)
    shard.write_bytes(DAMAGES[damage][0](shard.read_bytes()))
    with xarray.open_datatree(path, engine="zarr", chunks=None) as tree, xarray.open_datatree(whole) as before:
        for group in before.subtree:
            if group.path.strip("/") != VICTIM.replace(".", "/"):
                assert tree[group.path].to_dataset().load().equals(group.to_dataset()), group.path


@pytest.mark.parametrize("name", ["statistics", "captured", "histogram"])
def test_a_torn_table_is_named(path: Path, name: str) -> None:
    """A damaged table is an error that names it; tensors, and the tables of other components, still read."""
    table = f"statistics/model/{name}"
    shard = shard_of(path, table)
    shard.write_bytes(shard.read_bytes()[: INDEX + 4])
    trace = open_trace(path)
    site = trace.site(VICTIM)
    with pytest.raises(TraceFormatError, match=f"{table} .*cannot be read"):
        trace.histogram(site, 1) if name == "histogram" else trace.table("model")
    assert tensors(trace)


@pytest.mark.parametrize("name", ["committed", "timestep"])
def test_a_torn_timeline_is_named(path: Path, name: str) -> None:
    """A cut array at the root is an error that names it, when it is asked for."""
    file = path / name / "c.0"
    file.write_bytes(file.read_bytes()[:100])
    trace = open_trace(path)
    with pytest.raises(TraceFormatError, match=f"{name} .*cannot be read"):
        _ = trace.n_steps if name == "committed" else trace.timestep
    assert trace.modules


def test_no_flipped_bit_of_an_index_gives_other_values(path: Path) -> None:
    """Whichever bit of an index entry is flipped, the step is read as it was or not at all, and its neighbours are."""
    if open_trace(path).info.capture["codec"] == "raw":
        pytest.skip("chunks without a header cannot be told apart")
    site = open_trace(path).site(VICTIM)
    expected = [open_trace(path).tensor(site, step) for step in range(STEPS)]
    shard = shard_of(path, site.array)
    good = shard.read_bytes()
    outcomes: list[object] = []
    for bit in range(16 * 8):
        bad = bytearray(good)
        bad[16 + bit // 8] ^= 1 << bit % 8
        shard.write_bytes(bad)
        trace = open_trace(path)
        try:
            outcomes.append(np.array_equal(trace.tensor(site, 1), expected[1]) or f"bit {bit}")
        except TraceFormatError as error:
            outcomes.append(site.array in str(error))
        if bit % 16 == 0:
            assert np.array_equal(trace.tensor(site, 0), expected[0])
            assert np.array_equal(trace.tensor(site, 2), expected[2])
    assert set(outcomes) == {True}, [outcome for outcome in outcomes if outcome is not True]
