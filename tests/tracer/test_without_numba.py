"""Where torch is installed and numba is not, a run is recorded all the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.layout import MEASURED

from ..absent import run_without

RECORD = """
import warnings

import torch
from torch import nn
from diffusion_xray.tracer import Tracer

def run(out):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    x = torch.randn(1, 4, 16, 16)
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1e-39, -3.5])
    with torch.no_grad(), Tracer({"model": model}, out, capture="all") as tracer:
        for step in range(6):
            tracer.step(step)
            x = x - 0.1 * model(x)
            tracer.record("odd", odd)
            for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64):
                tracer.record(str(dtype)[6:], (x * 100).to(dtype))
            tracer.record("strided", x[:, ::2, 1:, ::3].transpose(1, 3))
            tracer.record("large", torch.arange(300_000).float() + 1e6)
            tracer.record("unequal", torch.ones(step + 1))
    return x

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    first, second = run(sys.argv[1] + "/first.zarr"), run(sys.argv[1] + "/second.zarr")
assert torch.equal(first, second)
said = [[type(w.message).__name__, str(w.message), w.filename] for w in told]
print(json.dumps({"said": said, "numba": "numba" in sys.modules, "output": first.tolist()}))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two runs in a process said, and where the traces are: with numba, and in a process that cannot import it."""
    outcome: dict[str, Any] = {}
    for how in ("with", "without"):
        folder = tmp_path_factory.mktemp(how)
        done = run_without(["numba", "llvmlite"] if how == "without" else [], RECORD, str(folder), warnings="default")
        assert done.returncode == 0, done.stderr
        outcome[how] = {**json.loads(done.stdout), "folder": folder}
    return outcome


def test_the_run_is_the_same(told: dict[str, Any]) -> None:
    """What the run computes does not depend on what measures it."""
    assert told["with"]["numba"] and not told["without"]["numba"]
    assert told["with"]["output"] == told["without"]["output"]


def test_it_is_said_once(told: dict[str, Any]) -> None:
    """One line in a process says that this takes longer and what to install, where the block is; with numba none."""
    about = {how: [entry for entry in told[how]["said"] if "numba" in entry[1]] for how in ("with", "without")}
    assert about["with"] == []
    [(kind, text, place)] = about["without"]
    assert (kind, place) == ("TracerWarning", "<string>")
    assert text.startswith("this was recorded without numba, which takes longer") and "\n" not in text
    assert text.endswith("pip install 'diffusion-xray[trace]'")
    others = [
        [entry[1].replace(str(told[how]["folder"]), "") for entry in told[how]["said"] if "numba" not in entry[1]]
        for how in about
    ]
    assert others[0] == others[1]


@pytest.mark.parametrize("name", ["first.zarr", "second.zarr"])
def test_the_trace_is_complete(told: dict[str, Any], name: str) -> None:
    """Every site, step and tensor is there: counts, extrema and histograms to the bit, moments to the last digits."""
    compiled, plain = (open_trace(told[how]["folder"] / name) for how in ("with", "without"))
    assert plain.info.status == compiled.info.status == "complete"
    assert not plain.info.gaps
    assert plain.n_steps == compiled.n_steps == 6
    kept = 0
    for ours, theirs in zip(plain.tables(), compiled.tables(), strict=True):
        assert [site.key for site in ours.sites] == [site.key for site in theirs.sites]
        assert np.array_equal(ours.captured, theirs.captured)
        for place, measured in enumerate(MEASURED):
            rtol = 1e-12 if measured in ("mean", "std", "l2_norm") else 0
            found, expected = (table.values[..., place] for table in (ours, theirs))
            np.testing.assert_allclose(found, expected, rtol=rtol, atol=0, err_msg=measured)
        for row, (site, same) in enumerate(zip(ours.sites, theirs.sites, strict=True)):
            for step in range(len(ours.captured)):
                counts = plain.histogram(site, step).counts
                assert np.array_equal(counts, compiled.histogram(same, step).counts)
                assert counts.sum() == ours.column("count")[step, row] > 0
                tensor = plain.tensor(site, step)
                assert np.array_equal(tensor, compiled.tensor(same, step), equal_nan=tensor.dtype.kind == "f")
                kept += 1
    assert kept == 6 * len(plain.modules) == 72
