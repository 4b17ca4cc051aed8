"""The xarray engine: attention beside what is stored, lazily and in blocks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from diffusion_xray.tracer import TraceNotFoundError, open_trace

from ..attending import CROSS, SELF, Call, made_trace

GROUP = f"{CROSS.replace('.', '/')}/_io"


@pytest.fixture
def tree(embedded: Path) -> Iterator[xarray.DataTree]:
    """The embedded model's trace in blocks."""
    with xarray.open_datatree(embedded, engine="diffusion-xray", chunks={}) as opened:
        yield opened


def test_attention_stands_beside_what_is_stored(embedded: Path, tree: xarray.DataTree) -> None:
    """Every module that attends has its map in its group, everything else is as the engine zarr shows it."""
    plain = xarray.open_datatree(embedded, engine="zarr", chunks=None)
    assert {node.path for node in tree.subtree} == {node.path for node in plain.subtree}
    for node in plain.subtree:
        for name, variable in node.to_dataset(inherit=False).variables.items():
            np.testing.assert_array_equal(tree[node.path].variables[name].values, variable.values)
    found = [node.path for node in tree.subtree if "attention" in node.data_vars]
    assert len(found) == len(open_trace(embedded).attention_modules) == 11
    group = tree[GROUP]
    assert group["attention"].dims == ("step", *(f"attention_{dim}" for dim in ("batch", "head", "query", "key")))
    assert group["attention_key"].to_numpy()[3] == "circle"
    expected = open_trace(embedded).attention(CROSS).sel(step=1, key="circle")
    seen = group["attention"].sel(step=1, attention_key="circle")
    np.testing.assert_array_equal(seen.values, expected.values)
    twice = tree["text_encoder/encoder/layers/0/self_attn/_io"]
    assert twice["attention_call1"].dims[-1] == "attention_call1_key"


def test_blocks_are_steps(tree: xarray.DataTree) -> None:
    """`chunks={}` makes one block of each step and branch, aligned with all else of the group."""
    group = tree[GROUP]
    assert group["attention"].chunksizes == {
        "step": (1, 1, 1),
        "attention_batch": (1, 1),
        "attention_head": (4,),
        "attention_query": (64,),
        "attention_key": (20,),
    }
    assert dict(group.to_dataset().chunksizes)["step"] == (1, 1, 1)


@pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
def test_dask_computes_blocks(embedded: Path, tree: xarray.DataTree, processes: bool) -> None:
    """A local cluster of workers, in this process or in others, computes the same numbers."""
    from dask.distributed import Client, LocalCluster

    attention = tree[f"{SELF.replace('.', '/')}/_io"]["attention"]
    expected = open_trace(embedded).attention(SELF)
    workers: dict[str, Any] = {"n_workers": 1 + processes, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(processes=processes, **workers) as cluster, Client(cluster):  # type: ignore[no-untyped-call]
        np.testing.assert_allclose(
            attention.mean("attention_query").to_numpy(), expected.mean("query").values, rtol=1e-5
        )
        np.testing.assert_array_equal(attention.compute().values, expected.values)


def test_one_group_alone(embedded: Path) -> None:
    """`open_dataset` opens one group, by default the root, and leaves out what is not wanted."""
    root = xarray.open_dataset(embedded, engine="diffusion-xray")
    assert root["timestep"].sizes == {"step": 3}
    dropped = xarray.open_dataset(embedded, engine="diffusion-xray", group=GROUP, drop_variables="attention")
    assert "attention" not in dropped
    with pytest.raises(KeyError):
        xarray.open_dataset(embedded, engine="diffusion-xray", group="unet/nothing")
    with pytest.raises(TraceNotFoundError):
        xarray.open_datatree(embedded / "none.zarr", engine="diffusion-xray")


def test_it_takes_no_other_stores() -> None:
    """Zarr stores without a named engine go to xarray's own."""
    assert not xarray.backends.list_engines()["diffusion-xray"].guess_can_open("run.zarr")


def test_dimensions_never_clash(tmp_path: Path) -> None:
    """Calls of one module with different batches, heads and lengths open as one tree."""
    rng = np.random.default_rng(0)
    shapes = (((2, 4, 6), (2, 2, 5)), ((1, 3, 7), (1, 3, 7)), ((2, 2, 5), (2, 2, 6)))
    calls = [
        Call("made.many", rng.random((2, *query, 3), np.float32), rng.random((2, *key, 3), np.float32), [], [])
        for query, key in shapes
    ]
    made_trace(tmp_path / "many.zarr", calls)
    with xarray.open_datatree(tmp_path / "many.zarr", engine="diffusion-xray") as tree:
        group = tree["made/many"].to_dataset()
        for number, call in enumerate(calls):
            shown = group[f"attention_call{number}" if number else "attention"]
            assert shown.shape == (2, *call.query.shape[1:4], call.key.shape[3])
            np.testing.assert_allclose(shown.values.sum(-1), 1, rtol=1e-5)


def test_only_complete_steps_are_shown(embedded: Path, tmp_path: Path) -> None:
    """A trace whose last step was not committed opens without it, in every group."""
    copy = Path(shutil.copytree(embedded, tmp_path / "cut.zarr"))
    flags = bytearray((copy / "committed" / "c.0").read_bytes())
    flags[2] = 0
    (copy / "committed" / "c.0").write_bytes(flags)
    root = copy / "zarr.json"  # the run goes on: a complete trace has no such step
    root.write_text(root.read_text().replace('"status":"complete"', '"status":"recording"', 1))
    with xarray.open_datatree(copy, engine="diffusion-xray") as tree:
        assert tree.sizes["step"] == tree[GROUP]["attention"].sizes["step"] == 2
