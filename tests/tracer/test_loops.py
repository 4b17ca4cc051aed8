"""What is a step, what is in the loop, whose scheduler is it: told from what happens, not from names."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from zarr.storage import MemoryStore

from diffusion_xray.tracer import Capture, Trace, Tracer, open_trace
from diffusion_xray.tracer.attention_check import check_attention

from .loops import Blind, Coder, Pipeline, ddim

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")


def traced(pipeline: Pipeline, path: Path, **options: Any) -> Trace:
    """The trace of one call."""
    with Tracer(pipeline, path / "run.zarr", **{"capture": "all", **options}) as tracer:
        pipeline()
    return tracer.trace


def captured(trace: Trace, name: str) -> list[int]:
    """The steps at which a module was seen in the loop."""
    site = trace.site(name)
    return np.flatnonzero(trace.table(site.name.split(".")[0]).captured[:, site.row]).tolist()


def blind_pipeline(loop: Any, **parts: Any) -> Pipeline:
    """A denoiser that nothing gives away, beside others."""
    return Pipeline(loop, unet=Blind(), scheduler=ddim(), **parts)


@pytest.mark.parametrize("store", ["folder", "memory"])
def test_a_denoiser_is_found_by_when_it_is_called(store: str, tmp_path: Path) -> None:
    """All its calls are steps, the first too, with the tensors that it returned; an encoder's stay before the loop."""
    seen: list[Tensor] = []

    def loop(pipe: Any) -> Any:
        pipe.encoder(torch.ones(1, 2))
        return pipe.denoise(lambda x, t: pipe.unet(x, moment=t))

    pipeline = blind_pipeline(loop, encoder=nn.Linear(2, 2))
    pipeline.components["unet"].conv.register_forward_hook(lambda *a: seen.append(a[2].clone()))
    where = tmp_path / "run.zarr" if store == "folder" else MemoryStore()
    with Tracer(pipeline, where, capture="all") as tracer:
        pipeline()
    trace = tracer.trace
    assert trace.info.planned_steps == trace.n_steps == len(seen) == 4
    (site,) = trace.modules["unet.conv"].sites
    assert site.stepped and site.key == "unet.conv:output"
    for step, tensor in enumerate(seen):
        assert np.array_equal(trace.tensor(site, step), tensor)
        assert trace.table("unet").values[step, site.row, 2] == pytest.approx(float(tensor.mean()), rel=1e-5)
        assert trace.histogram(site, step).counts.sum() == tensor.numel()
    assert not trace.site("encoder").stepped
    assert not trace.info.gaps and not trace.info.tap_failures
    plain = trace["unet.conv"]["output"]
    assert plain.dims[0] == "step"


class Attending(nn.Module):
    """A denoiser that attends, without a timestep; its attention is checked against its own result."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.attn = Attention()

    def forward(self, x: Tensor) -> Tensor:
        """Predict the noise from 64 places."""
        seen: Tensor = self.attn(x.flatten(2).mT)
        return seen.mT.view_as(x)


class Attention(nn.Module):
    """One head over places."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        query, key, value = (layer(x)[:, None] for layer in (self.to_q, self.to_k, self.to_v))
        return nn.functional.scaled_dot_product_attention(query, key, value)[:, 0]


def test_attention_of_a_denoiser_found_late_is_in_every_step(tmp_path: Path) -> None:
    """Its maps are those of the run from the first step on, by the result of the kernel."""
    pipeline = Pipeline(lambda pipe: pipe.denoise(lambda x, _: pipe.unet(x)), unet=Attending(), scheduler=ddim())
    trace = traced(pipeline, tmp_path, capture=Capture(attention="**", attention_output=True))
    (call,) = trace.attention_modules["unet.attn"]
    assert call.stepped
    checks = check_attention(trace)
    assert [check.steps for check in checks] == [4]
    assert all(check.passed for check in checks)
    assert trace.attention("unet.attn").sizes["step"] == 4


def test_all_denoisers_of_a_step_are_found(tmp_path: Path) -> None:
    """What is called before the first step and right after it again begins each step, whatever comes between."""

    def loop(pipe: Any) -> Any:
        return pipe.denoise(lambda x, _: pipe.unet(x + pipe.control(x) + pipe.unet(x)))

    trace = traced(blind_pipeline(loop, control=Blind()), tmp_path)
    assert captured(trace, "control.conv") == captured(trace, "unet.conv") == [0, 1, 2, 3]
    assert [site.key for site in trace.modules["unet"].sites] == ["unet:output", "unet:output_call1"]
    assert not trace.info.gaps


def test_a_loop_of_one_step_has_its_denoiser(tmp_path: Path) -> None:
    """Nothing is called again; what was called last before the scheduler stepped is the denoiser."""

    def loop(pipe: Any) -> Any:
        latents = pipe.denoise(lambda x, _: pipe.unet(x), count=1)
        return pipe.vae.decoder(latents)

    trace = traced(blind_pipeline(loop, vae=Coder()), tmp_path)
    assert captured(trace, "unet.conv") == [0]
    assert not trace.site("vae.decoder").stepped


def test_what_was_called_before_the_loop_too_is_a_gap(tmp_path: Path) -> None:
    """Then its first step cannot be told from what was before; it is said, and the other steps are right."""

    def loop(pipe: Any) -> Any:
        pipe.unet(torch.zeros(1, 3, 8, 8))
        return pipe.denoise(lambda x, _: pipe.unet(x))

    trace = traced(blind_pipeline(loop), tmp_path)
    assert [gap["site"] for gap in trace.info.gaps] == ["unet"]
    site = next(site for site in trace.modules["unet.conv"].sites if site.stepped)
    assert trace.table("unet").captured[:, site.row].tolist() == [0, 2, 2, 2]


def test_a_step_that_is_not_kept_is_not_kept_either_when_found_late(tmp_path: Path) -> None:
    """The first step's tensors go where the capture leaves that step out; its statistics stay."""

    def loop(pipe: Any) -> Any:
        return pipe.denoise(lambda x, _: pipe.unet(x))

    trace = traced(blind_pipeline(loop), tmp_path, capture=Capture(modules="**", steps=[2]))
    site = trace.site("unet.conv")
    assert trace.table("unet").captured[:, site.row].tolist() == [1, 1, 2, 1]
    assert np.isfinite(trace.table("unet").values[:, site.row, 2]).all()


def test_an_encoder_in_a_callback_is_no_denoiser(tmp_path: Path) -> None:
    """What is first called after a step belongs to the step, and begins none."""

    def loop(pipe: Any) -> Any:
        def look(_: int, latents: Tensor) -> None:
            pipe.encoder(latents)

        return pipe.denoise(lambda x, _: pipe.unet(x), after=look)

    trace = traced(blind_pipeline(loop, encoder=Coder()), tmp_path)
    assert trace.n_steps == 4
    assert captured(trace, "encoder") == [0, 1, 2]  # that of the last step is not to be told from one after it


@pytest.mark.parametrize("timesteps", [slice(2, None), slice(0, 2), slice(1, 3)], ids=["start", "end", "both"])
def test_planned_steps_are_those_iterated(timesteps: slice, tmp_path: Path) -> None:
    """Wherever a loop begins or breaks off, the decoder is after it, and nothing is missing from a complete run."""

    def loop(pipe: Any) -> Any:
        pipe.vae(torch.ones(1, 3, 8, 8))
        latents = pipe.denoise(pipe.unet, timesteps=timesteps)
        return pipe.vae.decoder(latents)

    trace = traced(blind_pipeline(loop, vae=Coder()), tmp_path)
    assert trace.info.planned_steps == trace.n_steps == 2
    sites = [site for name in ("vae", "vae.decoder", "vae.decoder.0") for site in trace.modules[name].sites]
    assert [site.stepped for site in sites] == [False] * 3
    decoded, hidden = trace.site("vae.decoder"), trace.site("vae.decoder.0")
    silu = nn.functional.silu(torch.from_numpy(trace.tensor(hidden)))
    assert np.allclose(trace.tensor(decoded), silu, atol=1e-6)
    assert trace.table("vae", stepped=False).captured[0].tolist() == [2] * 4


def test_a_decoder_called_in_each_step_is_in_it(tmp_path: Path) -> None:
    """A preview belongs to the step that it shows."""

    def loop(pipe: Any) -> Any:
        def preview(_: int, latents: Tensor) -> None:
            pipe.vae.decoder(latents)

        return pipe.denoise(pipe.unet, after=preview)

    trace = traced(blind_pipeline(loop, vae=Coder()), tmp_path)
    assert captured(trace, "vae.decoder")[:3] == [0, 1, 2]


def test_two_loops_of_one_call_are_both_steps(tmp_path: Path) -> None:
    """A cascade prepares its scheduler twice; what lies between the loops is in neither."""

    def loop(pipe: Any) -> Any:
        pipe.denoise(pipe.unet, timesteps=slice(0, 2))
        pipe.encoder(torch.ones(1, 2))
        return pipe.denoise(pipe.unet, count=3)

    trace = traced(blind_pipeline(loop, encoder=nn.Linear(2, 2)), tmp_path)
    assert trace.n_steps == trace.info.planned_steps == 5
    assert captured(trace, "unet.conv") == [0, 1, 2, 3, 4]
    assert not trace.site("encoder").stepped
    assert not trace.info.latents_changed, "the second loop has latents of its own"


def test_a_run_that_failed_says_what_is_missing(tmp_path: Path) -> None:
    """Only a run that ended well had no more steps to do."""

    def loop(pipe: Any) -> Any:
        def stop(index: int, _: Tensor) -> None:
            if index == 1:
                raise RuntimeError("enough")

        return pipe.denoise(pipe.unet, after=stop)

    with Tracer(blind_pipeline(loop), tmp_path / "run.zarr") as tracer:
        pipeline: Any = tracer._target.pipeline
        with pytest.raises(RuntimeError):
            pipeline()
    assert (tracer.trace.n_steps, tracer.trace.info.planned_steps) == (2, 4)


def test_a_second_scheduler_of_the_call_is_recorded(tmp_path: Path) -> None:
    """A copy that steps latents of its own beside the first is a further call of the same step."""

    def loop(pipe: Any) -> Any:
        other = copy.deepcopy(pipe.scheduler)
        other.set_timesteps(4)
        return pipe.denoise(pipe.unet, schedulers=[other])

    trace = traced(blind_pipeline(loop), tmp_path)
    assert trace.n_steps == 4
    steps = trace.steps
    assert np.array_equal(steps["latents_call1"][0], 2 * steps["latents"][0])
    assert np.array_equal(steps["latents_call1"][1:], steps["next_latents_call1"][:-1])
    assert list(trace.info.schedulers) == ["scheduler"]
    assert not trace.info.latents_changed


@pytest.mark.parametrize("place", ["here", "thread", "traced"])
def test_the_scheduler_of_a_pipeline_run_in_a_callback_is_not_ours(place: str, tmp_path: Path) -> None:
    """It is prepared after our loop has begun, and steps without our denoiser; in a thread, or traced, even less."""
    other = Pipeline(lambda pipe: pipe.denoise(lambda x, _: pipe.unet(x)), unet=Blind(), scheduler=ddim())
    other.components["scheduler"].set_timesteps(4)

    def run_other(index: int, _: Tensor) -> None:
        if place == "thread":
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        elif place == "traced":
            with Tracer(other, tmp_path / f"{index}.zarr"):
                other()
        else:
            other()

    def loop(pipe: Any) -> Any:
        return pipe.denoise(pipe.unet, after=run_other)

    trace = traced(blind_pipeline(loop), tmp_path)
    assert trace.n_steps == 4
    assert "latents_call1" not in trace.steps
    assert list(trace.info.schedulers) == ["scheduler"]


def test_a_scheduler_derived_from_another_steps_once(tmp_path: Path) -> None:
    """Its step calls that of the class it comes from, which is the same step."""

    class Derived(DDIMScheduler):  # type: ignore[misc]
        def step(self, *args: Any, **kwargs: Any) -> Any:
            """Leave it to DDIM."""
            return super().step(*args, **kwargs)

    pipeline = Pipeline(lambda pipe: pipe.denoise(pipe.unet), unet=Blind(), scheduler=Derived(clip_sample=False))
    trace = traced(pipeline, tmp_path)
    assert trace.n_steps == 4
    assert "latents_call1" not in trace.steps


def test_the_scheduler_that_steps_is_the_one_described(tmp_path: Path) -> None:
    """One that was put in place within the block is known by its settings, and the one that did nothing too."""

    def loop(pipe: Any) -> Any:
        return pipe.denoise(pipe.unet)

    pipeline: Any = blind_pipeline(loop)
    with Tracer(pipeline, tmp_path / "run.zarr") as tracer:
        pipeline.scheduler = ddim(prediction_type="sample")
        pipeline()
    known = open_trace(tracer.path).info.schedulers
    assert {name: known[name].config["prediction_type"] for name in known} == {
        "scheduler": "epsilon",
        "further scheduler": "sample",
    }
