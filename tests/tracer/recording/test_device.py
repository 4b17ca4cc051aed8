"""Results and copies that come from an accelerator; the parts that need one run where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_xray.tracer import Tracer
from diffusion_xray.tracer.layout import MEASURED, STATISTICS
from diffusion_xray.tracer.recording.device import Results, copy_to_host
from diffusion_xray.tracer.recording.statistics import Place, summarise

from ..networks import Denoiser

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_results_fill_their_rows_when_they_are_fetched() -> None:
    """Rows are filled by the function that `fetch` returns, not before, and each result goes to its own row."""
    tensors = [torch.randn(50) * scale for scale in (1, 100)]
    rows, bins = np.full((2, len(STATISTICS)), np.nan), np.zeros((2, 4096), np.uint32)
    results = Results()
    for tensor, row, histogram in zip(tensors, rows, bins, strict=True):
        results.measure(tensor, Place(row, histogram))
    fill = results.fetch()
    assert np.isnan(rows).all()
    fill()
    for tensor, row, histogram in zip(tensors, rows, bins, strict=True):
        expected = summarise(tensor)
        assert row[:6] == pytest.approx([getattr(expected, name) for name in MEASURED[:6]], rel=1e-9)
        assert np.array_equal(histogram, expected.histogram)
        assert np.isnan(row[len(MEASURED) :]).all()  # when it was made is not for a device to know
    results.fetch()()  # nothing is left


def test_a_copy_of_a_tensor_with_gradients_has_none() -> None:
    """The buffer of a tensor that requires gradients stays an ordinary tensor."""
    buffer = torch.empty(3)
    assert copy_to_host(torch.ones(3, requires_grad=True) * 2, buffer) is None
    assert not buffer.requires_grad
    assert buffer.tolist() == [2, 2, 2]


@needs_cuda
def test_what_the_run_overwrites_is_copied_before() -> None:
    """A tensor may be overwritten on the device at once; the host gets what it was."""
    tensor = torch.arange(1 << 20, device="cuda", dtype=torch.float32)
    buffer = torch.empty(tensor.shape, pin_memory=True)
    wait = copy_to_host(tensor, buffer)
    tensor.zero_()
    assert wait is not None
    wait()
    assert torch.equal(buffer, torch.arange(1 << 20, dtype=torch.float32))


@needs_cuda
def test_a_run_on_the_device_gives_the_trace_of_the_host(tmp_path: Path) -> None:
    """Tensors and statistics recorded on CUDA are those of the same tensors on the CPU, and the forward never waits."""
    model = Denoiser().cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        latents = torch.ones(1, 4, 8, 8, device="cuda")
        with Tracer(model, tmp_path / "run.zarr", capture="all") as tracer, torch.no_grad():
            for step in range(3):
                model(latents, float(step))
            torch.cuda.set_sync_debug_mode("default")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for module in tracer.trace.modules.values():
        for step in range(tracer.trace.n_steps):
            stored = torch.from_numpy(tracer.trace.tensor(module.site, step))
            seen = tracer.trace.table(module.component).values[step, module.site.row]
            assert seen[:2].tolist() == [stored.min().item(), stored.max().item()]
