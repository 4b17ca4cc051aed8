"""What two runs have in common."""

from __future__ import annotations

from pathlib import Path

from diffusion_xray.tracer import Tracer, open_trace
from diffusion_xray.tracer.comparison.facts import facts
from diffusion_xray.tracer.description import describe_in_lines

from ...parting import record
from ..loops import Blind, Pipeline, ddim


def test_facts(tmp_path: Path) -> None:
    """The summary says what two runs have in common; the same run has everything."""
    a, b = record(tmp_path / "a.zarr"), record(tmp_path / "b.zarr", steps=3, every=300.0)
    assert all(fact.same for fact in facts(a, a))
    told = {fact.name: fact for fact in facts(a, b)}
    assert (told["steps"].a, told["steps"].b) == ("6", "3")
    assert told["model"].same and told["torch version"].same
    assert not told["schedule"].same


def test_noise_is_the_same_or_not(embedded: Path, tmp_path: Path) -> None:
    """Runs that began with the same latents are said to share their noise."""
    trace = open_trace(embedded)
    assert next(fact for fact in facts(trace, trace) if fact.name == "noise").same


def test_how_schedulers_are_set_is_a_fact(tmp_path: Path) -> None:
    """What differs in their configuration is named, what does not is left out, and so is what one trace lacks."""
    traces = []
    for name, prediction in (("a", "epsilon"), ("b", "v_prediction")):
        pipeline = Pipeline(
            lambda pipe: pipe.denoise(pipe.unet),
            unet=Blind(),
            scheduler=ddim(prediction_type=prediction),
        )
        with Tracer(pipeline, tmp_path / f"{name}.zarr", capture="statistics") as tracer:
            pipeline()
        traces.append(tracer.trace)
    told = {fact.name: (fact.a, fact.b) for fact in facts(*traces)}
    assert told["scheduler"] == ("DDIMScheduler", "DDIMScheduler")
    assert told["scheduler prediction_type"] == ("epsilon", "v_prediction")
    assert [name for name in told if name.startswith("scheduler ")] == ["scheduler prediction_type"]
    line = dict(describe_in_lines(traces[1]))["scheduler"]
    assert line.startswith("DDIMScheduler: ") and "prediction_type=v_prediction" in line
