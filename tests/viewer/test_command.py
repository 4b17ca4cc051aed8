"""`dxray view` from the outside."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.errors import DxrayError, SiteNotFoundError, TraceFormatError, TraceNotFoundError
from diffusion_xray.viewer.command import TerminalError, View
from diffusion_xray.viewer.screenshot import _main as screenshot


def test_no_such_trace(tmp_path: Path) -> None:
    """A wrong path is refused before anything is drawn."""
    with pytest.raises(TraceNotFoundError):
        View().open(tmp_path / "none.zarr")


def test_not_a_trace(tmp_path: Path) -> None:
    """A folder that is no trace is refused."""
    with pytest.raises(TraceFormatError):
        View().open(tmp_path)


def test_wishes_are_checked_first(traces: dict[str, Path]) -> None:
    """An unknown layer or step is told even where there is no terminal."""
    with pytest.raises(SiteNotFoundError, match="mid_block"):
        View().open(traces["normal"], layer="unet.mid_blok")
    with pytest.raises(SiteNotFoundError, match="no step 99"):
        View().open(traces["normal"], step=99)


def test_no_terminal(traces: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal the message names the command that prints text."""
    monkeypatch.setattr(sys, "__stderr__", io.StringIO())
    with pytest.raises(TerminalError, match="dxray info"):
        View().open(traces["normal"])
    assert issubclass(TerminalError, DxrayError)


def test_error_is_one_line(traces: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The command line prints one line and exits with 2."""
    assert main(["view", str(traces["normal"]), "--layer", "unet.none"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dxray: ") and error.count("\n") == 1


def test_help_tells_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    """The help text is the class docstring with the options."""
    with pytest.raises(SystemExit):
        main(["view", "--help"])
    text = capsys.readouterr().out
    assert "Browse a trace in the terminal" in text
    assert all(option in text for option in ("--layer", "--step", "--tab"))


def test_needs_no_torch() -> None:
    """The whole browser is imported without torch."""
    code = """
import pkgutil, sys
import diffusion_xray.viewer as viewer
for module in pkgutil.walk_packages(viewer.__path__, "diffusion_xray.viewer."):
    __import__(module.name)
assert "diffusion_xray.viewer.app" in sys.modules
sys.exit(any(name in sys.modules for name in ("torch", "diffusers", "transformers", "xarray", "numba")))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_command_loads_without_textual() -> None:
    """The other commands do not pay for the browser."""
    code = "import sys, diffusion_xray.viewer.command; sys.exit('textual' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_screenshot(traces: dict[str, Path], tmp_path: Path) -> None:
    """A picture of the browser is written without a terminal."""
    out = tmp_path / "picture.svg"
    where = ["--layer", "unet.mid_block", "--step", "1", "--tab", "image", "--size", "100x30"]
    assert screenshot([str(traces["normal"]), str(out), *where]) == 0
    text = out.read_text(encoding="utf-8")
    assert "unet.mid_block" in text and "feature&#160;map" in text


def test_screenshot_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The picture command tells errors as the command line does."""
    assert screenshot([str(tmp_path / "none.zarr"), str(tmp_path / "picture.svg")]) == 2
    assert "there is no trace" in capsys.readouterr().err


def test_damaged_statistics(traces: dict[str, Path], tmp_path: Path) -> None:
    """Statistics that cannot be read are told in one line, whatever the store raises."""
    path = tmp_path / "damaged.zarr"
    shutil.copytree(traces["normal"], path)
    for chunk in (path / "statistics" / "unet" / "statistics").rglob("c*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[: 128 * 16] + b"\xff" * 65536)
    with pytest.raises(TraceFormatError, match="damaged"):
        View().open(path)
