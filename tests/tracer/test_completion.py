"""Tab completion, as a function and in bash."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from diffusion_xray.tracer import Tracer
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.commands.completion import candidates


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A trace of a few layers."""
    path = tmp_path / "run.zarr"
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with Tracer({"net": model}, path) as tracer:
        tracer.step(0, timestep=1.0)
        model(torch.ones(1, 2))
    return path


def test_commands_and_options() -> None:
    """The first word is a command, then come its options and their choices."""
    assert {"info", "ls", "stats", "completion"} <= set(candidates([], ""))
    assert candidates([], "inf") == ["info"]
    assert set(candidates(["stats"], "--")) == {"--csv", "--help", "--json", "--sort", "--step", "--top"}
    assert candidates(["stats", "run.zarr", "--sort"], "abs") == ["abs_max"]
    assert candidates(["completion"], "") == ["bash", "fish", "zsh"]


def test_nothing_where_a_file_or_number_is_expected() -> None:
    """Files are the shell's to complete, and an unknown command has nothing."""
    assert candidates(["stats"], "ru") == []
    assert candidates(["stats", "run.zarr", "--step"], "") == []
    assert candidates(["nonsense", "x"], "") == []


def test_layers(trace: Path) -> None:
    """Where a layer is expected, those of the trace named before are offered; options in between do not count."""
    assert candidates(["stats", str(trace)], "net.") == ["net.0", "net.1"]
    assert candidates(["ls", "--json", str(trace)], "") == ["net", "net.0", "net.1"]
    assert candidates(["stats", "--sort", "std", str(trace)], "net.1") == ["net.1"]
    assert candidates(["stats", str(trace.with_name("none.zarr"))], "net") == []


def test_hostile_names_are_not_offered(trace: Path) -> None:
    """A shell pastes what it is given: a name that could run something is left out."""
    document = json.loads((trace / "zarr.json").read_text())
    sites = document["consolidated_metadata"]["metadata"]["statistics/net"]["attributes"]["sites"]
    sites[0]["name"] = "net.$(touch x)"
    sites[1]["name"] = "net.a b\x1b[31m"
    (trace / "zarr.json").write_text(json.dumps(document))
    assert candidates(["stats", str(trace)], "") == ["net"]


def test_many_layers_part_by_part(tmp_path: Path) -> None:
    """Of very many layers the next part of the name is offered, with a dot to go on from."""
    model = nn.Sequential(*(nn.Sequential(*(nn.Linear(2, 2) for _ in range(9))) for _ in range(9)))
    with Tracer({"net": model}, tmp_path / "run.zarr") as tracer:
        tracer.step(0, timestep=1.0)
        model(torch.ones(1, 2))
    before = ["stats", str(tmp_path / "run.zarr")]
    assert candidates(before, "") == ["net", "net."]
    assert candidates(before, "net.")[:4] == ["net.0", "net.0.", "net.1", "net.1."]
    assert candidates(before, "net.3.") == [f"net.3.{n}" for n in range(9)]


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_scripts_are_valid(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each shell takes its script without an error."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "dxray" in script
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    subprocess.run([program, "-n"], input=script, text=True, check=True)


def test_bash_completes(trace: Path, tmp_path: Path) -> None:
    """Sourced in bash, the script completes a command, an option and a layer."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here")
    program = tmp_path / "bin" / "dxray"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m diffusion_xray.tracer.cli "$@"\n')
    program.chmod(0o755)
    script = """
eval "$(dxray completion bash)"
complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _dxray; echo "${COMPREPLY[*]}"; }
complete_words dxray sta
complete_words dxray stats --so
complete_words dxray stats run.zarr net.
"""
    variables = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=tmp_path, env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["stats", "--sort", "net.0", "net.1"]
