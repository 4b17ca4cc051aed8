"""Pipeline classes that no other test runs, held against runs that were watched with hooks of torch alone."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_xray.tracer import Capture, Tracer

from . import cascades, images, language, modular, transformers, unconditional, videos  # noqa: F401 — they enter their families
from .family import FOREIGN, Foreign
from .judge import judge
from .reference import Call, Enough, Watched, watch

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("default"),  # those of diffusers about itself are not the matter here
]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_pipeline_is_traced_truthfully(name: str, tmp_path: Path) -> None:
    """Steps, branches, words, latents and values are those of an untraced run, and its output is the same."""
    found = examine(FOREIGN[name](), tmp_path / "run.zarr")
    assert found == {column: said for column, said in found.items() if said in ("right", "none")}


def examine(family: Foreign, path: Path) -> dict[str, str]:
    """Run a family untraced, watched and traced, and say what of its trace is right."""
    plain = family.run()
    with ExitStack() as undo:
        seen = watch(family.pipeline, family.denoisers, undo)
        watched = family.run()
    with Tracer(family.pipeline, path, capture=Capture(modules="**", attention="**")) as tracer:
        traced = family.run()
    parts = what_depends(family, seen.place())
    found = judge(family, tracer.trace, seen, parts)
    found["identical"] = "right" if identical(plain, watched) and identical(plain, traced) else "another output"
    failures = tracer.trace.info.tap_failures
    return found | ({"taps": str(failures)[:200]} if failures else {})


def what_depends(family: Foreign, seen: Watched) -> dict[str, list[list[bool]]]:
    """For each denoiser and each of its calls in the first step: which parts of its batch depend on the condition.

    Latents and noise of the first step are the same whatever the prompt is, so what changes there depends on it.
    """
    first, other = (_predictions(family, changes) for changes in ({}, family.condition))
    size = len(seen.steps[0].latents)
    depends: dict[str, list[list[bool]]] = {}
    for was, now in zip(first, other, strict=True):
        count = family.parts or max(1, len(was.tensors[0]) // size)
        parts = [_parts(call.tensors, 0 if family.listed else count) for call in (was, now)]
        changed = [
            any(not np.array_equal(a, b) for a, b in zip(*pair, strict=True)) for pair in zip(*parts, strict=True)
        ]
        depends.setdefault(was.name, []).append(changed)
    assert not family.condition or any(any(map(any, calls)) for calls in depends.values()), "nothing depends on it"
    return depends if family.condition else {name: [[True]] for name in depends}


def _predictions(family: Foreign, changes: dict[str, Any]) -> list[Call]:
    """What the denoisers return up to the first step of a scheduler."""
    with ExitStack() as undo, contextlib.suppress(Enough):
        seen = watch(family.pipeline, family.denoisers, undo, stop=True)
        family.run(**changes)
    return [call for call in seen.calls if call.name in family.denoisers]


def _parts(tensors: list[Any], count: int) -> list[list[Any]]:
    """Each part of a batch, of all tensors; with a count of 0 each tensor is one."""
    if not count:
        return [[tensor] for tensor in tensors]
    return list(map(list, zip(*(np.array_split(tensor, count) for tensor in tensors), strict=True)))


def identical(one: Any, other: Any) -> bool:
    """Whether two outputs are the same to the bit."""
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    one, other = (np.asarray(v.detach() if isinstance(v, torch.Tensor) else v) for v in (one, other))
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
