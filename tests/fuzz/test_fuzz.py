"""Damaged traces by the hundred: every reader ends in time and in memory, with an answer or one error of ours."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import Capture, Tracer, open_trace

from .worker import one_seed

TESTS = Path(__file__).parents[1]
GOLDEN = sorted((TESTS / "data").glob("golden-v*.zarr"))
_MINUTES = 60
"""For a thousand seeds, on a machine that has much else to do."""


@pytest.fixture(scope="session")
def traces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A trace of each format, and one with attention, texts and pictures."""
    path = tmp_path_factory.mktemp("fuzz") / "attention.zarr"
    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    with Tracer(pipe, path, capture=Capture(attention="unet.mid_block.**", attention_output=True)):
        pipe("a red circle on white", num_inference_steps=2, generator=torch.Generator().manual_seed(0))
    return [*GOLDEN, path]


def wrong_of(first: int, count: int, folder: Path, traces: list[Path]) -> list[dict[str, Any]]:
    """What was wrong with any of some seeds, looked at in a process of its own."""
    words = [str(folder), str(first), str(count), *map(str, traces)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.worker", *words],
        cwd=TESTS,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=_MINUTES * 60,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = [line for line in lines if line.get("wrong")]
    if sum("done" in line for line in lines) != count:
        found.append({"ended at": lines[-1:], "code": done.returncode, "said": done.stderr[-2000:]})
    return found


@pytest.mark.parametrize("first", [0, 40, 80, 120, 160])
def test_damaged_traces(first: int, traces: list[Path], tmp_path: Path) -> None:
    """Whatever is damaged, each command, the API, lazy datasets and the browser answer, or say what is wrong."""
    assert not wrong_of(first, 40, tmp_path / "work", traces)


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 11000, 1000))
def test_many_damaged_traces(first: int, traces: list[Path], tmp_path: Path) -> None:
    """The same of ten thousand."""
    assert not wrong_of(first, 1000, tmp_path / "work", traces)


def raises() -> str:
    """A bug."""
    nothing: dict[str, str] = {}
    return nothing["x"]


def takes_memory() -> str:
    """Far more than the file has."""
    return "" if bytearray(1 << 30) else "nothing"


def complains() -> str:
    """What a reader found."""
    return "a control character"


@pytest.mark.parametrize(("planted", "told"), [(raises, "KeyError"), (takes_memory, "MiB"), (complains, "control")])
def test_the_worker_tells(planted: Callable[[], str], told: str, tmp_path: Path) -> None:
    """A reader that raises what is not ours, takes too much, or shows what it must not, is reported."""

    def look(path: Path, whole: Path, dice: random.Random) -> Iterator[tuple[str, Callable[[], str]]]:
        yield "planted", planted

    found = one_seed(1, tmp_path, GOLDEN[-1], look)
    assert any(told in wrong for wrong in found["wrong"]), found


def test_the_worker_tells_of_a_file_outside(tmp_path: Path) -> None:
    """A reader that writes outside of the trace is reported."""

    def look(path: Path, whole: Path, dice: random.Random) -> Iterator[tuple[str, Callable[[], str]]]:
        yield "planted", lambda: "" if (path.parent / "outside" / "new").write_text("x") else "nothing"

    assert "a file outside has changed" in one_seed(1, tmp_path, GOLDEN[-1], look)["wrong"]


def test_what_is_lost_and_read_as_nothing_is_told() -> None:
    """The undamaged copy reads as what it is: what the seeds compare with is right."""
    from .worker import _same

    assert not _same(GOLDEN[-1], GOLDEN[-1])
    assert _same(GOLDEN[0], GOLDEN[-1])
    assert open_trace(GOLDEN[-1]).n_steps
