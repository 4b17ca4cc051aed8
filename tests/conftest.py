"""What holds for every test: no network, two threads at most, and a terminal that draws the same everywhere."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("without deadlines", deadline=None)  # how long an example takes depends on what else runs
settings.load_profile("without deadlines")

# Read by the libraries when they are imported, so set before any test module is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DXRAY_DEBUG"] = "1"  # so that the command line hides no bug of ours from a test
os.environ["DXRAY_PLUGINS"] = "own"  # whatever else is installed in this environment
os.environ["TEXTUAL_ANIMATIONS"] = "none"
os.environ["TEXTUAL_COLOR_SYSTEM"] = "truecolor"
os.environ.pop("NO_COLOR", None)
os.environ.pop("COLUMNS", None)  # pytest-xdist hands on the width of the terminal it was started in
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes: threads of its own would only wait for theirs
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def _two_torch_threads() -> None:
    """Hold torch to two threads, without importing it for tests that must not."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() > 2:
        torch.set_num_threads(2)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of the embedded model with its attention, made once."""
    from .attending import record_embedded

    path = tmp_path_factory.mktemp("embedded") / "embedded.zarr"
    record_embedded(path)
    return path
