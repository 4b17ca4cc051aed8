"""A disk that is full, slow, read-only or gone: the run never notices, and the trace says what it lacks."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion_xray.tracer import Capture, CaptureError, TargetError, Trace, Tracer, TracerWarning, open_trace
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.layout import HAS_STATISTICS, HAS_TENSOR, STATISTICS_GROUP
from diffusion_xray.tracer.storage.store import StoreWriter

from ..exact import assert_rows, assert_same, row_of, widened
from ..networks import Denoiser, denoise

STEPS = 4


def expected_outputs(model: nn.Module, *, steps: int = STEPS) -> tuple[Tensor, dict[str, list[Tensor]]]:
    """What a run without a tracer returns, and what the first convolution and the model return in each step."""
    seen: dict[str, list[Tensor]] = {"model.conv_in": [], "model": []}
    conv_in = model.get_submodule("conv_in")
    handles = [
        conv_in.register_forward_hook(lambda *args: seen["model.conv_in"].append(args[2].clone())),
        model.register_forward_hook(lambda *args: seen["model"].append(args[2][0].clone())),
    ]
    result = denoise(model, steps=steps)
    for handle in handles:
        handle.remove()
    return result, seen


def check_committed(trace: Trace, seen: dict[str, list[Tensor]]) -> None:
    """Every complete step is right to the bit."""
    if not trace.n_steps:
        return
    table = trace.table("model")
    for name, tensors in seen.items():
        site = trace.site(name)
        for step, tensor in enumerate(tensors[: trace.n_steps]):
            assert table.captured[step, site.row] == HAS_TENSOR
            assert_rows(table.values[step, site.row], row_of(tensor), f"{name} {step}")
            assert_same(trace.tensor(site, step), widened(tensor), f"{name} {step}")


def one_warning(caught: list[warnings.WarningMessage]) -> str:
    """The text of the only warning."""
    assert [warning.category for warning in caught] == [TracerWarning]
    return str(caught[0].message)


# A full disk.


class Disk(StoreWriter):
    """A store whose writes fail from the n-th on, until the reserve is given back; writes in making it do not count.

    Metadata is counted apart, as how often it is published depends on how long that took before.
    """

    room = 0
    room_for_metadata = 10_000
    error = OSError(errno.ENOSPC, "No space left on device")
    counting = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.counting = True

    def _spend(self) -> None:
        if self.counting:
            type(self).room -= 1
            if self.room < 0:
                raise self.error

    def publish(self) -> None:
        """Write metadata."""
        if self.counting:
            type(self).room_for_metadata -= 1
            if self.room_for_metadata < 0 or self.room < 0:
                raise self.error
        super().publish()

    def append(self, *args: Any) -> None:
        """Write a step."""
        self._spend()
        super().append(*args)

    def write(self, *args: Any) -> None:
        """Write a chunk."""
        self._spend()
        super().write(*args)

    def poke(self, *args: Any) -> None:
        """Write an element."""
        self._spend()
        super().poke(*args)

    def release_reserve(self) -> None:
        """Make room for the last words."""
        super().release_reserve()
        self.counting = False


def disk_with_room_for(writes: int) -> type[Disk]:
    """A disk that fills up; `room` counts down."""
    return type("FullDisk", (Disk,), {"room": writes})


@functools.cache
def writes_of_a_run() -> int:
    """How often a run writes before its last words."""
    disk, model = disk_with_room_for(10_000), Denoiser()
    with tempfile.TemporaryDirectory() as folder, Tracer(model, f"{folder}/run.zarr", capture="all", store=disk):
        denoise(model, steps=STEPS)
    return 10_000 - disk.room


@pytest.mark.parametrize("room", [0, 1, 4, 9, 19, 29, 39, 59, -5, -2, -1, "no metadata"])
def test_wherever_the_disk_is_full_the_run_is_unharmed(tmp_path: Path, room: int | str) -> None:
    """Whichever write fails first, the output is the same, one warning is shown, and complete steps are right."""
    model = Denoiser()
    plain, seen = expected_outputs(model)
    if isinstance(room, str):
        disk = type("FullDisk", (Disk,), {"room": 10_000, "room_for_metadata": 0})
    else:
        disk = disk_with_room_for(room if room >= 0 else writes_of_a_run() + room)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Tracer(model, tmp_path / "run.zarr", capture="all", store=disk) as tracer:
            traced = denoise(model, steps=STEPS)
    assert torch.equal(plain, traced)
    trace = tracer.trace
    assert "No space left on device" in one_warning(caught)
    assert trace.info.status == "incomplete"
    assert "No space left on device" in trace.info.error["message"]
    check_committed(trace, seen)
    with trace.tree as tree:
        assert tree.attrs["status"] == "incomplete"


def test_a_disk_that_fails_at_the_very_end(tmp_path: Path) -> None:
    """When the last words themselves fail once, the trace is nevertheless marked, and nothing but a warning shows."""

    class LateFailure(StoreWriter):
        """Fails at the first publication after the reserve was given back, and never again."""

        state = "before"

        def release_reserve(self) -> None:
            """The end has come."""
            super().release_reserve()
            self.state = "failing"

        def publish(self) -> None:
            """Write metadata."""
            if self.state == "failing":
                self.state = "over"
                raise OSError(errno.ENOSPC, "No space left on device")
            super().publish()

    model = Denoiser()
    plain, seen = expected_outputs(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Tracer(model, tmp_path / "run.zarr", capture="all", store=LateFailure) as tracer:
            traced = denoise(model, steps=STEPS)
    assert torch.equal(plain, traced)
    assert "No space left on device" in one_warning(caught)
    assert tracer.trace.info.status == "incomplete"
    assert tracer.trace.n_steps == STEPS
    check_committed(tracer.trace, seen)


def test_an_error_of_the_run_outweighs_one_of_the_disk(tmp_path: Path) -> None:
    """When both fail the run's exception reaches the user and is in the trace, and the disk's is a warning."""
    model = Denoiser()
    tracer = Tracer(model, tmp_path / "run.zarr", store=disk_with_room_for(20))

    def failing() -> None:
        with tracer:
            denoise(model, steps=STEPS)
            _ = 1 / 0

    with pytest.warns(TracerWarning, match="No space left"), pytest.raises(ZeroDivisionError):
        failing()
    assert tracer.trace.info.status == "incomplete"
    assert tracer.trace.info.error["type"] == "ZeroDivisionError"


def disk_of(folder: Path, options: str) -> Iterator[Path]:
    """A disk of its own in a folder, until it is not needed any more."""
    folder.mkdir()
    mount = shutil.which("mount")
    arguments = ["-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if mount is None or subprocess.run([mount, *arguments], check=False, capture_output=True).returncode:
        pytest.skip("may not mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(params=[700, 1000, 1600])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk of so many KiB."""
    yield from disk_of(tmp_path / "disk", f"size={request.param}k")


@pytest.fixture(params=["size=3m", "size=7m", "size=50m,nr_inodes=120", "size=50m,nr_inodes=300"])
def disk_for_many(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk that has not enough room, or not enough names, for a wide network."""
    yield from disk_of(tmp_path / "disk", request.param)


class Wide(nn.Module):
    """As many layers, of names so long, as make the head of a trace larger than 256 KiB."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({f"{number:0180}": nn.Linear(32, 32) for number in range(120)})

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, 32)."""
        return torch.cat([layer(x) for layer in self.layers.values()])


def test_the_last_words_always_fit(disk_for_many: Path) -> None:
    """However full the disk, and however large the head: status, error, a gap from the step on, and one warning."""
    model, given = Wide(), torch.rand(12, 64, 32)
    plain = [model(one) for one in given]
    path = disk_for_many / "run.zarr"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Tracer(model, path, capture="all") as tracer:
            for step in range(12):
                tracer.step(step)
                assert torch.equal(model(given[step]), plain[step])
    assert "No space left on device" in one_warning(caught)
    check_last_words(open_trace(path), "No space left on device", steps=12)


def check_last_words(trace: Trace, reason: str, *, steps: int) -> None:
    """The trace says that it is incomplete, why, and from which step on."""
    assert trace.info.status == "incomplete"
    assert reason in trace.info.error["message"]
    *_, gap = trace.info.gaps
    assert reason in gap["reason"]
    assert trace.n_steps < steps
    assert gap["steps"][0][0] == trace.n_steps
    if trace.n_steps:
        assert np.isfinite(trace.statistics("model").sel(statistic="mean")).all()


def test_the_last_words_fit_where_files_must_not_grow(tmp_path: Path) -> None:
    """A limit on the size of files is told like a full disk; nothing of it needs a right to mount."""
    code = """
        import resource, sys, warnings, torch
        from diffusion_xray.tracer import Tracer
        from diffusion_xray.tracer.storage.store import bulk_calls
        from diffusion_xray.tracer.recording.statistics import warm_up
        warm_up(); bulk_calls()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        model, given = torch.nn.Linear(64, 64), torch.rand(12, 128, 64)
        with warnings.catch_warnings(record=True) as caught, torch.no_grad():
            warnings.simplefilter("always")
            with Tracer(model, sys.argv[1], capture="all") as tracer:
                for step in range(12):
                    tracer.step(step)
                    model(given[step])
        print(len(caught), caught[0].message)
        """
    pytest.importorskip("resource")
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "run.zarr")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert done.stdout.startswith("1 ") and "File too large" in done.stdout
    check_last_words(open_trace(tmp_path / "run.zarr"), "File too large", steps=12)


def test_gaps_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    """Where not even the list of gaps has room, the reason of the end and the number of the others are told."""

    class Tight(Disk):
        """Has room for a short head only, once it is full."""

        room = 20

        def write_last_words(self, attributes: Mapping[str, Any]) -> None:
            """Short ones only."""
            if len(attributes["gaps"]) > 2:
                raise self.error
            super().write_last_words(attributes)

    model = Denoiser()
    warned = pytest.warns(TracerWarning, match="No space left")
    with warned, Tracer(model, tmp_path / "run.zarr", store=Tight) as tracer:
        for number in range(60):
            with pytest.raises(TargetError):
                tracer.record(f"odd{number}", torch.ones(1).to_sparse())
        denoise(model, steps=STEPS)
    gaps = tracer.trace.info.gaps
    assert "No space left on device" in gaps[0]["reason"]
    assert [gap["reason"] for gap in gaps[1:]] == ["60 more"]


def test_a_really_full_disk(small_disk: Path) -> None:
    """On a disk that is too small the output is the same, one warning is shown, and the trace opens and says why."""
    model = Denoiser()
    plain, seen = expected_outputs(model, steps=60)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Tracer(model, small_disk / "run.zarr", capture="all") as tracer:
            traced = denoise(model, steps=60)
    assert torch.equal(plain, traced)
    assert "No space left on device" in one_warning(caught)
    trace = tracer.trace
    assert trace.info.status == "incomplete"
    assert "No space left on device" in trace.info.error["message"]
    assert trace.n_steps < 60
    check_committed(trace, seen)


# Permission lost.


def test_permission_lost_in_mid_run(tmp_path: Path) -> None:
    """When nothing may be written any more, not even the reason, what was complete stays readable."""

    class Locked(Disk):
        """A store that may no longer be written."""

        room = 60
        error = PermissionError(errno.EACCES, "Permission denied")

        def release_reserve(self) -> None:
            """Not allowed either."""
            raise self.error

        def write_last_words(self, _: Mapping[str, Any]) -> None:
            """Nor is this."""
            raise self.error

    model = Denoiser()
    plain, seen = expected_outputs(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Tracer(model, tmp_path / "run.zarr", capture="all", store=Locked) as tracer:
            traced = denoise(model, steps=STEPS)
    assert torch.equal(plain, traced)
    assert "Permission denied" in one_warning(caught)
    assert tracer.trace.info.status == "recording"
    assert 0 < tracer.trace.n_steps < STEPS
    check_committed(tracer.trace, seen)


def test_a_folder_made_read_only_in_mid_run(tmp_path: Path) -> None:
    """Without the right to write into the trace's folders the run ends as if nothing had happened."""
    if not os.geteuid():
        pytest.skip("root may write everywhere")
    model, path = Denoiser(), tmp_path / "run.zarr"
    plain, seen = expected_outputs(model)

    def permit(mode: int) -> None:
        for file in [*path.rglob("*"), path]:
            if file.is_dir():
                file.chmod(mode)

    forbidden = model.register_forward_hook(lambda *_: permit(0o500))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Tracer(model, path, capture="all") as tracer:
            traced = denoise(model, steps=STEPS)
    forbidden.remove()
    permit(0o700)
    assert torch.equal(plain, traced)
    assert "Permission denied" in one_warning(caught)
    check_committed(tracer.trace, seen)


@pytest.mark.parametrize("part", ["", "committed", "statistics/model", "model/conv_in"])
def test_whatever_is_deleted_in_mid_run_the_run_is_unharmed(tmp_path: Path, part: str) -> None:
    """The whole trace or a part of it taken away costs one warning; what is left is not taken for a good trace."""

    class Stolen(StoreWriter):
        """A store a part of which is deleted after the first step."""

        def poke(self, path: str, position: int, value: float) -> None:
            """Commit, and lose a part."""
            super().poke(path, position, value)
            if (path, position) == ("committed", 0):
                shutil.rmtree(self.path / part)

    model = Denoiser()
    plain, _ = expected_outputs(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Tracer(model, tmp_path / "run.zarr", capture="all", store=Stolen):
            traced = denoise(model, steps=STEPS)
    assert torch.equal(plain, traced)
    assert "incomplete" in one_warning(caught)
    assert (tmp_path / "run.zarr").exists() is bool(part)
    if part:
        assert open_trace(tmp_path / "run.zarr").info.status == "incomplete"


# A slow disk.


class SlowDisk(StoreWriter):
    """A store that takes its time over tensors."""

    def append(self, path: str, *args: Any) -> None:
        """Write a step, slowly."""
        if not path.startswith(STATISTICS_GROUP):
            time.sleep(0.02)
        super().append(path, *args)


KEPT = Capture(modules=["model", "model.conv_in"])


def slowly(model: nn.Module, path: Path, **options: Any) -> tuple[Tensor, Trace]:
    """Trace onto a slow disk, with room for next to nothing in memory."""
    with Tracer(model, path, capture=KEPT, store=SlowDisk, budget=1, **options) as tracer:
        result = denoise(model, steps=STEPS)
    return result, tracer.trace


@pytest.mark.parametrize("options", [{}, {"on_pressure": "wait"}], ids=["default", "wait"])
def test_a_slow_disk_is_waited_for(tmp_path: Path, options: dict[str, Any]) -> None:
    """The default: the run waits while its budget is spent, and nothing is lost."""
    model = Denoiser()
    plain, seen = expected_outputs(model)
    traced, trace = slowly(model, tmp_path / "run.zarr", **options)
    assert torch.equal(plain, traced)
    assert trace.info.status == "complete"
    assert not trace.info.gaps
    assert trace.n_steps == STEPS
    check_committed(trace, seen)


def test_a_slow_disk_is_not_waited_for_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With "degrade" tensors are shed under pressure; their statistics, and a gap that says why, are there."""
    model = Denoiser()
    plain, seen = expected_outputs(model)
    traced, trace = slowly(model, tmp_path / "run.zarr", on_pressure="degrade")
    assert torch.equal(plain, traced)
    assert trace.info.status == "complete"
    assert trace.n_steps == STEPS
    table, shed = trace.table("model"), [0] * STEPS
    for name, tensors in seen.items():
        site = trace.site(name)
        for step, tensor in enumerate(tensors):
            assert_rows(table.values[step, site.row], row_of(tensor), f"{name} {step}")
            assert trace.histogram(site, step).counts.sum() == tensor.numel()
            if table.captured[step, site.row] == HAS_TENSOR:
                assert_same(trace.tensor(site, step), widened(tensor))
                continue
            shed[step] += 1
            assert table.captured[step, site.row] == HAS_STATISTICS
            assert not site.array or np.isnan(trace.tensor(site, step)).all()
    assert sum(shed)
    (gap,) = trace.info.gaps
    missing = [step for first, last in gap["steps"] for step in range(first, last + 1)]
    assert missing == [step for step, count in enumerate(shed) if count]
    assert gap["count"] == sum(shed)
    main(["info", str(tmp_path / "run.zarr")])
    assert gap["reason"] in capsys.readouterr().out


def test_without_pressure_nothing_is_shed(tmp_path: Path) -> None:
    """With "degrade" and room in memory everything is kept."""
    model = Denoiser()
    plain, seen = expected_outputs(model)
    with Tracer(model, tmp_path / "run.zarr", capture="all", on_pressure="degrade") as tracer:
        traced = denoise(model, steps=STEPS)
    assert torch.equal(plain, traced)
    assert not tracer.trace.info.gaps
    check_committed(tracer.trace, seen)


@pytest.mark.parametrize("wrong", ["", "drop", "Wait", None, 1])
def test_an_unknown_policy_is_refused(tmp_path: Path, wrong: Any) -> None:
    """A policy that does not exist is an error that lists those that do, before anything is created."""
    with pytest.raises(CaptureError, match=r"on_pressure.*wait.*degrade"):
        Tracer(Denoiser(), tmp_path / "run.zarr", on_pressure=wrong)
    assert not (tmp_path / "run.zarr").exists()
