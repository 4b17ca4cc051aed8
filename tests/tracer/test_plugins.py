"""What other packages add: taps and commands by entry point, good and broken ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from diffusion_xray.tracer import Tracer, TracerWarning
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.plugins import COMMANDS, PLUGINS, find

from .networks import Denoiser, denoise

GOLDEN = Path(__file__).parents[1] / "data" / "golden-v1.zarr"

CODE = '''
"""A package that knows how to X-ray fakes."""

from diffusion_xray.tracer.recording.sites import Source


class NormTap:
    def attach(self, target, emit):
        model = next(iter(target.components.values()))
        source = Source("fake.norm", "Norm")
        handle = model.register_forward_hook(lambda m, args, output: emit(source, output[0].norm()[None], keep=True))
        return handle.remove


class Count:
    """Count the letters of a trace's name.

    It is not good for anything.
    """

    def prepare_parser(self, parser):
        parser.add_argument("trace")

    def run(self, options):
        print(len(options.trace))
        return 3
'''

GOOD = """
[diffusion_xray.taps]
norm = fakexray:NormTap

[diffusion_xray.commands]
count = fakexray:Count
"""

BROKEN = """
[diffusion_xray.taps]
absent = fakexray_is_not_there:Tap
nameless = fakexray:NoSuchTap

[diffusion_xray.commands]
crash = fakexray_is_not_there:Crash
"""


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder from which packages are found."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "fakexray.py").write_text(CODE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv(PLUGINS)
    yield folder
    sys.modules.pop("fakexray", None)


def install(folder: Path, name: str, entry_points: str) -> None:
    """What a package manager leaves behind of a distribution."""
    info = folder / f"{name}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(entry_points)


def test_an_installed_tap_records(site_packages: Path, tmp_path: Path) -> None:
    """A tap of another package is found without being named, and what it emits is in the trace."""
    install(site_packages, "fakexray", GOOD)
    model = Denoiser()
    expected = [model(torch.zeros(1, 4, 8, 8), timestep)[0].norm().item() for timestep in (9.0, 8.0)]
    with Tracer(model, tmp_path / "run.zarr") as tracer:
        for timestep in (9.0, 8.0):
            model(torch.zeros(1, 4, 8, 8), timestep)
    trace = tracer.trace
    assert "norm" in trace.info.taps
    assert trace.modules["fake.norm"].module_class == "Norm"
    assert trace["fake.norm"]["output"].values[:, 0] == pytest.approx(expected)
    assert "fake" in trace.components
    assert not model._forward_hooks


def test_what_others_add_can_be_left_out(site_packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With DXRAY_PLUGINS=own no tap and no command of another package is loaded, and ours are all there."""
    install(site_packages, "fakexray", GOOD)
    assert "count" in find(COMMANDS)
    monkeypatch.setenv(PLUGINS, "own")
    assert "count" not in find(COMMANDS) and "view" in find(COMMANDS)
    with Tracer(Denoiser(), tmp_path / "run.zarr") as tracer:
        tracer._target.components["model"](torch.zeros(1, 4, 8, 8), 9.0)
    assert "norm" not in tracer.trace.info.taps


def test_broken_taps_are_named_and_the_others_record(site_packages: Path, tmp_path: Path) -> None:
    """A tap that cannot be imported is warned of by name and noted in the trace; the run and other taps go on."""
    install(site_packages, "fakexray", GOOD)
    install(site_packages, "brokenxray", BROKEN)
    model = Denoiser()
    plain = denoise(model)
    with pytest.warns(TracerWarning) as caught, Tracer(model, tmp_path / "run.zarr") as tracer:
        traced = denoise(model)
    assert torch.equal(plain, traced)
    told = sorted(str(warning.message) for warning in caught)
    assert len(told) == 2
    assert told[0].startswith("tap 'absent' failed")
    assert "fakexray_is_not_there" in told[0]
    assert told[1].startswith("tap 'nameless' failed")
    trace = tracer.trace
    assert trace.info.status == "complete"
    failures = {entry["tap"]: entry["error"] for entry in trace.info.tap_failures}
    assert set(failures) == {"absent", "nameless"}
    assert "ModuleNotFoundError" in failures["absent"]
    assert {"fake.norm", "model.conv_in"} <= set(trace.modules)


def test_an_installed_command_is_offered(site_packages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command of another package is in the help with the first line of its docstring, and runs."""
    install(site_packages, "fakexray", GOOD)
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr()
    assert "count     Count the letters of a trace's name\n" in shown.out
    assert shown.err == ""
    with pytest.raises(SystemExit, match="0"):
        main(["count", "--help"])
    assert "It is not good for anything." in capsys.readouterr().out
    assert main(["count", "run.zarr"]) == 3
    assert capsys.readouterr().out == "8\n"


def test_a_broken_command_is_named_and_the_others_work(site_packages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that cannot be imported costs one line on stderr; every other command works."""
    install(site_packages, "fakexray", GOOD)
    install(site_packages, "brokenxray", BROKEN)
    assert main(["ls", str(GOLDEN)]) == 0
    shown = capsys.readouterr()
    assert "model.conv_in:output" in shown.out
    assert shown.err == "dxray: command 'crash' does not load: No module named 'fakexray_is_not_there'\n"
    assert main(["count", "run.zarr"]) == 3
