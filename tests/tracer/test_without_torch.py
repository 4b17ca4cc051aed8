"""A trace is read and looked at where no more than the base install is there, and recording says what it lacks."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from diffusion_xray.tracer.errors import MissingLibraryError
from diffusion_xray.tracer.extras import RECORDING, explained

from ..absent import run_without

GOLDEN = Path(__file__).parents[1] / "data" / "golden-v1.zarr"
PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

READ = """
import contextlib, io

import diffusion_xray.tracer as tracer
import diffusion_xray.viewer.app
import diffusion_xray.viewer.command
from diffusion_xray.tracer.cli import main

trace = tracer.open_trace(sys.argv[1])
assert trace.statistics("model").sizes["step"] == 2
assert trace.tensor(trace.site("model.conv_in"), 1).shape == (1, 8, 4, 4)
assert trace["model.conv_in"]["output"].sizes["step"] == 2
assert len(trace.histogram(trace.site("model")).counts) == 4096
assert trace.steps["latents"].shape == (2, 1, 4, 4, 4)
assert trace.tree["latents"]
assert (trace.prompts, trace.images) == ((), None)
assert repr(trace)
attended = tracer.open_trace(sys.argv[2])
lazy = attended.attention("unet.mid_block.attentions.0.transformer_blocks.0.attn2")
assert lazy.sel(step=1, key="circle").values.shape == (2, 4, 64)
assert attended.word_map("circle", step=1).shape == (8, 8)
import xarray
assert xarray.open_datatree(sys.argv[2], engine="diffusion-xray")["unet"]
shown = io.StringIO()
with contextlib.redirect_stdout(shown):
    for command in ("info", "ls", "stats"):
        assert main([command, sys.argv[1]]) == 0
        assert main([command, sys.argv[1], "--json"]) == 0
    assert main(["diff", sys.argv[1], sys.argv[1]]) == 0
    assert main(["attention", sys.argv[2], "--word", "circle"]) == 0
    assert main(["attention", sys.argv[2], "--word", "circle", "--out", sys.argv[3]]) == 0
    assert main(["run"]) == 0
from diffusion_xray.viewer.screenshot import _main as screenshot
assert screenshot([sys.argv[2], sys.argv[4], "--layer", "unet.mid_block", "--step", "1", "--tab", "image"]) == 0
assert "model.conv_in" in shown.getvalue()
found = sorted(sys.modules.keys() & {"numba", "llvmlite", *json.loads(sys.argv[5])})
assert not found, found
"""

RECORD = """
from diffusion_xray.tracer.cli import main

for ask in (
    lambda: __import__("diffusion_xray.tracer", fromlist=["Tracer"]).Tracer,
    lambda: __import__("diffusion_xray.pipelines", fromlist=["load_pipeline"]).load_pipeline,
):
    try:
        ask()
    except ImportError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
print(main(sys.argv[1:]))
"""


def outside_the_base() -> list[str]:
    """Every name that can be imported here and could not where only the base install is."""
    brought: set[str] = set()
    waiting = list(PROJECT["dependencies"])
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name not in brought and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            brought.add(name)
            waiting += requires(name) or ()
    ours = brought | {"diffusion-xray"}
    return [name for name, by in packages_distributions().items() if not ours & set(map(canonicalize_name, by))]


@pytest.mark.parametrize("everything", [False, True], ids=["base install", "everything installed"])
def test_reading_and_viewing_need_no_torch(embedded: Path, tmp_path: Path, everything: bool) -> None:
    """The base install does everything but record; and where the rest is there, reading imports nothing of it."""
    absent = outside_the_base()
    assert {"torch", "numba", "llvmlite", "scipy", "diffusers"} <= set(absent)
    # dask imports scipy by itself where both are there
    files = [str(tmp_path / name) for name in ("map.png", "browser.svg")]
    done = run_without(
        ["dask"] if everything else absent, READ, str(GOLDEN), str(embedded), *files, json.dumps(sorted(RECORDING))
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(
    "command", [["demo"], ["run", "ddim"], ["run", "ddim", "--help"], ["run", "--all"]], ids=" ".join
)
def test_recording_says_what_to_install(command: list[str], tmp_path: Path) -> None:
    """Without torch the tracer, the pipeline and each command that records say in one line what to install."""
    out = ["--out", str(tmp_path / "out.zarr")] if command == ["demo"] else []
    done = run_without(outside_the_base(), RECORD, *command, *out)
    api, pipeline, line = done.stderr.splitlines()
    assert api == (
        "MissingLibraryError: recording needs torch, which is not installed: pip install 'diffusion-xray[trace]'"
    )
    assert pipeline.startswith("MissingLibraryError: load_pipeline needs torch") and "[trace]" in pipeline
    assert line.startswith("dxray: ") and line.endswith("which is not installed: pip install 'diffusion-xray[trace]'")
    assert done.stdout == "2\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("absent", ["diffusers", "transformers"])
def test_a_part_of_what_recording_needs(absent: str) -> None:
    """The library that is missing is the one that is named, where torch is there."""
    done = run_without([absent], "from diffusion_xray.tracer.cli import main; print(main(['demo']))")
    assert done.stdout == "2\n"
    assert done.stderr == f"dxray: this needs {absent}, which is not installed: pip install 'diffusion-xray[trace]'\n"


def test_another_module_that_is_missing_is_not_explained() -> None:
    """A mistake in the code, or a torch that is there and lacks a part, is not told as something to install."""
    for error in (
        ModuleNotFoundError("No module named 'torchery'", name="torchery"),
        ImportError("no libcudart", name="torch"),
    ):
        with pytest.raises(ImportError) as raised, explained():
            raise error
        assert raised.value is error
    with pytest.raises(MissingLibraryError, match="this needs torch,") as told, explained():
        raise ModuleNotFoundError(name="torch.nn")
    assert told.value.name == "torch.nn"


def test_the_extra_installs_what_recording_needs() -> None:
    """What is told to be installed by the extra is what the extra installs."""
    listed = {Requirement(line).name.replace("-", "_") for line in PROJECT["optional-dependencies"]["trace"]}
    assert listed == RECORDING
