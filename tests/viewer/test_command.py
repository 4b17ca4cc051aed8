"""`dxray view` from the outside."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.errors import DxrayError, SiteNotFoundError, TraceFormatError, TraceNotFoundError
from diffusion_xray.viewer.command import TerminalError, View
from diffusion_xray.viewer.screens.keys import KEYS
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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a.zarr", "--names", "unet=other"], "--rename 'unet=other' needs a trace to compare with: add --compare"),
        (["a.zarr", "--map", "names.json"], "--map names.json needs a trace to compare with: add --compare"),
        (["--compare", "b.zarr"], "which trace? --compare b.zarr names the second of two"),
        (["a.zarr", "--compare", "b.zarr", "--tab", "hist"], "--tab hist opens a view of one trace"),
        (["a.zarr", "--compare", "b.zarr", "--token", "circle"], "--token circle opens a view of one trace"),
        (["a.zarr", "--compare", "b.zarr", "--head", "0"], "--head 0 opens a view of one trace"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An option that would be without effect beside the others is refused in one line, before a trace is opened."""
    assert main(["view", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"dxray: {told}") and error.count("\n") == 1


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


def test_theme_of_a_screenshot(
    traces: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture has the theme that is asked for, whatever the settings of whoever draws it say."""
    (tmp_path / "dxray").mkdir()
    (tmp_path / "dxray" / "config.toml").write_text('theme = "textual-light"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    grounds = []
    for theme in ([], ["--theme", "textual-dark"], ["--theme", "textual-light"]):
        out = tmp_path / "picture.svg"
        assert screenshot([str(traces["normal"]), str(out), "--layer", "unet.mid_block", *theme]) == 0
        grounds.append('fill="#121212"' in out.read_text(encoding="utf-8"))
    assert grounds == [True, True, False]
    assert screenshot([str(traces["normal"]), str(out), "--theme", "none"]) == 2
    assert "no theme 'none'; there are" in capsys.readouterr().err


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


def test_list_of_traces(
    traces: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a path the traces below are listed: where, what, how many steps, how big, and the first fault."""
    shutil.copytree(traces["faulty"], tmp_path / "runs" / "faulty.zarr")
    shutil.copytree(traces["normal"], tmp_path / "a \x1b[31m.zarr")
    shutil.copytree(traces["normal"], tmp_path / ".hidden" / "normal.zarr")
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / "zarr.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    assert main(["view"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["trace", "pipeline", "steps", "size"]
    assert lines[0].startswith("a \\x1b[31m.zarr") and " 6 " in lines[0] and lines[0].endswith(" MB")
    assert "not readable" in lines[1]
    assert lines[2].startswith("runs/faulty.zarr") and lines[2].endswith("✗ step 4 unet.down_blocks.1")
    assert lines[3:] == ["", "Next: dxray view TRACE"]


def test_no_trace_to_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is none, the message says how to make one."""
    monkeypatch.chdir(tmp_path)
    assert main(["view"]) == 2
    assert "dxray demo" in capsys.readouterr().err


def test_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """`dxray keys` lists every key with its id, as text and as JSON."""
    assert main(["keys"]) == 0
    text = capsys.readouterr().out
    assert main(["keys", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    for key in KEYS:
        assert f"  {key.id}  " in text
        assert key.id in {row["id"] for row in rows}
    assert {"where": "layers", "keys": ["↑", "k"], "id": "tree.up", "does": "Choose the layer above"} in rows
