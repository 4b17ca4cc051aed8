"""``dxray check``: everything is read, and what is damaged or missing is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from diffusion_xray.tracer import Capture, Tracer
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.data_check import check_data

from .networks import Denoiser


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace with a loop, of which some steps keep tensors, and with something outside of it."""
    path = tmp_path_factory.mktemp("whole") / "run.zarr"
    model, after = Denoiser(), nn.Linear(2, 2)
    capture = Capture(modules="**", steps=[0, 2])
    with torch.no_grad(), Tracer({"model": model, "after": after}, path, capture=capture) as tracer:
        for step in range(3):
            model(torch.full((1, 4, 8, 8), 1.0 + step), 1000.0 - step)
            tracer.record("noise", torch.zeros(2) if step else torch.ones(3))
        tracer.step(None)
        after(torch.ones(1, 2))
    return path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "run.zarr"))


def test_a_whole_trace_passes(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line and exit code 0; steps that kept no tensor, and zeros, are no damage. It is what is done by default."""
    for options in ([], ["--data"]):
        assert main(["check", str(whole), *options]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert line.endswith("all is there and can be read")


def test_each_lost_file_is_named(copy: Path) -> None:
    """Whichever chunk file of a tensor, a statistic or a histogram is gone, its array is among the damage."""
    files = [
        file
        for file in copy.rglob("c.*")
        if len(file.relative_to(copy).parts) > 2 and file.parent.name not in ("site", "statistic")
    ]
    assert len(files) > 20
    for file in files:
        data = file.read_bytes()
        file.unlink()
        found = check_data(copy).damage
        array = str(file.parent.relative_to(copy))
        assert array in {entry.array for entry in found} or any(array in entry.reason for entry in found), file
        file.write_bytes(data)
    assert not check_data(copy).damage


def test_damage_for_programs(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has array, step and reason of each; exit code 1."""
    (file,) = (copy / "model/conv_in/output").glob("c.*")
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(bytes(data))
    assert main(["check", str(copy), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    (entry,) = document["damage"]
    assert (entry["array"], entry["step"]) == ("model/conv_in/output", 2)
    assert "checksum" in entry["reason"]
    assert document["without_checksums"] == []


def test_only_complete_steps_count(copy: Path) -> None:
    """What was written of a step that no reader shows may be torn, as it is after a kill."""
    (file,) = (copy / "model/conv_in/output").glob("c.*")
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(bytes(data))
    root = copy / "zarr.json"
    root.write_text(root.read_text().replace('"status":"complete"', '"status":"recording"'))
    flags = copy / "committed" / "c.0"
    flags.write_bytes(b"\1\1\0" + flags.read_bytes()[3:])
    assert not [entry for entry in check_data(copy).damage if entry.array.startswith("model")]


def test_lost_flags_are_no_empty_run(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the file is gone that tells which steps are complete, that is told, and not that there were none."""
    (copy / "committed" / "c.0").unlink()
    assert main(["check", str(copy)]) == 1
    assert "committed" in capsys.readouterr().out
    assert main(["info", str(copy)]) == 2
    assert "committed" in capsys.readouterr().err


def test_what_is_no_trace_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong path is exit code 2, as everywhere."""
    assert main(["check", str(tmp_path / "none.zarr"), "--data"]) == 2
    assert "there is no trace" in capsys.readouterr().err
