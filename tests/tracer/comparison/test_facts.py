"""What two runs have in common."""

from __future__ import annotations

from pathlib import Path

from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.comparison.facts import facts

from ...parting import record


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
