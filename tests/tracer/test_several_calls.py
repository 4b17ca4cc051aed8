"""Several calls of a pipeline in one block: what each was given is told, and compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from diffusion_xray.tracer import Trace, Tracer
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.comparison.facts import facts
from diffusion_xray.tracer.description import describe_in_lines

from ..families import FAMILIES


def traced(path: Path, prompts: Sequence[str], **options: object) -> Trace:
    """A trace of a call for each prompt, of one step."""
    family = FAMILIES["sd"]()
    call = family.call | {"num_inference_steps": 1, "output_type": "latent", **options}
    with Tracer(family.pipeline, path, capture="statistics") as tracer:
        for prompt in prompts:
            family.pipeline(**call | {"prompt": prompt})
    return tracer.trace


def test_each_call_is_told(tmp_path: Path) -> None:
    """What the calls have in common stands once, what is each one's own with the step at which it began."""
    lines = describe_in_lines(traced(tmp_path / "run.zarr", ["a red circle", "a blue square"]))
    told = dict(lines)
    assert told["calls"].startswith("2, each with ")
    assert "prompt" not in told["calls"].replace("prompt_embeds", "")
    assert "prompt='a red circle'" in told["  step 0"]
    assert "prompt='a blue square'" in told["  step 1"]
    assert "call" not in told


def test_one_call_is_told_as_it_was(tmp_path: Path) -> None:
    """Of a single call there is one line, with what it was given and no defaults."""
    told = dict(describe_in_lines(traced(tmp_path / "run.zarr", ["a red circle"])))
    assert "prompt='a red circle'" in told["call"]
    assert "guidance_rescale" not in told["call"]


def test_runs_are_compared_call_by_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs that end with the same prompt and began with another are not said to have the same."""
    one = traced(tmp_path / "one.zarr", ["a red circle", "a blue square"])
    other = traced(tmp_path / "other.zarr", ["a red square", "a blue square"])
    known = {fact.name: fact for fact in facts(one, other)}
    assert not known["prompt"].same
    assert "a red circle" in known["prompt"].a and ", then " in known["prompt"].a
    assert main(["diff", str(tmp_path / "one.zarr"), str(tmp_path / "other.zarr")]) == 1
    assert "a red square" in capsys.readouterr().out


def test_a_default_is_what_it_is(tmp_path: Path) -> None:
    """An argument that one run leaves at its default is compared by that value, and not with nothing."""
    given = traced(tmp_path / "given.zarr", ["a red circle"], guidance_rescale=0.0)
    left = traced(tmp_path / "left.zarr", ["a red circle"])
    known = {fact.name: fact for fact in facts(given, left)}
    assert known["guidance_rescale"].same
    changed = traced(tmp_path / "changed.zarr", ["a red circle"], guidance_rescale=0.5)
    fact = {fact.name: fact for fact in facts(changed, left)}["guidance_rescale"]
    assert (fact.a, fact.b) == ("0.5", "0.0")
