"""Whatever the standard output is like, no command ends in a traceback."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[1] / "data" / "golden-v1.zarr"
COMMANDS = ["--help", "stats --help", "info {g}", "ls {g}", "stats {g}", "diff {g} {g}", "keys", "completion bash"]
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}

RUN = """
import shlex, sys
from diffusion_xray.tracer.cli import main

for command in sys.argv[1:]:
    try:
        code = main(shlex.split(command))
    except SystemExit as exit:
        code = exit.code
    assert code == 0, (command, code)
"""


@pytest.mark.parametrize(("changes", "encoding"), [({"PYTHONIOENCODING": "latin-1"}, "latin-1"), (ASCII, "ascii")])
def test_an_encoding_that_lacks_our_signs(changes: dict[str, str], encoding: str) -> None:
    """What latin-1 or ASCII cannot say is written in signs that they have."""
    commands = [command.format(g=shlex.quote(str(GOLDEN))) for command in COMMANDS]
    environment = {key: value for key, value in (os.environ | changes).items() if value}
    done = subprocess.run([sys.executable, "-c", RUN, *commands], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode(encoding)
    assert "over_steps" not in shown and "std over steps" in shown
    assert "\\u" not in shown and ("×" in shown) == (encoding == "latin-1")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("command", ["--help", "ls {g}", "stats {g} --csv"])
def test_a_disk_that_is_full(command: str) -> None:
    """That the output cannot be written is one line on stderr, and code 2."""
    with Path("/dev/full").open("w") as full:
        done = dxray(command, full)
    assert done.returncode == 2
    assert done.stderr == "dxray: cannot read or write: No space left on device\n"


def test_a_reader_that_has_left() -> None:
    """A pipe that nobody reads any more ends the command as it does others, without a word, and not as a success."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = dxray("diff {g} {g}", pipe)
    assert (done.returncode, done.stderr) == (141, "")


def dxray(command: str, output: object) -> subprocess.CompletedProcess[str]:
    """Run a command with its output going there."""
    arguments = shlex.split(command.format(g=shlex.quote(str(GOLDEN))))
    code = [sys.executable, "-m", "diffusion_xray.tracer.cli", *arguments]
    return subprocess.run(code, stdout=output, stderr=subprocess.PIPE, text=True, check=False)  # type: ignore[call-overload,no-any-return]
