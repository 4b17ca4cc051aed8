"""What users get: the source distribution, the wheel that is built from it, and what is installed of that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from email.parser import HeaderParser
from pathlib import Path

import pytest

from .checkout import ROOT, files

pytest.importorskip("setuptools", "77", reason="the wheel is built with setuptools: pip install 'diffusion-xray[test]'")

BUILD = "import sys; from setuptools import build_meta; print(build_meta.{}(sys.argv[1]))"


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Run a command in a folder as a user would, knowing nothing of the checkout; returns what it printed."""
    ours = ("PYTHON", "DXRAY", "COV_", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=240, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built from a copy of the checkout: building leaves its files beside the code."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("sdist")
    for path in files():
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    run([sys.executable, "-c", BUILD.format("build_sdist"), out], copy)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the source distribution holds."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    return top


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as pip does where it finds no wheel."""
    out = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-c", BUILD.format("build_wheel"), out], unpacked)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a fresh environment with the wheel: of what runs this test it sees all but our own checkout.

    Nothing is downloaded: the libraries are those that are here, by a path that is looked at last, and no finder of an
    editable install comes with a path.
    """
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    run([python, "-m", "pip", "install", *offline, wheel], folder)
    libraries = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    own = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    (own / "libraries.pth").write_text("\n".join(libraries), encoding="utf-8")
    return python.parent


def test_the_source_distribution_is_complete(unpacked: Path) -> None:
    """It holds every file of the repository: documentation, tests, constraints, and what runs them."""
    there = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    ours = {path.relative_to(ROOT).as_posix() for path in files()}
    assert sorted(ours - there) == []
    added = {name for name in there - ours if ".egg-info/" not in name}
    assert added == {"PKG-INFO", "setup.cfg"}


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    """Below `diffusion_xray` lies every file of the three folders; no tests, no other name for site-packages."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    inside = {name.partition("/")[2] for name in names if name.startswith("diffusion_xray/")}
    ours = {path.relative_to(ROOT).as_posix() for path in files()}
    assert inside == {name for name in ours if name.split("/")[0] in ("pipelines", "tracer", "viewer")}
    assert {name.split("/")[0] for name in names} == {"diffusion_xray", f"{wheel.name.rsplit('-', 3)[0]}.dist-info"}


def test_the_wheel_asks_for_no_torch_by_itself(wheel: Path) -> None:
    """What comes with the bare name reads traces; torch and its like are asked for by the extra alone."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        head = HeaderParser().parsestr(archive.read(name).decode())
    asked = head.get_all("Requires-Dist") or []
    bare = {line.split(">")[0] for line in asked if "extra ==" not in line}
    assert {"numpy", "zarr", "xarray", "textual", "pillow"} <= bare
    assert not bare & {"torch", "diffusers", "transformers", "accelerate", "scipy", "numba", "llvmlite"}
    assert any(line.startswith("torch") and '"trace"' in line.replace("'", '"') for line in asked)


def test_the_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """In a folder without any checkout the demo draws and records, and the browser and the commands show it."""
    where = "import diffusion_xray.tracer as it; print(it.__file__)"
    assert Path(run([installed / "python", "-c", where], tmp_path).strip()).is_relative_to(installed.parent)
    shown = run([installed / "dxray", "demo", "--no-view", "--steps", "3"], tmp_path)
    assert "steps    3" in shown and "dxray view demo.zarr" in shown
    assert "unet.mid_block" in run([installed / "dxray", "ls", "demo.zarr"], tmp_path)
    run([installed / "python", "-m", "diffusion_xray.viewer.screenshot", "demo.zarr", "browser.svg"], tmp_path)
    assert "unet" in (tmp_path / "browser.svg").read_text(encoding="utf-8")
