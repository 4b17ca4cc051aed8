"""What rounding explains: the coarsest dtype on the way, and how far apart the tensors were that went in."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_xray.pipelines import load_pipeline
from diffusion_xray.tracer import Tracer, open_trace
from diffusion_xray.tracer.comparison.divergence import Comparison
from diffusion_xray.tracer.comparison.rounding import allowed
from diffusion_xray.tracer.trace import Trace

FINE, HALF = 1.3e-6, 1e-3


def limits(distance: list[float], rounding: list[float], steps: list[int] | None = None) -> list[float]:
    """What is allowed of tensors made one after another."""
    count = len(distance)
    found = allowed(np.array(distance), np.array(rounding), np.arange(float(count)), np.array(steps or [0] * count))
    return [float(value) for value in found]


def test_full_precision_has_its_own_limit() -> None:
    """Where nothing was coarser than float32, what went before loosens nothing."""
    assert limits([1e-6, 1e-6, 1e-3], [FINE] * 3) == [FINE] * 3


def test_what_was_allowed_may_grow() -> None:
    """A layer may be four times as far apart as the most that was allowed before it; what was not does not count."""
    assert limits([5e-4, 2e-4, 0.5, 1e-4], [HALF] * 4) == pytest.approx([HALF, 3e-3, 3e-3, 3e-3])


def test_growth_has_an_end() -> None:
    """A fault that grows from step to step passes no more than rounding errors of all steps together would."""
    creeping = [HALF * 3**step for step in range(9)]
    found = limits(creeping, [HALF] * 9, list(range(9)))
    assert all(limit <= 8 * HALF * (1 + step) for step, limit in enumerate(found))
    assert [distance > limit for distance, limit in zip(creeping, found, strict=True)][-1]


def test_order_is_that_of_the_run() -> None:
    """What was made later loosens nothing before it, wherever it stands in the table."""
    distance, rounding = np.array([[5e-3, 9e-4]]), np.full((1, 2), HALF)
    found = allowed(distance, rounding, np.array([[0.0, 1.0]]), np.zeros((1, 2), int))
    assert found[0, 0] == HALF
    found = allowed(distance, rounding, np.array([[1.0, 0.0]]), np.zeros((1, 2), int))
    assert found[0, 0] == pytest.approx(HALF + 4 * 9e-4)


def record(path: Path, autocast: torch.dtype | None = None, layer: str = "", scale: float = 1.0) -> Trace:
    """The embedded pipeline for two steps, with the weights of a layer of its denoiser scaled."""
    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    if layer:
        with torch.no_grad():
            pipe.unet.get_submodule(layer).weight.mul_(scale)
    inside = torch.autocast("cpu", dtype=autocast) if autocast else contextlib.nullcontext()
    with Tracer(pipe, path, capture="all"), inside:
        pipe("a red circle on white", num_inference_steps=2, generator=torch.Generator().manual_seed(0))
    return open_trace(path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """The run in full precision."""
    return record(tmp_path_factory.mktemp("plain") / "a.zarr")


@pytest.mark.parametrize(
    ("dtype", "layer", "scale"),
    [
        (torch.float16, "", 1.0),
        (torch.bfloat16, "", 1.0),
        (torch.float16, "up_blocks.0.resnets.0.conv2", 1.01),
        (torch.bfloat16, "up_blocks.0.resnets.0.conv2", 1.2),
        (torch.float16, "mid_block.attentions.0.transformer_blocks.0.norm2", 1.2),
    ],
    ids=["half", "bfloat16", "half-1%", "bfloat16-20%", "half-norm-20%"],
)
def test_a_wrong_layer_under_autocast(
    plain: Trace, tmp_path: Path, dtype: torch.dtype, layer: str, scale: float
) -> None:
    """A healthy run under autocast passes, its layers of float32 among those of half; a wrong layer is the first."""
    comparison = Comparison(plain, record(tmp_path / "b.zarr", dtype, layer, scale))
    for _ in comparison.run():
        pass
    first = comparison.table.first_over()
    if not layer:
        assert first is None
        assert {pair.b.torch_dtype for pair in comparison.table.pairing.pairs} >= {"float32", str(dtype)[6:]}
    else:
        assert first is not None and (first.pair.a.name, first.steps) == (f"unet.{layer}", (0, 0))
