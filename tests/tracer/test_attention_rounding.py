"""A correct trace never fails its check, whatever the dtype and the numbers; a wrong map is found."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_xray.tracer import Capture, Tracer, open_trace
from diffusion_xray.tracer.attention.exact import Head, scatter
from diffusion_xray.tracer.attention.maps import attend
from diffusion_xray.tracer.attention_check import AttentionCheck, check_attention, quick_tolerance

CAPTURE = Capture(attention="**", attention_output=True)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


class Kernel(nn.Module):
    """The kernel of torch, as a module."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """Attend."""
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def checked(path: Path, model: nn.Module, *given: Any) -> AttentionCheck:
    """Trace one step, and check it."""
    with torch.no_grad(), Tracer(model, path / "run.zarr", capture=CAPTURE) as tracer:
        tracer.step(0)
        model(*given)
    (check,) = check_attention(open_trace(path / "run.zarr"))
    return check


def masked(kind: str, dtype: torch.dtype, queries: int, keys: int) -> Tensor | None:
    """A mask of a kind, for every head alike."""
    chosen = normal(1, 1, queries, keys, seed=3) > 0.5
    if kind == "boolean":
        return chosen | (torch.arange(keys) == 0)
    ends = {"-inf": -torch.inf, "lowest": torch.finfo(dtype).min, "all lowest": torch.finfo(dtype).min}
    if kind not in ends:
        return None
    chosen = torch.ones_like(chosen) if kind == "all lowest" else chosen & (torch.arange(keys) > 0)
    return torch.zeros(chosen.shape, dtype=dtype).masked_fill(chosen, ends[kind])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["none", "boolean", "-inf", "lowest", "all lowest", "causal"])
@pytest.mark.parametrize("size", [1, 30])
def test_kernels_pass(dtype: torch.dtype, kind: str, size: float, tmp_path: Path) -> None:
    """Masks of every kind with small and with large scores."""
    query, key, value = (normal(2, 2, 48, 16, seed=seed) for seed in range(3))
    given = [part.to(dtype) for part in (query * size, key, value)]
    assert checked(tmp_path, Kernel(), *given, masked(kind, dtype, 48, 48), kind == "causal").passed


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_keys_pass(dtype: torch.dtype, tmp_path: Path) -> None:
    """The tolerance grows with what is added up."""
    query, key, value = (normal(1, 1, size, 16, seed=seed).to(dtype) for seed, size in enumerate((32, 4096, 4096)))
    assert checked(tmp_path, Kernel(), query, key, value, None, False).passed
    name = str(dtype).removeprefix("torch.")
    assert quick_tolerance(name, 4096) > quick_tolerance(name, 77)


class Layer(nn.Module):
    """A layer of diffusers whose scores are as large as asked for."""

    def __init__(self, size: float, processor: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attn = Attention(64, heads=4, dim_head=16)
        self.attn.set_processor(processor)
        with torch.no_grad():
            self.attn.to_q.weight.mul_(3 * size)
            self.attn.to_k.weight.mul_(3)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        result: Tensor = self.attn(x)
        return result


@pytest.mark.parametrize("size", [1, 10, 100, 1000])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("autocast", [False, True])
def test_processors_that_round_their_scores_pass(
    dtype: torch.dtype, size: float, autocast: bool, tmp_path: Path
) -> None:
    """Scores of 1000 rounded to half precision make shares that have little to do with the exact ones: still right."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        check = checked(tmp_path, Layer(size, AttnProcessor()).to(dtype), normal(2, 96, 64).to(dtype))
    assert check.passed


def test_large_errors_of_right_results_are_beyond_the_quick_tolerance(tmp_path: Path) -> None:
    """The case that needs float64: far from the exact result, and rounding explains it."""
    check = checked(tmp_path, Layer(10, AttnProcessor()).bfloat16(), normal(2, 96, 64).bfloat16())
    assert check.passed and check.error > quick_tolerance("bfloat16", 96)


@pytest.mark.filterwarnings("ignore:a value is not finite")
def test_an_overflow_of_the_run_is_no_fault_of_the_trace(tmp_path: Path) -> None:
    """Scores beyond float16 are NaN in the kernel though float32 can hold them; the trace is right about that."""
    layer = Layer(1, AttnProcessor()).half()
    with torch.no_grad():
        layer.attn.to_q.weight.mul_(300)
        layer.attn.to_k.weight.mul_(300)
    assert checked(tmp_path, layer, normal(1, 16, 64).half()).passed


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "processor", [AttnProcessor(), AttnProcessor2_0()], ids=lambda processor: type(processor).__name__
)
@pytest.mark.parametrize("wrong", ["scaled", "one row", "one head", "NaN"])
def test_a_wrong_result_is_found(dtype: torch.dtype, processor: Any, wrong: str, tmp_path: Path) -> None:
    """2 % everywhere, in half precision too; one row; one head of another; a NaN where a number was."""
    layer = Layer(0.3, processor).to(dtype)
    assert checked(tmp_path, layer, normal(2, 96, 64).to(dtype)).passed
    array: Any = zarr.open_group(tmp_path / "run.zarr", mode="r+")["model/attn/_io/attended"]
    tensor = array[0]
    if wrong == "scaled":
        tensor *= 1.02
    elif wrong == "one row":
        tensor[1, 2, 17] = tensor[1, 2, 18]
    elif wrong == "one head":
        tensor[1, 2] = tensor[1, 3]
    else:
        tensor[1, 2, 17, 3] = np.nan
    array[0] = tensor
    (check,) = check_attention(open_trace(tmp_path / "run.zarr"))
    assert not check.passed


def test_rows_in_float64_are_those_of_the_whole_map() -> None:
    """Masked and causal rows, and one that may attend to nothing, are what the maps have; noise stays about them."""
    query, key, value = (normal(24, 8, seed=seed).numpy() for seed in range(3))
    mask = np.zeros((24, 24), np.float32)
    mask[5] = -np.inf
    rows = np.array([0, 5, 23])
    for own in (None, mask, mask == 0):
        head = Head(query, key, value, 0.3, own, causal=True)
        expected = attend(query, key, value, scale=0.3, mask=own, causal=True, rows=rows)
        exact, errors = scatter(head, rows, "float32")
        np.testing.assert_allclose(exact, expected, atol=1e-6)
        assert np.abs(errors).max() < 1e-5 and errors.any()
