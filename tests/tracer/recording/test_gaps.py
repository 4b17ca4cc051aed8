"""A list of gaps is complete, grouped, and never long."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from diffusion_xray.tracer import Tracer, open_trace
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.info import TraceInfo
from diffusion_xray.tracer.recording.gaps import Gaps


class Sparse(nn.Module):
    """Returns what holds no numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """The same, sparse."""
        return x.to_sparse()


def test_what_is_missing_at_every_step_is_one_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two hundred steps without a tensor are a single gap that lists them all, in the trace and in `info`."""
    model = Sparse()
    with Tracer(model, tmp_path / "run.zarr") as tracer:
        for step in range(204):
            tracer.step(step)
            model(torch.ones(2))
    (gap,) = tracer.trace.info.gaps
    assert (gap["site"], gap["count"], gap["steps"]) == ("model", 204, [[0, 203]])
    main(["info", str(tmp_path / "run.zarr")])
    shown = " ".join(capsys.readouterr().out.split())
    assert "gap model: 204 steps (0–203): a torch.sparse_coo torch.float32 tensor has no numbers" in shown


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.sampled_from("ab")), max_size=60))
def test_every_step_is_listed(events: list[tuple[int, int, str]]) -> None:
    """The runs of steps of a gap are those at which it was noted, and the counts add up."""
    expected: dict[str, set[int]] = {}
    counts: dict[str, int] = {}
    gaps, step = Gaps(), 0
    for on, count, site in events:
        step += on
        gaps.add(site, step, "why", count)
        expected.setdefault(site, set()).add(step)
        counts[site] = counts.get(site, 0) + count
    for entry in gaps.to_attributes():
        listed = [at for first, last in entry["steps"] for at in range(first, last + 1)]
        assert listed == sorted(expected[entry["site"]])
        assert entry["count"] == counts[entry["site"]]
    assert len(gaps.to_attributes()) == len(expected)


def test_it_stays_short() -> None:
    """Very many sites are counted by their reason, very many runs of steps by their number; nothing is left out."""
    gaps = Gaps()
    for site in range(5000):
        gaps.add(f"unet.{site}", 0, "lost")
    for step in range(0, 4000, 2):
        gaps.add("unet.0", step, "torn")
    entries = gaps.to_attributes()
    assert len(entries) <= 1002
    assert sum(entry["count"] for entry in entries if entry["reason"] == "lost") == 5000
    (torn,) = [entry for entry in entries if entry["reason"] == "torn"]
    assert torn["count"] == torn["steps"] == 2000


def test_gaps_of_the_first_format_and_of_anybody_are_read() -> None:
    """A gap of an older trace has one step; what is none of all this is taken for as little as it says."""
    old = TraceInfo.from_attributes({"gaps": [{"site": "unet", "step": 3, "reason": "full"}, {"reason": "100 more"}]})
    assert [(gap["site"], gap["steps"], gap["count"]) for gap in old.gaps] == [("unet", [[3, 3]], 1), ("", [], 1)]
    for steps in ("x", [[1]], [["a", "b"]], {"a": 1}, None, [3]):
        (gap,) = TraceInfo.from_attributes({"gaps": [{"site": 3, "steps": steps, "count": "many"}]}).gaps
        assert (gap["site"], gap["steps"], gap["count"]) == ("3", [], 1)


def test_a_trace_without_gaps_says_nothing_of_them(tmp_path: Path) -> None:
    """Where everything was recorded there is no entry."""
    layer = nn.Linear(2, 2)
    with Tracer(layer, tmp_path / "run.zarr", capture="all"):
        layer(torch.ones(2))
    assert open_trace(tmp_path / "run.zarr").info.gaps == ()
