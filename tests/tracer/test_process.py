"""Telling a writer that lives from one that died."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusion_xray.tracer import Tracer, open_trace
from diffusion_xray.tracer.description import describe, describe_in_lines
from diffusion_xray.tracer.process import describe_process, is_gone, lives_elsewhere


def test_this_process_lives() -> None:
    """The process that describes itself is not gone."""
    assert not is_gone(describe_process())


def test_a_dead_process_is_gone() -> None:
    """A process that has ended is gone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pid = child.pid
    assert is_gone(describe_process() | {"pid": pid})


def test_info_says_that_the_writer_died(tmp_path: Path) -> None:
    """A trace whose process was killed is interrupted, for people and for programs."""
    code = """if True:
        import os, torch
        from diffusion_xray.tracer import Tracer
        model = torch.nn.Linear(2, 2)
        tracer = Tracer(model, "run.zarr").__enter__()
        tracer.step(0), model(torch.ones(1, 2)), tracer.step(1), model(torch.ones(1, 2))
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    trace = open_trace(tmp_path / "run.zarr")
    assert trace.info.status == "recording"
    assert describe(trace)["status"] == dict(describe_in_lines(trace))["status"] == "interrupted"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell when a process was started")
def test_a_number_given_again() -> None:
    """A process of the same number that was started at another time is another one."""
    described = describe_process()
    assert is_gone(described | {"started": described["started"] - 1})


@pytest.mark.parametrize(
    "change",
    [{"machine": "elsewhere"}, {"pid": "1; rm"}, {"pid": -1}, {"pid": True}, {"pid": 10**30}, {"pid": None}],
    ids=str,
)
def test_what_cannot_be_known(change: dict[str, object]) -> None:
    """A process of another machine, or a description that is nonsense, is not said to be gone."""
    assert not is_gone(describe_process() | change)
    assert not is_gone({})


def test_who_lives_elsewhere() -> None:
    """Another process that still runs does; this one, a dead one, and what is nonsense do not."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        other = describe_process() | {"pid": child.pid, "started": None}
        assert lives_elsewhere(other)
        assert not lives_elsewhere(other | {"machine": "elsewhere"})
        assert not lives_elsewhere(describe_process())
    assert not lives_elsewhere(other)
    assert not any(lives_elsewhere(other | {"pid": pid}) for pid in ("1", True, -1, 0, None, 1.5))
    assert not lives_elsewhere({})


def test_the_trace_names_its_writer(tmp_path: Path) -> None:
    """The head of a trace describes the process that writes it."""
    model = torch.nn.ReLU()
    with Tracer(model, tmp_path / "run.zarr"):
        model(torch.ones(1))
        assert open_trace(tmp_path / "run.zarr").info.process == describe_process()
