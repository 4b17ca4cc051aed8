"""Several tracers at once, and runs in other threads than the tracer's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import StoreError, Trace, Tracer, TracerStateError, open_trace

from ..networks import Denoiser, denoise

STEPS = 4


class Loop:
    """A denoiser and a scheduler of its own, one step at a time."""

    def __init__(self, seed: int) -> None:
        self.parts: dict[str, Any] = {"unet": Denoiser(), "scheduler": DDIMScheduler()}
        self.parts["scheduler"].set_timesteps(STEPS)
        self.latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
        self.given: list[Tensor] = []

    @torch.no_grad()
    def predict(self, step: int) -> Tensor:
        """The first half of a step."""
        self.given.append(self.latents.clone())
        prediction: Tensor = self.parts["unet"](self.latents, self.parts["scheduler"].timesteps[step])[0]
        return prediction

    def advance(self, step: int, prediction: Tensor) -> None:
        """The second half."""
        scheduler = self.parts["scheduler"]
        self.latents = scheduler.step(prediction, scheduler.timesteps[step], self.latents).prev_sample

    def run(self) -> Tensor:
        """All steps."""
        for step in range(STEPS):
            self.advance(step, self.predict(step))
        return self.latents

    def check(self, trace: Trace) -> None:
        """The trace holds this loop, and nothing of any other."""
        assert trace.n_steps == STEPS
        assert trace.info.status == "complete"
        assert not trace.info.gaps
        assert set(trace.components) == {"unet", "latents"}
        assert np.array_equal(trace.steps["latents"], torch.stack(self.given))
        assert np.array_equal(trace.steps["next_latents"][-1], self.latents)
        expected = torch.stack([self.parts["unet"].conv_in(given) for given in self.given]).detach()
        assert np.array_equal(trace["unet.conv_in"]["output"], expected)


def hooks(model: nn.Module) -> int:
    """Hooks registered anywhere in a model."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def in_threads(*functions: Callable[[], object]) -> None:
    """Run functions at the same time and raise the first error of any."""
    errors: list[Exception] = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            function()
        except Exception as error:  # noqa: BLE001 — raised below, in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.fixture(autouse=True)
def _nothing_stays_behind() -> Any:
    """Whatever tracers did, the class of the scheduler is as it was before."""
    before = DDIMScheduler.__dict__["step"]
    yield
    left = DDIMScheduler.__dict__["step"]
    DDIMScheduler.step = before
    assert left is before, "a tracer left its wrapper behind"


# Tracers on different things.


def test_nested_tracers_keep_to_their_own(tmp_path: Path) -> None:
    """Two tracers on two loops that take turns within a step each record theirs and nothing else."""
    one, other = Loop(1), Loop(2)
    first = Tracer(one.parts, tmp_path / "one.zarr", capture="all")
    second = Tracer(other.parts, tmp_path / "other.zarr", capture="all")
    with first, second:
        for step in range(STEPS):
            mine, theirs = one.predict(step), other.predict(step)
            other.advance(step, theirs)
            one.advance(step, mine)
    one.check(first.trace)
    other.check(second.trace)


def test_tracers_in_two_threads_keep_to_their_own(tmp_path: Path) -> None:
    """Two loops traced in two threads in step with each other give the traces they give alone."""
    loops = [Loop(1), Loop(2)]
    barrier = threading.Barrier(2, timeout=60)

    def traced(number: int) -> None:
        loop = loops[number]
        with Tracer(loop.parts, tmp_path / f"{number}.zarr", capture="all"):
            for step in range(STEPS):
                barrier.wait()
                prediction = loop.predict(step)
                barrier.wait()
                loop.advance(step, prediction)
            barrier.wait()

    in_threads(lambda: traced(0), lambda: traced(1))
    for number, loop in enumerate(loops):
        loop.check(open_trace(tmp_path / f"{number}.zarr"))
        assert torch.equal(loop.latents, Loop(number + 1).run())


def test_tracers_may_end_in_any_order(tmp_path: Path) -> None:
    """The tracer that began first may end first: the other goes on, and in the end every method is back in place."""
    one, other = Loop(1), Loop(2)
    first, second = Tracer(one.parts, tmp_path / "one.zarr"), Tracer(other.parts, tmp_path / "other.zarr")
    first.__enter__()
    second.__enter__()
    one.run()
    first.__exit__(None, None, None)
    assert torch.equal(other.run(), Loop(2).run())
    second.__exit__(None, None, None)
    for loop, tracer in ((one, first), (other, second)):
        assert tracer.trace.n_steps == STEPS
        assert np.array_equal(tracer.trace.steps["latents"], torch.stack(loop.given))
        assert hooks(loop.parts["unet"]) == 0


# Two tracers on one thing.


def shared_child() -> tuple[object, object]:
    """Two mappings that share a module deep inside."""
    model = Denoiser()
    return model, {"part": nn.Sequential(model.get_submodule("blocks.1.conv1"))}


def same_module() -> tuple[object, object]:
    """The same module twice."""
    model = Denoiser()
    return model, model


def same_pipeline() -> tuple[object, object]:
    """The same pipeline twice."""
    pipeline = load_pipeline()
    return pipeline, pipeline


@pytest.mark.parametrize("make", [same_module, shared_child, same_pipeline])
def test_a_second_tracer_on_the_same_modules_is_refused(
    tmp_path: Path, make: Callable[[], tuple[object, object]]
) -> None:
    """Modules that are being traced are not traced again: an error says by whom, and leaves everything as it was."""
    traced, again = make()
    with Tracer(traced, tmp_path / "first.zarr") as tracer:
        registered = [hooks(module) for module in tracer._target.components.values()]
        with pytest.raises(TracerStateError, match=r"traced .*first\.zarr"), Tracer(again, tmp_path / "second.zarr"):
            pass
        assert [hooks(module) for module in tracer._target.components.values()] == registered
        tracer.record("something", torch.zeros(1))
    assert not (tmp_path / "second.zarr").exists()
    with Tracer(again, tmp_path / "second.zarr") as second:  # now it may
        second.record("something", torch.zeros(1))
    assert second.trace.info.status == "complete"


def test_the_first_tracer_goes_on_unharmed(tmp_path: Path) -> None:
    """A refusal in mid-run costs the first tracer nothing."""
    alone, model = Denoiser(), Denoiser()
    with Tracer(alone, tmp_path / "alone.zarr", capture="all") as expected:
        denoise(alone)
    with Tracer(model, tmp_path / "first.zarr", capture="all") as tracer, torch.no_grad():
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        for step in range(4):
            with pytest.raises(TracerStateError), Tracer(model, tmp_path / "second.zarr"):
                pass
            latents = latents - 0.1 * model(latents, 1000.0 - 100 * step)[0]
    assert tracer.trace.n_steps == 4
    assert tracer.trace.tree.equals(expected.trace.tree)
    assert hooks(model) == 0


def test_a_refusal_deletes_nothing(tmp_path: Path) -> None:
    """With `overwrite`, too, a tracer is refused before it makes room for its trace."""
    model = Denoiser()
    with Tracer(model, tmp_path / "old.zarr"):
        denoise(model, steps=3)
    with Tracer(model, tmp_path / "first.zarr"):
        for name in ("old.zarr", "first.zarr"):
            with pytest.raises(TracerStateError), Tracer(model, tmp_path / name, overwrite=True):
                pass
        denoise(model, steps=2)
    assert open_trace(tmp_path / "old.zarr").n_steps == 3
    assert open_trace(tmp_path / "first.zarr").n_steps == 2


def test_a_tracer_that_could_not_begin_holds_nothing(tmp_path: Path) -> None:
    """When a tracer fails to begin, or its run raises, the modules are free for the next."""
    model = Denoiser()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError), Tracer(model, tmp_path / "file" / "run.zarr"):
        pass
    with pytest.raises(ZeroDivisionError), Tracer(model, tmp_path / "failed.zarr"):
        _ = 1 / 0
    with Tracer(model, tmp_path / "run.zarr") as tracer:
        denoise(model)
    assert tracer.trace.n_steps == 4


def test_of_two_threads_one_is_refused(tmp_path: Path) -> None:
    """Of tracers that begin at the same moment on one module, one records and the others are refused."""
    model, refused, traces = Denoiser(), [], []
    start, done = threading.Barrier(4, timeout=60), threading.Barrier(4, timeout=60)

    def traced(number: int) -> None:
        tracer = Tracer(model, tmp_path / f"{number}.zarr")
        start.wait()
        try:
            tracer.__enter__()
        except TracerStateError as error:
            refused.append(error)
            done.wait()
        else:
            done.wait()  # by now all others have tried
            denoise(model)
            tracer.__exit__(None, None, None)
            traces.append(tracer.trace)

    in_threads(*[lambda number=number: traced(number) for number in range(4)])
    assert len(refused) == 3
    assert [trace.n_steps for trace in traces] == [4]
    assert hooks(model) == 0


# A run in another thread.


def test_a_pipeline_called_in_another_thread(tmp_path: Path) -> None:
    """A pipeline that runs in a thread the tracer was not made in is recorded as in its own, with the same picture."""
    pipeline = load_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    pictures = []

    def draw() -> None:
        generator = torch.Generator().manual_seed(0)
        text = "a red circle on white"
        pictures.append(pipeline(text, num_inference_steps=3, generator=generator, output_type="np").images)

    draw()
    with Tracer(pipeline, tmp_path / "own.zarr", capture="all") as own:
        draw()
    with Tracer(pipeline, tmp_path / "other.zarr", capture="all") as other:
        in_threads(draw)
    assert np.array_equal(pictures[0], pictures[2])
    assert other.trace.n_steps == 3
    assert other.trace.info.status == "complete"
    assert not other.trace.info.gaps
    assert list(other.trace.modules) == list(own.trace.modules)
    assert other.trace.prompts[0].text == own.trace.prompts[0].text
    images = other.trace.images
    assert images is not None
    assert np.array_equal(images, pictures[0])
    for name in ("latents", "next_latents", "x0", "preview"):
        assert np.array_equal(other.trace.steps[name], own.trace.steps[name]), name
    assert other.trace.statistics("unet").equals(own.trace.statistics("unet"))
