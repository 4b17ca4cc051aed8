"""A process that is killed: whatever the moment, its trace opens and holds complete steps and nothing else."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
import zarr
from numpy.typing import NDArray

from diffusion_xray.tracer import SiteNotFoundError, TraceFormatError, TraceNotFoundError, Tracer, open_trace
from diffusion_xray.tracer.info import SiteInfo
from diffusion_xray.tracer.layout import HAS_TENSOR, MEASURED, NOT_CAPTURED
from diffusion_xray.tracer.storage.store import StoreWriter

from .. import victims
from ..exact import assert_rows, assert_same, row_of, widened
from ..victims import STEPS, Reference, make_parts, make_reference, sample_with

Run = Callable[[Path, float | None], tuple[int, float]]
"""Runs a victim, kills it after so many seconds (never when None), returns its exit code and how long it took."""


@pytest.fixture(scope="module")
def run_victim() -> Iterator[Run]:
    """A process from which victims are forked."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command, pipe = [sys.executable, victims.__file__], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env={**os.environ, **threads}) as zygote:
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        orders, answers = zygote.stdin, zygote.stdout

        def run(path: Path, delay: float | None) -> tuple[int, float]:
            orders.write(json.dumps([str(path), delay]) + "\n")
            orders.flush()
            code, seconds = json.loads(answers.readline())
            return code, seconds

        yield run
        orders.close()  # which ends it


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place for traces, in memory where there is one: each has two hundred files, and there are many."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@functools.cache
def reference() -> Reference:
    """What every victim computes."""
    return make_reference()


@dataclass(frozen=True)
class Expected:
    """What must be read of one site, along all steps of a victim."""

    fired: NDArray[np.bool_]
    rows: NDArray[np.float64]
    values: NDArray[Any]


@functools.cache
def inside() -> dict[tuple[str, str, int], Expected]:
    """By name, port and call: what was computed in the loop, and the fill values where nothing was."""
    expected = {}
    for key, tensors in reference().inside.items():
        some = widened(next(iter(tensors.values())))
        values = np.full((STEPS, *some.shape), np.nan if some.dtype.kind == "f" else 0, some.dtype)
        rows = np.full((STEPS, len(MEASURED)), np.nan)
        for step, tensor in tensors.items():
            rows[step], values[step] = row_of(tensor), widened(tensor)
        expected[key] = Expected(np.isin(np.arange(STEPS), list(tensors)), rows, values)
    return expected


class Look:
    """All that readers can see of a trace, compared with the reference: our own reader, zarr-python and xarray."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trace = open_trace(path)
        self.steps = self.trace.n_steps
        self.tables = {(table.component, table.stepped): table for table in self.trace.tables()}
        self.root = zarr.open_group(path, mode="r")

    def check(self) -> None:
        """Compare every complete step; nothing is shown of those that are not."""
        trace, steps = self.trace, self.steps
        assert trace.timestep.tolist() == [float(STEPS - step) for step in range(steps)]
        with xarray.open_datatree(self.path, engine="zarr", chunks=None) as tree:
            if not steps:
                return
            assert tree.ds["committed"].values[:steps].all()
            latents = tree["latents"].ds["latents"][steps - 1].values
            assert_same(latents, inside()["latents", "latents", 0].values[steps - 1])
        for key, expected in inside().items():
            if expected.fired[:steps].any():
                self.check_site(trace.site(*key), expected)
        encoder, before = trace.site("encoder"), reference().outside["encoder"]
        assert_rows(self.tables["encoder", False].values[0, encoder.row], row_of(before))
        assert_same(trace.tensor(encoder), widened(before))
        assert trace["unet"].sizes["step"] == trace.steps.sizes["step"] == steps
        for step in (steps, STEPS):
            with pytest.raises(SiteNotFoundError, match="complete steps"):
                trace.tensor(trace.site("latents", "latents"), step)
        with xarray.open_zarr(self.path, group="latents", chunks=None) as group:
            assert_same(group["latents"][steps - 1].values, latents)

    def check_site(self, site: SiteInfo, expected: Expected) -> None:
        """Compare the rows, the tensors and the last histogram of one site."""
        table, steps = self.tables[site.name.split(".")[0], True], self.steps
        fired = expected.fired[:steps]
        assert table.captured[:, site.row].tolist() == np.where(fired, HAS_TENSOR, NOT_CAPTURED).tolist(), site.key
        assert_rows(table.values[:, site.row], expected.rows[:steps], site.key)
        stored = self.root[site.array]
        assert isinstance(stored, zarr.Array)
        values = np.asarray(stored[:steps])
        assert_same(values, expected.values[:steps], site.key)
        last = int(np.flatnonzero(fired)[-1])
        assert self.trace.histogram(site, last).counts.sum() == values[last].size, site.key


def complete_steps(path: Path) -> int | None:
    """The number of steps of a trace, after a thorough look; None where the process did not live to begin one."""
    try:
        look = Look(path)
    except (TraceNotFoundError, TraceFormatError):
        assert not (path / "zarr.json").exists(), "there is a trace, but it does not open"
        return None
    look.check()
    return look.steps


def kill_often(run_victim: Run, folder: Path, kills: int, *, seed: int = 0) -> None:
    """Kill victims at moments spread over a whole run and a little beyond, and look at what each leaves."""
    code, needed = run_victim(folder / "whole.zarr", None)
    assert code == 0
    assert complete_steps(folder / "whole.zarr") == STEPS
    assert open_trace(folder / "whole.zarr").info.status == "complete"
    chance, left = random.Random(seed), []
    for kill in range(kills):
        path = folder / f"{kill}.zarr"
        code, _ = run_victim(path, (kill + chance.random()) / kills * needed * 1.05)
        assert code in (0, -signal.SIGKILL), "the victim died of something else"
        left.append(complete_steps(path))
        if code == 0:
            assert open_trace(path).info.status == "complete"
        shutil.rmtree(path, ignore_errors=True)
    assert any(steps is not None and 0 < steps < STEPS for steps in left), f"no kill was in the middle: {left}"


def test_a_killed_process_leaves_its_complete_steps(run_victim: Run, folder: Path) -> None:
    """After SIGKILL at any moment the trace opens in every reader; its steps are a prefix, and right to the bit."""
    kill_often(run_victim, folder, 50)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_process_killed_at_other_moments_leaves_its_complete_steps(run_victim: Run, folder: Path, seed: int) -> None:
    """The same 200 times more."""
    kill_often(run_victim, folder, 50, seed=seed)


def test_a_trace_is_right_after_every_publication_and_every_element(folder: Path) -> None:
    """Looked at between the writer's operations, a running trace shows complete steps only, with all their sites."""
    seen: list[int] = []
    wrong: list[Exception] = []

    class Watched(StoreWriter):
        """A store that is read after each operation."""

        def look(self) -> None:
            """Look, unless something was wrong already."""
            if not wrong and (self.path / "zarr.json").exists():
                try:
                    look = Look(self.path)
                    if not seen or look.steps != seen[-1]:
                        look.check()
                    seen.append(look.steps)
                except Exception as error:  # noqa: BLE001 — raised by the test, not into the writer
                    wrong.append(error)

        def publish(self) -> None:
            """Publish, and look."""
            super().publish()
            self.look()

        def poke(self, *args: Any) -> None:
            """Set an element, and look."""
            super().poke(*args)
            self.look()

    parts = make_parts()
    with torch.no_grad(), Tracer(parts, folder / "run.zarr", capture="all", store=Watched):
        sample_with(parts)
    if wrong:
        raise wrong[0]
    assert seen == sorted(seen)
    assert set(seen) == set(range(STEPS + 1))
