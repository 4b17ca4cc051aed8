"""``dxray demo``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.cli import main


def test_the_demo_leaves_a_trace_and_says_what_it_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One command draws, traces and tells; the picture is saved on request, unknown words are named."""
    path, image = tmp_path / "demo.zarr", tmp_path / "drawn.png"
    code = main(["demo", "a red dog on white", "--steps", "2", "--out", str(path), "--image", str(image), "--json"])
    printed = capsys.readouterr()
    assert code == 0
    assert json.loads(printed.out)["steps"] == open_trace(path).n_steps == 2
    assert json.loads(printed.out)["call"]["prompt"] == "a red dog on white"
    assert "never seen 'dog'" in printed.err
    assert image.read_bytes().startswith(b"\x89PNG")


def test_the_demo_can_be_asked_where_it_looks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unless told otherwise the demo keeps what attention needs, and names the command that shows it; that works."""
    path = tmp_path / "demo.zarr"
    assert main(["demo", "a big green star on black", "--steps", "2", "--out", str(path), "--no-view"]) == 0
    asked = f"dxray attention {path} --word star"
    assert asked in capsys.readouterr().out
    assert main(asked.split()[1:]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("star: mean over 2 steps, 4 layers")
    trace = open_trace(path)
    assert {call.kind for calls in trace.attention_modules.values() for call in calls} >= {"self", "cross"}
    assert trace.modules["unet.mid_block"].stored


@pytest.mark.parametrize("level", ["statistics", "blocks"])
def test_without_attention_the_demo_does_not_offer_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], level: str
) -> None:
    """A trace that keeps less is not said to show attention."""
    out = str(tmp_path / "demo.zarr")
    assert main(["demo", "--steps", "1", "--out", out, "--no-view", "--capture", level]) == 0
    assert "dxray attention" not in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--steps", "many"], ["--capture", "nothing"]])
def test_a_wrong_option_is_one_clear_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Bad values are refused with exit code 2 before anything is loaded."""
    with pytest.raises(SystemExit) as stopped:
        main(["demo", *arguments])
    assert stopped.value.code == 2
    assert arguments[1] in capsys.readouterr().err.splitlines()[-1]


def test_a_place_that_is_taken_by_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo replaces its older trace and nothing else."""
    (tmp_path / "work.zarr").mkdir()
    assert main(["demo", "--steps", "1", "--out", str(tmp_path / "work.zarr"), "--no-view"]) == 2
    assert "not a trace" in capsys.readouterr().err
