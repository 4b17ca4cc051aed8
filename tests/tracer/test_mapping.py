"""A trace as a mapping of modules, its statistics as one array, and what it gives saved elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from torch import nn

from diffusion_xray.tracer import Tracer, open_trace
from diffusion_xray.tracer.cli import main

from ..parting import record

GOLDEN = Path(__file__).parents[1] / "data" / "golden-v1.zarr"


class Breaking(nn.Module):
    """Raises when it is called once too often."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def call_often(self) -> None:
        """Until it raises."""
        while True:
            self(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As it came in, for a while."""
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("enough")
        return x + 1


def test_a_trace_is_a_mapping_of_modules() -> None:
    """Iteration, `in`, `len`, keys and `get` go by module names; steps are counted by a name of their own."""
    trace = open_trace(GOLDEN)
    assert list(trace) == list(trace.keys()) == list(trace.modules)
    assert (len(trace), trace.n_steps) == (18, 2)
    assert "model.conv_in" in trace and "model.conv" not in trace and "" not in trace
    assert trace.get("nowhere") is None
    assert {name: dataset.attrs["module"] for name, dataset in trace.items()} == {name: name for name in trace}
    assert trace == trace and trace != open_trace(GOLDEN) and len({trace, trace}) == 1


@pytest.mark.filterwarnings("ignore:nothing was recorded")
def test_an_empty_trace_is_true(tmp_path: Path) -> None:
    """A trace without a module is one that was found."""
    with Tracer(nn.ReLU(), tmp_path / "run.zarr"):
        pass
    trace = open_trace(tmp_path / "run.zarr")
    assert trace and not len(trace) and list(trace) == []
    assert trace.statistics().sizes["site"] == 0


def test_statistics_of_everything() -> None:
    """All sites in one array: what fired outside of the loop is at step -1, and at no step of the loop."""
    trace = open_trace(GOLDEN)
    table = trace.statistics()
    assert table.dims == ("step", "site", "statistic")
    assert table["step"].values.tolist() == [-1, 0, 1]
    assert np.isnan(table["timestep"].values[0]) and table["timestep"].values[1:].tolist() == [500, 0]
    assert table.sizes["site"] == sum(len(module.sites) for module in trace.modules.values())
    assert "sequence" not in table["statistic"].values
    start, ramp = (table.sel(site=f"records.{name}:output", statistic="max") for name in ("start", "ramp"))
    assert start.values[0] == 5 and np.isnan(start.values[1:]).all() and not start["in_loop"]
    assert np.isnan(ramp.values[0]) and ramp.values[1:].tolist() == [3, 6] and ramp["in_loop"]
    one = trace.statistics("model")
    in_model = table.sel(step=one["step"], site=table["component"] == "model").sel(site=one["site"])
    assert np.array_equal(in_model.values, one.values, equal_nan=True)


def test_statistics_of_the_loop_alone(tmp_path: Path) -> None:
    """Where everything fired in the loop there is no step before it."""
    assert record(tmp_path / "a.zarr", steps=2).statistics()["step"].values.tolist() == [0, 1]


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("name", ["steps", "model.conv_in", "model.blocks.0.activation", "records.start", "all"])
def test_what_it_gives_is_saved_with_to_zarr(tmp_path: Path, name: str) -> None:
    """A module, the loop and the statistics are written to another store as they are, and read back the same."""
    trace = open_trace(GOLDEN)
    given = trace.steps if name == "steps" else trace.statistics().to_dataset() if name == "all" else trace[name]
    given.to_zarr(tmp_path / "saved.zarr")
    assert xarray.open_zarr(tmp_path / "saved.zarr", chunks=None).load().equals(given.load())


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_run_that_broke_off_is_saved(tmp_path: Path) -> None:
    """Of a trace with room for more steps than were completed, the complete ones are written."""
    model = Breaking(after=3)
    with pytest.raises(RuntimeError, match="enough"), Tracer(model, tmp_path / "run.zarr", capture="all"):
        model.call_often()
    trace = open_trace(tmp_path / "run.zarr")
    trace["model"].to_zarr(tmp_path / "saved.zarr")
    assert 0 < trace.n_steps < 4
    assert xarray.open_zarr(tmp_path / "saved.zarr", chunks=None)["output"].shape == (trace.n_steps, 2)


@pytest.mark.parametrize("name", ["steps", "model.conv_in", "records.start"])
def test_what_it_gives_is_saved_with_h5netcdf(tmp_path: Path, name: str) -> None:
    """Likewise as netCDF."""
    trace = open_trace(GOLDEN)
    given = trace.steps if name == "steps" else trace[name]
    given.to_netcdf(tmp_path / "saved.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "saved.nc", engine="h5netcdf") as saved:
        assert saved.load().equals(given.load())


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A "~" in a path is the home folder: where a trace goes, where it is read from, and on the command line."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    model = nn.ReLU()
    with Tracer(model, "~/run.zarr"):
        model(torch.ones(1))
    assert (tmp_path / "run.zarr").is_dir() and not (tmp_path / "~").exists()
    assert open_trace("~/run.zarr").n_steps == 1
    assert main(["ls", "~/run.zarr"]) == 0
    (tmp_path / "names.json").write_text("{}")
    assert main(["diff", "~/run.zarr", "~/run.zarr", "--map", "~/names.json"]) == 0
    assert main(["ls", "~nobody-of-this-name/run.zarr"]) == 2
    assert "there is no trace at ~nobody-of-this-name/run.zarr" in capsys.readouterr().err
