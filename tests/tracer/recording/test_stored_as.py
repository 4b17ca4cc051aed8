"""What a tensor of each precision is stored as, where nobody asked for anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from torch import Tensor, nn

from diffusion_xray.tracer import Capture, Trace, Tracer
from diffusion_xray.tracer.cli import main


class Returning(nn.Module):
    """Returns what it is given."""

    def forward(self, tensor: Tensor) -> Tensor:
        """As it is."""
        return tensor.clone()


def recorded(path: Path, tensor: Tensor, capture: Capture) -> Trace:
    """A trace of three steps."""
    model = Returning()
    with Tracer(model, path, capture=capture) as tracer:
        for step in range(3):
            tracer.step(step)
            model(tensor)
    return tracer.trace


@pytest.mark.parametrize(
    ("dtype", "chosen", "expected"),
    [
        ("float16", "auto", "float16"),
        ("bfloat16", "auto", "float32"),
        ("float8_e4m3fn", "auto", "float32"),
        ("float32", "auto", "float32"),
        ("float64", "auto", "float64"),
        ("float16", "float32", "float32"),
        ("float32", "float16", "float16"),
    ],
)
def test_nothing_is_lost_by_default(dtype: str, chosen: str, expected: str, tmp_path: Path) -> None:
    """float16 stays as it is, what Zarr has no type of is widened, and the values are those that were computed."""
    tensor = torch.tensor([[0.5, -2.0, 3.0, 0.0078125]]).to(getattr(torch, dtype))
    trace = recorded(tmp_path / "run.zarr", tensor, Capture(modules="**", dtype=chosen))  # type: ignore[arg-type]
    site = trace.site("model")
    stored = trace.tensor(site, 1)
    assert (stored.dtype.name, site.torch_dtype) == (expected, dtype)
    np.testing.assert_array_equal(stored.astype(np.float64), tensor.double().numpy())
    array = zarr.open_array(tmp_path / "run.zarr" / "model" / "output", mode="r")
    assert array.dtype.name == expected


def test_sums_of_half_precision_do_not_overflow(tmp_path: Path) -> None:
    """What xarray gives of float16 has a wider type: the mean of many large values is right, not infinite."""
    tensor = torch.full((1, 64, 64), 60000.0, dtype=torch.float16)
    trace = recorded(tmp_path / "run.zarr", tensor, Capture(modules="**"))
    assert trace.tensor(trace.site("model"), 0).dtype == np.float16
    assert float(trace["model"]["output"].isel(step=0).sum()) == 64 * 64 * tensor.double()[0, 0, 0].item()
    with trace.tree as tree:
        assert float(tree["model"]["output"].mean()) == tensor.double()[0, 0, 0].item()


def test_half_precision_is_compared_without_overflow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A comparison of large float16 values with other ones computes in float64."""
    tensor = torch.full((1, 64), 60000.0, dtype=torch.float16)
    recorded(tmp_path / "a.zarr", tensor, Capture(modules="**"))
    recorded(tmp_path / "b.zarr", -tensor, Capture(modules="**"))
    assert main(["diff", str(tmp_path / "a.zarr"), str(tmp_path / "b.zarr")]) == 1
    assert "1.2e+05" in capsys.readouterr().out.replace("1.20e+05", "1.2e+05")
