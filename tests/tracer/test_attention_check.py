"""Proving a trace: what `dxray check --attention` says of one that is right, wrong or empty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_xray.tracer import Capture, Tracer, attention_check, open_trace
from diffusion_xray.tracer.attention import maps
from diffusion_xray.tracer.cli import main


class Attention(nn.Module):
    """Two steps' worth of attention with two query heads for each key head."""

    def forward(self, x: Tensor) -> Tensor:
        """Attend causally, then with a bias."""
        key = x[:, ::2]
        first = F.scaled_dot_product_attention(x, key, key, is_causal=True, enable_gqa=True)
        return F.scaled_dot_product_attention(first, x, x, attn_mask=torch.linspace(-2, 2, 7).expand(1, 1, 7, 7))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A trace of three steps with results."""
    module, generator = Attention(), torch.Generator().manual_seed(0)
    with Tracer(module, tmp_path / "run.zarr", capture=Capture(attention="**", attention_output=True)) as tracer:
        for step in range(3):
            tracer.step(step)
            module(torch.randn(2, 4, 7, 8, generator=generator))
    return tmp_path / "run.zarr"


def test_a_trace_is_proven(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each call with its error and the step of it; exit code 0."""
    assert main(["check", str(path), "--attention"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:5] for line in lines[1:3]] == [
        ["model", str(call), "scaled_dot_product_attention", "float32", "3"] for call in (0, 1)
    ]
    assert all(line.endswith("ok") for line in lines[1:3])
    assert lines[3] == "all 2 passed"


def test_json_for_programs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same facts as JSON."""
    assert main(["check", str(path), "--attention", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["passed"] is second["passed"] is True
    assert 0 < first["error"] < first["tolerance"] < 1e-5


def test_data_and_attention_at_once(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --data both checks are made, and JSON keeps them apart."""
    assert main(["check", str(path), "--attention", "--data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("all is there and can be read") and lines[-1] == "all 2 passed"
    assert main(["check", str(path), "--attention", "--data", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["data"]["damage"] == [] and len(found["attention"]) == 2


@pytest.mark.parametrize(("value", "shown"), [(2.0, "FAILED"), (np.nan, "FAILED")])
def test_a_wrong_trace_fails(path: Path, value: float, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One wrong number in a result is found with its step, NaN too; exit code 1."""
    array: Any = zarr.open_group(path, mode="r+")["model/attended"]
    tensor = array[1]
    tensor[1, 3, 5, 2] += value
    array[1] = tensor
    assert main(["check", str(path), "--attention"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert shown in lines[1]
    assert lines[1].split()[6] == "1", "the step"
    assert lines[2].endswith("ok")
    assert lines[3] == "1 of 2 attention calls failed"


def test_heads_in_blocks_give_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few rows fit into memory, causal and biased calls come out alike."""
    whole = list(attention_check.check_attention(open_trace(path)))
    monkeypatch.setattr(maps, "_BLOCK", 3 * 4 * 7)
    blocks = list(attention_check.check_attention(open_trace(path)))
    assert [entry.error for entry in blocks] == pytest.approx([entry.error for entry in whole], abs=2e-8)
    assert all(entry.passed for entry in blocks)


def test_a_trace_without_results_says_how_to_get_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was proven: one clear line, and exit code 2, as JSON too."""
    with Tracer(nn.Linear(2, 2), tmp_path / "run.zarr") as tracer:
        tracer._target.components["model"](torch.zeros(1, 2))
    for options in ([], ["--json"]):
        assert main(["check", str(tmp_path / "run.zarr"), "--attention", *options]) == 2
        shown = capsys.readouterr()
        (line,) = shown.err.splitlines()
        assert "nothing to check" in line and 'Capture(attention="**", attention_output=True)' in line
        assert shown.out == ""


def test_calls_that_were_not_checked_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside those that passed it is said how many had nothing to be compared with."""
    model = nn.Sequential(Attention(), nn.Identity())
    with Tracer(model, tmp_path / "run.zarr", capture=Capture(attention="**", attention_output=True)):
        model(torch.randn(1, 4, 7, 8))
    head = tmp_path / "run.zarr" / "zarr.json"
    document = json.loads(head.read_text())
    group = document["consolidated_metadata"]["metadata"]["model/0"]
    group["attributes"]["attention"][1] |= {"softmax": False, "reason": "made so"}
    head.write_text(json.dumps(document))
    assert main(["check", str(tmp_path / "run.zarr"), "--attention"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "all 1 passed",
        "1 more could not be checked: there is no map, or no result was kept",
    ]


@pytest.mark.parametrize(
    "entries",
    [
        "nonsense",
        [7, None],
        [{"softmax": True}],
        [{"softmax": True, "call": "0", "scale": 1.0}],
        [{"softmax": True, "call": 0, "scale": "big"}],
        [{"softmax": True, "call": 9, "scale": 1.0}],
    ],
)
def test_descriptions_that_make_no_sense_are_passed_over(path: Path, entries: Any) -> None:
    """A trace is untrusted: what is not a description of a call is none."""
    document = json.loads((path / "zarr.json").read_text())
    document["consolidated_metadata"]["metadata"]["model"]["attributes"]["attention"] = entries
    (path / "zarr.json").write_text(json.dumps(document))
    assert list(attention_check.check_attention(open_trace(path))) == []
