"""Where two traces part."""

from __future__ import annotations

import gc
import itertools
import json
import math
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_xray.tracer import Capture, open_trace
from diffusion_xray.tracer.comparison import divergence
from diffusion_xray.tracer.comparison.divergence import Comparison, Evidence
from diffusion_xray.tracer.comparison.report import FORMS, report
from diffusion_xray.tracer.errors import ComparisonError
from diffusion_xray.tracer.info import SiteInfo
from diffusion_xray.tracer.trace import Trace

from ...parting import STEPS, record
from ..test_faults import Denoiser, Layer, denoise, switch


def done(a: Trace, b: Trace, **options: Any) -> Comparison:
    """A comparison that has run to its end."""
    comparison = Comparison(a, b, **options)
    list(comparison.run())
    return comparison


def row_of(comparison: Comparison, name: str) -> int:
    """The row of a module's output."""
    return next(row for row, pair in enumerate(comparison.table.pairing.pairs) if pair.a.key == f"{name}:output")


def test_it_is_what_numpy_says(tmp_path: Path) -> None:
    """Every layer at every step has the distance of the stored tensors, computed plainly."""
    a, b = record(tmp_path / "a.zarr"), record(tmp_path / "b.zarr", seed=1)
    comparison = done(a, b)
    assert (comparison.table.evidence == Evidence.TENSOR).all()
    for row, link in itertools.product(range(len(comparison.table)), range(STEPS)):
        pair = comparison.table.pairing.pairs[row]
        ours, theirs = (np.asarray(t.tensor(s, link), np.float64) for t, s in ((a, pair.a), (b, pair.b)))
        found = comparison.table.at(row, link).distance
        assert found.relative_l2 == pytest.approx(np.linalg.norm(ours - theirs) / np.linalg.norm(ours), rel=1e-9)
        cosine = (ours * theirs).sum() / np.linalg.norm(ours) / np.linalg.norm(theirs)
        assert found.cosine == pytest.approx(cosine, rel=1e-9)
        assert found.max_abs == np.abs(ours - theirs).max()
        assert found.where == np.abs(ours - theirs).argmax()
        assert found.over == np.mean(np.abs(ours - theirs) > 1e-5 + 1.3e-6 * np.abs(ours))


@pytest.mark.filterwarnings("ignore:a value is not finite")
def test_causes_come_first_over_all_components(tmp_path: Path) -> None:
    """Latents changed between two steps go before the layers of the step, a late component before one called after."""
    a = denoise(tmp_path / "a.zarr", Denoiser(Layer()))
    b = denoise(tmp_path / "b.zarr", Denoiser(Layer()), change=lambda step, x: x * 1.5 if step == 1 else x)
    table = done(a, b).table
    assert [table.pairing.pairs[row].a.key for row, _ in table.first_steps()][:2] == [
        "latents:latents",
        "unet.layers.0:output",
    ]
    first = table.first_over()
    assert first is not None and first.steps == (2, 2)
    a = switch(tmp_path / "c.zarr", Denoiser(Layer()), Denoiser(Layer()))
    b = switch(tmp_path / "d.zarr", Denoiser(Layer()), Denoiser(Layer(0)))
    table = done(a, b).table
    found = [table.pairing.pairs[row].a.name for row, _ in table.first_steps()]
    assert found == ["other.layers.0", "other", "one.layers.0", "one"]


@pytest.mark.parametrize("capture", ["all", "statistics"])
@pytest.mark.parametrize(("name", "step"), [("blocks.1.conv", 2), ("conv_in", 5), ("blocks.0", 1), ("conv_out", 0)])
def test_the_first_divergence_is_where_the_fault_is(tmp_path: Path, capture: str, name: str, step: int) -> None:
    """A module whose output is disturbed from a step on is the first to part there, from tensors and statistics."""
    a = record(tmp_path / "a.zarr", capture=capture)
    b = record(tmp_path / "b.zarr", capture=capture, fault=(name, step, 0.5))
    comparison = done(a, b)
    first = comparison.table.first_over()
    assert first is not None
    assert (first.pair.a.name, first.steps) == (f"unet.{name}", (step, step))
    assert first.evidence == (Evidence.TENSOR if capture == "all" else Evidence.STATISTICS)
    before = comparison.table.relative_l2[:, :step]
    assert (before == 0).all()
    worst = comparison.table.worst()
    assert worst is not None
    assert worst.distance.relative_l2 == comparison.table.relative_l2.max()


def test_a_fault_is_infinitely_far(tmp_path: Path) -> None:
    """A module that is not finite in one run alone diverges infinitely; in both at the same places it does not."""
    a = record(tmp_path / "a.zarr")
    b = record(tmp_path / "b.zarr", fault=("blocks.0.act", 3, math.nan))
    first = done(a, b).table.first_over(1e9)
    assert first is not None
    assert (first.pair.a.name, first.link, first.distance.relative_l2) == ("unet.blocks.0.act", 3, math.inf)
    assert done(b, b).table.first_over() is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtypes(tmp_path: Path, dtype: torch.dtype) -> None:
    """Rounding to a coarser dtype is seen, and is within a multiple of what that dtype explains."""
    a, b = record(tmp_path / "a.zarr"), record(tmp_path / "b.zarr", dtype=dtype)
    table = done(a, b).table
    epsilon = float(torch.finfo(dtype).eps)
    assert (table.rounding == {torch.float16: 1e-3, torch.bfloat16: 1.6e-2}[dtype]).all()
    assert (table.relative_l2 > 0).all()
    assert table.relative_l2.max() < 4 * epsilon
    assert table.is_over(epsilon / 100).all()


def test_equal_traces(tmp_path: Path) -> None:
    """Two traces of one run have no difference in any tensor."""
    table = done(record(tmp_path / "a.zarr"), record(tmp_path / "b.zarr")).table
    assert (table.relative_l2 == 0).all() and (table.cosine == 1).all() and (table.over == 0).all()
    assert table.first_over() is None and table.first_over(0) is None


def test_statistics_come_first_and_never_exceed_tensors(tmp_path: Path) -> None:
    """Before anything is read there is a lower bound everywhere; tensors only raise it."""
    comparison = Comparison(record(tmp_path / "a.zarr"), record(tmp_path / "b.zarr", seed=1))
    assert (comparison.table.evidence == Evidence.STATISTICS).all()
    bound = comparison.table.relative_l2.copy()
    assert (bound > 0).all()
    assert np.isnan(comparison.table.cosine).all()
    rows = [row for rows in comparison.run() for row in rows]
    assert rows == list(range(len(comparison.table)))
    assert (bound <= comparison.table.relative_l2).all()


def test_tensors_on_one_side_alone(tmp_path: Path) -> None:
    """Where one run kept no tensors, statistics and histograms are compared, and marked as such."""
    a = record(tmp_path / "a.zarr")
    b = record(tmp_path / "b.zarr", capture=Capture(modules="**.conv"), fault=("conv_in", 2, 0.5))
    comparison = done(a, b)
    table = comparison.table
    conv_in, kept = row_of(comparison, "unet.conv_in"), row_of(comparison, "unet.blocks.0.conv")
    assert (table.evidence[conv_in] == Evidence.STATISTICS).all()
    assert (table.evidence[kept] == Evidence.TENSOR).all()
    assert table.histogram[conv_in, :2].tolist() == [0, 0]
    ours, theirs = (t.histogram(t.site("unet.conv_in"), 3).counts.astype(float) for t in (a, b))
    assert table.histogram[conv_in, 3] == pytest.approx(np.abs(ours - theirs).sum() / 2 / ours.sum())
    assert np.isnan(table.histogram[kept]).all()
    left, right = comparison.statistics(conv_in, 2)
    assert right[2] - left[2] == pytest.approx(0.5, rel=1e-5)


def test_steps_that_were_not_captured(tmp_path: Path) -> None:
    """At steps without a tensor the statistics stand; at those with one the tensors do."""
    a = record(tmp_path / "a.zarr")
    b = record(tmp_path / "b.zarr", seed=1, capture=Capture(modules="**", every=2))
    evidence = done(a, b).table.evidence
    assert (evidence[:, ::2] == Evidence.TENSOR).all()
    assert (evidence[:, 1::2] == Evidence.STATISTICS).all()


def test_other_shapes(tmp_path: Path) -> None:
    """Layers of other shapes are listed with both shapes and have no distance; the others are compared."""
    a, b = record(tmp_path / "a.zarr"), record(tmp_path / "b.zarr", channels=6)
    comparison = done(a, b)
    row = row_of(comparison, "unet.conv_in")
    assert comparison.table.pairing.pairs[row].problem == "shapes differ: 2×4×8×8 in A, 2×6×8×8 in B"
    assert (comparison.table.evidence[row] == Evidence.NOTHING).all()
    assert np.isnan(comparison.table.relative_l2[row]).all()
    assert (comparison.table.evidence[row_of(comparison, "unet.conv_out")] == Evidence.TENSOR).all()


def test_nothing_in_common(tmp_path: Path) -> None:
    """Two traces without a common layer give an empty table, not an error; so do traces without a step."""
    a, b = record(tmp_path / "a.zarr"), record(tmp_path / "b.zarr", component="other")
    table = done(a, b).table
    assert len(table) == 0
    assert table.first_over() is None and table.worst() is None
    empty = record(tmp_path / "c.zarr", steps=0)
    assert done(a, empty).table.first_over() is None


def test_linked_by_timestep(tmp_path: Path) -> None:
    """Steps that are linked by timestep are compared with one another."""
    a = record(tmp_path / "a.zarr")
    b = record(tmp_path / "b.zarr", steps=3, every=300.0)
    found = done(a, b, by="timestep").table
    assert found.at(0, 1).steps == (2, 1)
    site = a.site("unet.conv_in")
    ours, theirs = a.tensor(site, 2).astype(float), b.tensor(site, 1).astype(float)
    assert found.at(0, 1).distance.max_abs == np.abs(ours - theirs).max()


def test_a_broken_chunk(tmp_path: Path) -> None:
    """A tensor that cannot be read is marked with its error and keeps its bound; everything else is compared."""
    a = record(tmp_path / "a.zarr")
    path = Path(shutil.copytree(record(tmp_path / "b.zarr", seed=1).path, tmp_path / "broken.zarr"))
    chunk = next(file for file in (path / "unet" / "conv_in" / "output").iterdir() if file.name.startswith("c"))
    chunk.write_bytes(chunk.read_bytes()[:2500])
    comparison = done(a, open_trace(path))
    row = row_of(comparison, "unet.conv_in")
    assert Evidence.UNREADABLE in comparison.table.evidence[row]
    broken = int(np.argmax(comparison.table.evidence[row] == Evidence.UNREADABLE))
    assert "cannot be read" in comparison.table.errors[row, broken]
    assert comparison.table.relative_l2[row, broken] > 0
    others = np.delete(comparison.table.evidence, row, axis=0)
    assert (others == Evidence.TENSOR).all()


def test_it_can_be_left_at_any_time(tmp_path: Path) -> None:
    """Cancelled, a run ends before the next tensor; what was found stays, and it can be run again."""
    comparison = Comparison(record(tmp_path / "a.zarr"), record(tmp_path / "b.zarr", seed=1))
    asked = itertools.count()
    list(comparison.run(lambda: next(asked) >= 10))
    assert (comparison.table.evidence == Evidence.TENSOR).sum() == 10
    list(comparison.run())
    assert (comparison.table.evidence == Evidence.TENSOR).all()


class Counting(Trace):
    """A trace that counts the elements it has handed out and that are still in use."""

    in_use = 0
    most = 0
    largest = 0

    def elements(self, site: SiteInfo, step: int, start: int, count: int) -> Any:
        """Some elements, counted until they are let go."""
        found = super().elements(site, step, start, count)
        assert found is not None
        size = int(found.size)
        Counting.in_use += size
        Counting.most = max(Counting.most, Counting.in_use)
        Counting.largest = max(Counting.largest, size)
        weakref.finalize(found, Counting._let_go, size)
        return found

    @staticmethod
    def _let_go(size: int) -> None:
        Counting.in_use -= size


def test_memory_is_bounded_by_a_pair_of_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At no time more than two pairs of parts are held, whatever the size of a tensor, and all are let go."""
    monkeypatch.setattr(divergence, "_PART", 100)
    paths = record(tmp_path / "a.zarr").path, record(tmp_path / "b.zarr", seed=1).path
    whole = done(*map(open_trace, paths)).table
    Counting.in_use = Counting.most = Counting.largest = 0
    table = done(*(Counting(Path(path)) for path in paths)).table
    gc.collect()
    assert Counting.largest == 100
    assert Counting.most <= 4 * 100
    assert Counting.in_use == 0
    assert (table.relative_l2 == whole.relative_l2).all()


def test_one_entry_of_the_batch(tmp_path: Path) -> None:
    """A picture reads one entry of the batch and no more; an index beyond the batch begins again."""
    comparison = Comparison(record(tmp_path / "a.zarr"), record(tmp_path / "b.zarr", seed=1))
    a, b = comparison.entry(0, 2, batch=3)
    assert (a == comparison.a.tensor(comparison.a.site("unet.conv_in"), 2)[1:2]).all()
    assert (b == comparison.b.tensor(comparison.b.site("unet.conv_in"), 2)[1:2]).all()


def test_reports(tmp_path: Path) -> None:
    """Markdown names the first and the worst, JSON and CSV hold every layer and step; text of a trace is escaped."""
    a, b = record(tmp_path / "a|x.zarr"), record(tmp_path / "b.zarr", fault=("blocks.1.conv", 2, math.nan))
    comparison = done(a, b)
    told = report(comparison, "markdown")
    assert "- First: `unet.blocks.1.conv:output`, step 2, ∞" in told
    assert "a\\|x.zarr" in told
    assert "| unet.blocks.1.conv:output | 2 | ∞ |" in told
    document = json.loads(report(comparison, "json"))
    assert document["first_over"]["site"] == "unet.blocks.1.conv:output"
    assert document["first_over"]["relative_l2"] == "inf"
    assert len(document["layers"]) == 9 and all(len(layer["steps"]) == STEPS for layer in document["layers"])
    lines = report(comparison, "csv").splitlines()
    assert len(lines) == 1 + 9 * STEPS
    assert lines[0].startswith("site,step_a,step_b,evidence,relative_l2")
    with pytest.raises(ComparisonError, match="'html'"):
        report(comparison, "html")  # type: ignore[arg-type]  # what a user may type
    assert all("none" in report(done(a, a), form) or form != "markdown" for form in FORMS)


def test_the_embedded_pipeline(embedded: Path) -> None:
    """A whole pipeline with what fires before, in and after the loop is equal to itself, and orders its parts."""
    trace = open_trace(embedded)
    table = done(trace, trace).table
    assert table.first_over(0) is None
    assert (table.evidence[:, 0] != Evidence.NOTHING).all()
    parts = [pair.a.name.split(".")[0] for pair in table.pairing.pairs]
    order = list(dict.fromkeys(parts))
    assert order.index("text_encoder") < order.index("unet") < order.index("latents") < order.index("vae")
