"""When metadata is written, and which steps wait for it."""

from __future__ import annotations

import threading
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_xray.tracer import Tracer, open_trace
from diffusion_xray.tracer.recording.publication import Publication
from diffusion_xray.tracer.recording.writer import BackgroundWriter, Job
from diffusion_xray.tracer.storage.store import StoreWriter


class Disk(StoreWriter):
    """A store that only counts: publishing takes as long as it is told to, by a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.publishing = 0.0
        self.takes = 0.0
        self.sites = 0
        self.told = 0
        self.committed: list[int] = []

    @property
    def has_untold(self) -> bool:
        """Whether sites came up since it was published."""
        return self.sites > self.told

    def publish(self) -> None:
        """Take some time."""
        self.now += self.takes
        self.publishing += self.takes
        self.told = self.sites


class Thread(BackgroundWriter):
    """The writer's thread, as a job of it sees that."""

    def __init__(self) -> None:
        self.later: tuple[Job, float] | None = None

    def postpone(self, job: Job, seconds: float) -> None:
        """Remember the job."""
        self.later = job, seconds


steps = st.lists(st.tuples(st.integers(0, 3), st.floats(0, 2), st.floats(0, 5)), max_size=40)


@given(steps)
def test_no_step_is_committed_before_its_sites_are_told(run: list[tuple[int, float, float]]) -> None:
    """Steps are committed in order, each after its sites are published, and publishing takes its share at most."""
    disk, thread = Disk(), Thread()
    publication = Publication(thread, clock=lambda: disk.now)

    def commit(step: int, sites: int) -> Job:
        def job(_: StoreWriter) -> None:
            assert disk.told >= sites
            disk.committed.append(step)

        return job

    longest = 0.0
    for step, (new, takes, rest) in enumerate(run):
        disk.sites += new
        disk.takes, longest = takes, max(longest, takes)
        publication.commit(commit(step, disk.sites), disk)
        disk.now += rest
    assert disk.committed == list(range(len(disk.committed)))
    assert disk.publishing <= disk.now / 10 + 2 * longest
    if len(disk.committed) < len(run):
        assert thread.later is not None
        job, seconds = thread.later
        assert seconds > 0
        job(disk)
    assert disk.committed == list(range(len(run)))


def test_a_postponed_job_needs_no_other_job(tmp_path: Path) -> None:
    """What is to be done later is done though nothing else comes, and only the last of several such jobs."""
    writer = BackgroundWriter(lambda: StoreWriter(tmp_path / "trace.zarr", {}))
    done, ran = threading.Event(), []

    def later(name: str) -> Job:
        def job(_: StoreWriter) -> None:
            ran.append(name)
            done.set()

        return job

    def first(_: StoreWriter) -> None:
        writer.postpone(later("dropped"), 60)
        writer.postpone(later("kept"), 0.01)

    writer.submit(first)
    writer.send()
    assert done.wait(60)
    writer.close(lambda _: None)
    assert ran == ["kept"]


def test_a_run_of_many_shapes_is_whole(tmp_path: Path) -> None:
    """Where every step brings a shape of its own all steps are there at the end, each with its tensor."""
    model = torch.nn.Identity()
    with Tracer({"model": model}, tmp_path / "run.zarr") as tracer:
        for step in range(100):
            tracer.step(step)
            model(torch.full((1, step + 1), float(step)))
    trace = open_trace(tmp_path / "run.zarr")
    assert trace.n_steps == 100
    site = trace.site("model")
    for step in (0, 1, 50, 99):
        assert torch.equal(torch.tensor(trace.tensor(site, step)), torch.full((1, step + 1), float(step)))
