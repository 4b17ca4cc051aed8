"""Chunks that are lost: what was written and is gone is told, and never read as nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from diffusion_xray.tracer import Capture, Trace, Tracer, open_trace
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.errors import TraceFormatError

from .networks import Denoiser


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace with a loop, with a NaN in it, and with something outside of it."""
    path = tmp_path_factory.mktemp("whole") / "run.zarr"
    model, after = Denoiser(), nn.Linear(2, 2)
    warned = pytest.warns(UserWarning, match="not finite")
    with torch.no_grad(), warned, Tracer({"model": model, "after": after}, path, capture="all") as tracer:
        for step in range(3):
            model(torch.ones(1, 4, 8, 8), 1000.0 - step)
        tracer.record("noise", torch.tensor([torch.nan, 1]))
        tracer.step(None)
        after(torch.ones(1, 2))
    return path


def everything(trace: Trace) -> list[np.ndarray]:
    """All numbers of a trace."""
    found: list[np.ndarray] = []
    for table in trace.tables():
        found += [table.values, table.captured]
        for site in table.sites:
            steps = range(trace.n_steps) if table.stepped else [0]
            found += [trace.tensor(site, step) for step in steps if site.array]
            found += [part for step in steps if site.array and (part := trace.elements(site, step, 0, 2)) is not None]
    return found


def test_any_lost_file_is_told(whole: Path, tmp_path: Path) -> None:
    """Whichever chunk file of statistics or tensors is gone, reading everything raises, and names what is damaged."""
    expected = everything(open_trace(whole))
    files = [
        file.relative_to(whole)
        for file in whole.rglob("c.*")
        if len(file.relative_to(whole).parts) > 2 and file.parent.name not in ("histogram", "site", "statistic")
    ]
    assert len(files) > 10
    copy = tmp_path / "run.zarr"
    shutil.copytree(whole, copy)
    for file in files:
        data = (copy / file).read_bytes()
        (copy / file).unlink()
        with pytest.raises(TraceFormatError, match="is damaged"):
            everything(open_trace(copy))
        (copy / file).write_bytes(data)
    for found, wanted in zip(everything(open_trace(copy)), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("command", ["info", "stats"])
def test_of_a_lost_table_it_is_not_said_that_all_is_finite(
    command: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the statistics that had the NaN are gone, it is unknown whether all values are finite."""
    copy = tmp_path / "run.zarr"
    shutil.copytree(whole, copy)
    for file in (copy / "statistics/records/statistics").glob("c.*"):
        file.unlink()
    assert main([command, str(copy)]) == 2
    shown = capsys.readouterr()
    assert "it is not known whether all values are finite" in shown.err
    assert "every value is finite" not in shown.out + shown.err


def test_a_lost_tensor_is_no_agreement(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A comparison with a trace that has lost a tensor says so, and does not pass."""
    copy = tmp_path / "run.zarr"
    shutil.copytree(whole, copy)
    for file in (copy / "model/conv_in/output").glob("c.*"):
        file.unlink()
    assert main(["diff", str(copy), str(whole)]) == 2
    assert "cannot be read" in capsys.readouterr().err


def late(model: nn.Module, tracer: Tracer) -> None:
    """A component that is first called at step 2, and not at step 4."""
    for step in range(6):
        tracer.step(step)
        model["one"](torch.ones(1, 2))  # type: ignore[index]
        if step in (2, 3, 5):
            model["two"](torch.ones(1, 2))  # type: ignore[index]


def gaps(model: nn.Module, tracer: Tracer) -> None:
    """Steps that are left out."""
    for step in (0, 3, 7):
        tracer.step(step)
        model["one"](torch.ones(1, 2))  # type: ignore[index]


def zeros(model: nn.Module, tracer: Tracer) -> None:
    """Tensors that are what a missing one reads as."""
    for step in range(3):
        tracer.step(step)
        model["one"](torch.full((1, 2), 0.0 if step % 2 else torch.nan))  # type: ignore[index]


@pytest.mark.filterwarnings("ignore:a value is not finite")
@pytest.mark.parametrize("loop", [late, gaps, zeros])
@pytest.mark.parametrize("capture", ["all", Capture(modules="**", steps=[0, 2])])
def test_what_was_never_written_is_no_damage(
    loop: Callable[[nn.Module, Tracer], None], capture: Capture, tmp_path: Path
) -> None:
    """Components that come late or pause, steps left out or not kept, zeros and NaN are as they are, also meanwhile."""
    model = nn.ModuleDict({"one": nn.Identity(), "two": nn.Identity()})
    with Tracer(dict(model.items()), tmp_path / "run.zarr", capture=capture) as tracer:
        loop(model, tracer)
        everything(tracer.trace)
    everything(tracer.trace)


def test_what_cannot_be_told_is_unknown_and_the_rest_is_told(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parts of `dxray info` do not depend on one another; people and programs are told what is unknown, and why."""
    copy = tmp_path / "run.zarr"
    shutil.copytree(whole, copy)
    for file in (copy / "statistics/records/statistics").glob("c.*"):
        file.unlink()
    assert main(["info", str(copy)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("first fault  unknown: ") for line in lines)
    assert any(line.startswith("steps        3") for line in lines)
    assert main(["info", "--json", str(copy)]) == 2
    described = json.loads(capsys.readouterr().out)
    assert described["first_fault"] is None and list(described["unknown"]) == ["first_fault"]
    assert described["steps"] == 3


@pytest.mark.parametrize("name", ["timestep", "sigma", "stage"])
def test_lost_times_are_no_steps_without(name: str, whole: Path, tmp_path: Path) -> None:
    """Times of steps that are gone are told; where a scheduler has none, they read as none."""
    trace = open_trace(whole)
    values = getattr(trace, name)
    assert len(values) == trace.n_steps and np.isnan(trace.sigma).all()
    copy = Path(shutil.copytree(whole, tmp_path / "run.zarr"))
    (copy / name / "c.0").unlink()
    with pytest.raises(TraceFormatError, match=f"{name} in .* is damaged"):
        getattr(open_trace(copy), name)


def test_lost_histograms_are_told(whole: Path, tmp_path: Path) -> None:
    """A histogram of a tensor with elements is not empty, one by one and several at once."""
    copy = Path(shutil.copytree(whole, tmp_path / "run.zarr"))
    for file in (copy / "statistics/model/histogram").glob("c.*"):
        file.unlink()
    trace = open_trace(copy)
    site = trace.site("model.conv_in")
    with pytest.raises(TraceFormatError, match=r"histogram in .* is damaged"):
        trace.histogram(site, 1)
    with pytest.raises(TraceFormatError, match=r"histogram in .* is damaged"):
        trace.histograms([site], 1)
    assert open_trace(whole).histogram(site, 1).counts.sum() == np.prod(site.shape)


def test_lost_marks_of_several_shapes_are_told(tmp_path: Path) -> None:
    """A tensor whose array is told by a mark that is gone is lost; one that was left out is not."""
    model = nn.Linear(2, 2)
    with torch.no_grad(), Tracer(model, tmp_path / "run.zarr", capture=Capture(modules="**", steps=[0, 1])) as tracer:
        for step in range(3):
            tracer.step(step)
            model(torch.ones(1 + step, 2))
    trace = open_trace(tmp_path / "run.zarr")
    site = trace.site("model")
    assert site.variants and trace.tensor(site, 1).shape == (2, 2)
    assert np.isnan(trace.tensor(site, 2)).all()
    for file in (tmp_path / "run.zarr/statistics/model/captured").glob("c.*"):
        file.unlink()
    with pytest.raises(TraceFormatError, match=r"captured in .* is damaged"):
        open_trace(tmp_path / "run.zarr").tensor(site, 1)


class Attending(nn.Module):
    """One call of the kernel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend to itself."""
        return nn.functional.scaled_dot_product_attention(x, x + 1, x)


@pytest.mark.parametrize("lost", ["query", "key"])
def test_lost_queries_and_keys_are_no_missing_map(lost: str, tmp_path: Path) -> None:
    """A map whose queries or keys are gone is told as damage; of a step that kept none there is none."""
    attn = Attending()
    capture = Capture(attention="**", steps=[0])
    with torch.no_grad(), Tracer({"attn": attn}, tmp_path / "run.zarr", capture=capture) as tracer:
        for step in range(2):
            tracer.step(step)
            attn(torch.full((1, 2, 3, 4), 1.0 + step))
    found = open_trace(tmp_path / "run.zarr").attention("attn")
    assert np.isfinite(found[0].values).all() and np.isnan(found[1].values).all()
    for file in (tmp_path / "run.zarr" / "attn" / lost).glob("c.*"):
        file.unlink()
    with pytest.raises(TraceFormatError, match=f"{lost} in .* is damaged"):
        _ = open_trace(tmp_path / "run.zarr").attention("attn")[0].values
