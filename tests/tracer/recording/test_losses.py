"""Memory that the writer's own thread does not get: it costs records, each of which is told, and nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from diffusion_xray.tracer import Trace, Tracer
from diffusion_xray.tracer.data_check import check_data
from diffusion_xray.tracer.layout import HAS_STATISTICS, HAS_TENSOR
from diffusion_xray.tracer.storage.store import StoreWriter

from ..exact import assert_rows, assert_same, row_of
from ..networks import Denoiser, denoise

STEPS = 4


class Short(StoreWriter):
    """A store that has no memory for some of its calls, counted over all of them."""

    fails: frozenset[int] = frozenset()
    calls = 0

    def _ask(self) -> None:
        kind = type(self)
        kind.calls += 1
        if kind.calls in kind.fails:
            raise MemoryError

    def append_all(self, chunks: Sequence[Any]) -> None:
        """Write a step of several arrays."""
        self._ask()
        super().append_all(chunks)

    def append(self, *args: Any) -> None:
        """Write a row of a table."""
        self._ask()
        super().append(*args)

    def publish(self) -> None:
        """Write metadata."""
        self._ask()
        super().publish()


def recorded(path: Path, model: nn.Module, fails: frozenset[int]) -> tuple[Trace, torch.Tensor]:
    """A trace of a run in which these calls of the store had no memory, and what the run returned."""
    store = type("Store", (Short,), {"fails": fails, "calls": 0})
    with Tracer(model, path, capture="all", store=store) as tracer:
        output = denoise(model, steps=STEPS)
    return tracer.trace, output


def test_a_tensor_without_memory_is_a_gap(tmp_path: Path) -> None:
    """What could not be written even by itself has statistics and a gap; all others are there, nothing is damaged."""
    model = Denoiser()
    plain = denoise(model, steps=STEPS)
    lost = "model/conv_in/output"

    class NoRoom(StoreWriter):
        """Has no memory for one array at its second step."""

        def append_all(self, chunks: Sequence[Any]) -> None:
            """Write a step of several arrays."""
            if any(path == lost and step == 1 for path, step, *_ in chunks):
                raise MemoryError
            super().append_all(chunks)

    seen: list[torch.Tensor] = []
    handle = model.get_submodule("conv_in").register_forward_hook(lambda *args: seen.append(args[2].clone()))
    with Tracer(model, tmp_path / "run.zarr", capture="all", store=NoRoom) as tracer:
        traced = denoise(model, steps=STEPS)
    handle.remove()
    assert torch.equal(plain, traced)
    trace = tracer.trace
    assert (trace.info.status, trace.n_steps) == ("complete", STEPS)
    (gap,) = trace.info.gaps
    assert (gap["site"], gap["count"], gap["steps"]) == ("model.conv_in:output", 1, [[1, 1]])
    assert gap["reason"] == "there was no memory to write it"
    site = trace.site("model.conv_in")
    marks = trace.table("model").captured[:, site.row].tolist()
    assert marks == [HAS_TENSOR, HAS_STATISTICS, HAS_TENSOR, HAS_TENSOR]
    for step, tensor in enumerate(seen):
        assert_rows(trace.table("model").values[step, site.row], row_of(tensor), step)
        if step != 1:
            assert_same(trace.tensor(site, step), tensor.numpy(), step)
    assert np.isnan(trace.tensor(site, 1)).all()
    assert not check_data(tmp_path / "run.zarr").damage


@settings(max_examples=15)
@given(st.integers(2, 130))
def test_any_call_may_be_without_memory(fails: int) -> None:
    """Whichever call of the store has no memory, the run is unharmed, and what is in the trace is right and whole."""
    model = Denoiser()
    plain = denoise(model, steps=STEPS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.zarr"
        trace, traced = recorded(path, model, frozenset([fails]))
        assert torch.equal(plain, traced)
        assert (trace.info.status, trace.n_steps) == ("complete", STEPS)
        assert not check_data(path).damage


def test_no_memory_at_all_ends_the_trace_and_not_the_run(tmp_path: Path) -> None:
    """Where metadata cannot be made even at the second attempt the trace is incomplete, which is warned of once."""
    model = Denoiser()
    plain = denoise(model, steps=STEPS)
    with pytest.warns(UserWarning, match="incomplete: MemoryError") as caught:
        trace, traced = recorded(tmp_path / "run.zarr", model, frozenset(range(8, 60)))
    assert torch.equal(plain, traced)
    assert len(caught) == 1
    assert trace.info.status == "incomplete"
