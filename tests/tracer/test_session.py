"""The life of a tracer: what it records, what it leaves alone, how it ends."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from diffusion_xray.tracer import (
    Capture,
    StepError,
    StoreError,
    StoreExistsError,
    TargetError,
    Tracer,
    TracerStateError,
    TracerWarning,
    open_trace,
)
from diffusion_xray.tracer.recording import statistics
from diffusion_xray.tracer.recording.target import Target
from diffusion_xray.tracer.storage.store import StoreWriter
from diffusion_xray.tracer.taps import Emit, Undo

from .networks import Denoiser, denoise


def hooks(model: nn.Module) -> int:
    """Hooks registered anywhere in a model."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def same(a: Tensor, b: Tensor) -> bool:
    """Bit equality, NaN included."""
    return bool(torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32)))


@pytest.mark.parametrize("capture", ["statistics", "blocks", "all", Capture(modules="**", inputs=True)])
def test_the_output_is_bit_identical_and_nothing_stays_behind(tmp_path: Path, capture: Any) -> None:
    """With and without the tracer a model returns the same bits, and all hooks are gone afterwards."""
    model = Denoiser()
    plain = denoise(model)
    with Tracer(model, tmp_path / "run.zarr", capture=capture):
        traced = denoise(model)
    assert same(plain, traced)
    assert hooks(model) == 0


def test_values_are_those_before_an_in_place_operation(tmp_path: Path) -> None:
    """A tensor that is overwritten downstream is recorded as it left its module."""
    model = Denoiser()
    seen: list[Tensor] = []
    layer = model.get_submodule("blocks.0.conv1")
    handle = layer.register_forward_hook(lambda *args: seen.append(args[2].detach().clone()))
    with Tracer(model, tmp_path / "run.zarr", capture="all") as tracer:
        denoise(model)
    handle.remove()
    trace = tracer.trace
    site = trace.site("model.blocks.0.conv1")
    for step, expected in enumerate(seen):
        assert np.array_equal(trace.tensor(site, step), expected.numpy())
        assert trace.table("model").column("min")[step, site.row] == expected.min().item() < 0


def test_every_step_is_kept_with_its_timestep(tmp_path: Path) -> None:
    """A hand-written loop is counted by the calls of its denoiser, and the timestep is read from the call."""
    with Tracer(Denoiser(), tmp_path / "run.zarr") as tracer:
        denoise(tracer._target.components["model"], steps=5)
    assert tracer.trace.timestep.tolist() == [1000.0, 900.0, 800.0, 700.0, 600.0]


def test_a_module_that_fires_twice_is_recorded_twice(tmp_path: Path) -> None:
    """Repeated calls within a step are further calls of the same site, not overwritten values."""
    model = Denoiser()
    with Tracer(model, tmp_path / "run.zarr", capture=Capture(modules="model.blocks.0.activation")) as tracer:
        denoise(model)
    trace = tracer.trace
    sites = trace.modules["model.blocks.0.activation"].sites
    assert [site.array_name for site in sites] == ["output", "output_call1"]
    assert not np.array_equal(trace.tensor(sites[0], 0), trace.tensor(sites[1], 0))


def test_one_tensor_under_two_names_is_stored_once(tmp_path: Path) -> None:
    """A container that returns the very tensor of its last child points to the child's array."""
    model = Denoiser()
    with Tracer(model, tmp_path / "run.zarr", capture="all") as tracer:
        denoise(model)
    trace = tracer.trace
    assert trace.site("model.sequence").array == trace.site("model.sequence.0").array
    assert trace["model.sequence"]["output"].shape == (4, 1, 8, 8, 8)


def test_modules_that_never_fire_are_not_listed(tmp_path: Path) -> None:
    """Only what happened is in the trace."""
    model = Denoiser()
    with Tracer(model, tmp_path / "run.zarr") as tracer:
        denoise(model)
    assert "model.never" not in tracer.trace.modules
    assert next(iter(tracer.trace.modules)) == "model"


def test_nested_outputs_are_read_and_never_rebuilt(tmp_path: Path) -> None:
    """The tensors of tuples and mappings become ports; the model gets its own objects back."""
    model = Denoiser()
    with Tracer(model, tmp_path / "run.zarr") as tracer:
        output = model(torch.zeros(1, 4, 8, 8), 10.0)
    assert isinstance(output, tuple)
    assert isinstance(output[1], dict)
    assert [site.port for site in tracer.trace.modules["model"].sites] == ["output", "output_1_hidden"]


def test_inputs_are_kept_on_request(tmp_path: Path) -> None:
    """`inputs=True` keeps what goes into the matched modules, by position or keyword."""
    model = Denoiser()
    with Tracer(model, tmp_path / "run.zarr", capture=Capture(modules="model", inputs=True)) as tracer:
        denoise(model, steps=2)
    dataset = tracer.trace["model"]
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    assert np.array_equal(dataset["input"][0], start)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type_is_stored_without_loss(tmp_path: Path, dtype: torch.dtype) -> None:
    """Half precisions come back exactly from float32, double precision is kept."""
    layer = nn.Linear(3, 5, dtype=dtype)
    with Tracer(layer, tmp_path / "run.zarr", capture="all") as tracer:
        output = layer(torch.linspace(-2, 2, 6, dtype=dtype).view(2, 3))
    stored = tracer.trace["model"]["output"][0]
    assert torch.equal(torch.tensor(stored.values).to(dtype), output.detach())
    assert stored.attrs["torch_dtype"] == str(dtype).removeprefix("torch.")


def test_other_tensors_pass(tmp_path: Path) -> None:
    """Integers, booleans, scalars, empty and sparse tensors neither fail nor disturb the run."""

    class Odd(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [x.long(), x > 0, x.sum(), x[:0], x.to_sparse(), x.to(torch.complex64)]

    with Tracer(Odd(), tmp_path / "run.zarr", capture=Capture(modules="model")) as tracer:
        tracer._target.components["model"](torch.ones(2, 2))
    trace = tracer.trace
    dtypes = [site.torch_dtype for site in trace.modules["model"].sites]
    assert dtypes == ["int64", "bool", "float32", "float32", "complex64"]
    assert [gap["site"] for gap in trace.info.gaps] == ["model"]


def test_steps_and_dtype_of_the_capture_are_kept_to(tmp_path: Path) -> None:
    """Tensors are stored at the chosen steps in the chosen precision; the other steps read as not captured."""
    model = Denoiser()
    capture = Capture(modules="model.conv_in", steps=range(1, 4), every=2, dtype="float16")
    with Tracer(model, tmp_path / "run.zarr", capture=capture) as tracer:
        denoise(model, steps=5)
    trace = tracer.trace
    table = trace.table("model")
    row = trace.site("model.conv_in").row
    assert table.captured[:, row].tolist() == [1, 2, 1, 2, 1]
    output = trace["model.conv_in"]["output"]
    assert np.isnan(output[0]).all()
    assert np.isfinite(output[1]).all()
    assert output.dtype == np.float64, "decoded so that sums do not overflow"


def test_the_users_own_loop_sets_the_step(tmp_path: Path) -> None:
    """`tracer.step` numbers the steps; a second loop goes on where the first ended."""
    model = Denoiser()
    with Tracer(model, tmp_path / "run.zarr") as tracer:
        for _ in range(2):
            for step in range(3):
                tracer.step(step, timestep=30.0 - step, sigma=0.5)
                model(torch.zeros(1, 4, 8, 8), 5.0)
    trace = tracer.trace
    assert trace.n_steps == 6
    assert trace.timestep.tolist() == [30, 29, 28, 30, 29, 28]
    assert set(trace.sigma.tolist()) == {0.5}


@pytest.mark.parametrize("jump", [3, 1023, 1024, 2500])
def test_steps_that_a_loop_leaves_out_are_one_write(tmp_path: Path, jump: int) -> None:
    """Steps left out read as not captured, those after them are there, and no job is queued for each of them."""
    fills: list[tuple[int, int]] = []

    class Counting(StoreWriter):
        """Counts the ranges that are committed at once."""

        def fill(self, path: str, start: int, stop: int, value: float) -> None:
            """Count, and write."""
            if path == "committed":
                fills.append((start, stop))
            super().fill(path, start, stop, value)

    model = nn.Identity()
    with Tracer(model, tmp_path / "run.zarr", capture="all", store=Counting) as tracer:
        for step in (1, jump, jump + 1):
            tracer.step(step, timestep=float(step))
            model(torch.full((1, 2), float(step)))
    trace = tracer.trace
    assert fills == [(0, 1), (1, 2), *([(2, jump)] if jump > 2 else []), (jump, jump + 1), (jump + 1, jump + 2)]
    assert trace.n_steps == jump + 2
    captured = trace.table("model").captured[:, 0]
    assert np.flatnonzero(captured).tolist() == [1, jump, jump + 1]
    assert trace["model"]["output"].values[[1, jump, jump + 1], 0, 0].tolist() == [1, jump, jump + 1]
    assert np.flatnonzero(~np.isnan(trace.timestep)).tolist() == [1, jump, jump + 1]


@pytest.mark.parametrize("wrong", [-1, 3.7, "x", True, 2**24])
def test_what_is_no_step_is_refused_at_the_call(tmp_path: Path, wrong: Any) -> None:
    """The error comes where the mistake is, and the recording goes on without it."""
    model = nn.Identity()
    with Tracer(model, tmp_path / "run.zarr") as tracer:
        tracer.step(0)
        model(torch.ones(1))
        with pytest.raises(StepError):
            tracer.step(wrong)
        with pytest.raises(StepError):
            tracer.step(1, timestep=wrong if isinstance(wrong, str) else "late")  # type: ignore[arg-type]
        tracer.step(1)
        model(torch.ones(1))
    assert tracer.trace.info.status == "complete"
    assert tracer.trace.n_steps == 2


def test_a_place_that_cannot_be_cleared_is_a_store_error(tmp_path: Path) -> None:
    """Whatever the system says while an older trace is replaced, it is one kind of error."""
    model, path = nn.Identity(), tmp_path / "run.zarr"
    with Tracer(model, path):
        model(torch.ones(1))
    aside = tmp_path / f".run.zarr.{os.getpid()}"
    aside.mkdir()
    (aside / "busy").write_text("")
    with pytest.raises(StoreError, match="cannot replace the trace"):
        Tracer(model, path, overwrite=True).__enter__()
    assert open_trace(path).info.status == "complete"


def test_more_steps_than_planned_find_room(tmp_path: Path) -> None:
    """A loop longer than the room made for it loses nothing."""
    layer = nn.Linear(1, 1)
    with Tracer(layer, tmp_path / "run.zarr", capture="all") as tracer:
        for value in range(150):
            layer(torch.full((1, 1), float(value)))
    output = tracer.trace["model"]["output"]
    assert output.sizes["step"] == 150
    assert np.array_equal(output[:, 0, 0], layer(torch.arange(150.0)[:, None]).detach()[:, 0])


class MuteError(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError


def test_an_error_that_cannot_be_told_still_reaches_the_caller(tmp_path: Path) -> None:
    """An exception whose own message raises is the one that comes out, and the trace has its class."""
    with pytest.raises(MuteError), Tracer(nn.Linear(1, 1), tmp_path / "run.zarr"):
        raise MuteError
    info = open_trace(tmp_path / "run.zarr").info
    assert (info.status, info.error["type"], info.error["message"]) == ("failed", "MuteError", "")


def test_an_error_in_the_run_is_told_and_undone(tmp_path: Path) -> None:
    """The exception reaches the user, hooks are gone, and the trace says what raised where and reads up to there."""

    class Failing(Denoiser):
        def forward(self, sample: Tensor, timestep: Tensor | float) -> Any:
            if float(timestep) == 800.0:
                self.get_submodule("blocks.1.conv2").forward = lambda _: 1 / 0
            return super().forward(sample, timestep)

    model = Failing()
    with pytest.raises(ZeroDivisionError), Tracer(model, tmp_path / "run.zarr") as tracer:
        denoise(model, steps=4)
    trace = tracer.trace
    assert hooks(model) == 0
    assert trace.info.status == "failed"
    assert trace.info.error["type"] == "ZeroDivisionError"
    assert trace.info.error["module"] == "model.blocks.1.conv2"
    assert trace.info.error["step"] == 2
    assert trace.n_steps == 2
    assert trace["model.blocks.0"]["output"].sizes["step"] == 2


def test_ctrl_c_is_an_interruption(tmp_path: Path) -> None:
    """Ctrl-C passes through, and the trace is marked interrupted."""
    model = Denoiser()
    tracer = Tracer(model, tmp_path / "run.zarr")

    def interrupted() -> None:
        with tracer:
            denoise(model, steps=2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert tracer.trace.info.status == "interrupted"
    assert hooks(model) == 0


class BrokenTap:
    """A tap whose hook raises, registered without any care."""

    def attach(self, target: Target, emit: Emit) -> Undo:
        """Hook the first component."""

        def hook(*_: object) -> None:
            raise RuntimeError("tap is broken")

        return next(iter(target.components.values())).register_forward_hook(hook).remove


class UnattachableTap:
    """A tap that cannot be attached."""

    def attach(self, target: Target, emit: Emit) -> Undo:
        """Fail."""
        raise LookupError("nothing to attach to")


class MeddlingTap:
    """A tap that tries to replace a module's output."""

    def attach(self, target: Target, emit: Emit) -> Undo:
        """Hook the first component."""
        component = next(iter(target.components.values()))
        return component.register_forward_hook(lambda *_: torch.zeros(1)).remove


@pytest.mark.parametrize(("tap", "words"), [(BrokenTap(), "tap is broken"), (UnattachableTap(), "nothing to attach")])
def test_a_failing_tap_is_named_and_the_run_goes_on(tmp_path: Path, tap: Any, words: str) -> None:
    """A tap that raises costs its own records only: one warning, an entry in the trace, the same output."""
    model = Denoiser()
    plain = denoise(model)
    with (
        pytest.warns(TracerWarning, match=f"{type(tap).__name__}.*{words}"),
        Tracer(model, tmp_path / "run.zarr", taps=[tap]) as tracer,
    ):
        traced = denoise(model)
    assert same(plain, traced)
    assert tracer.trace.info.tap_failures[0]["tap"] == type(tap).__name__
    assert tracer.trace.info.status == "complete"
    assert tracer.trace.n_steps == 4
    assert hooks(model) == 0


def test_a_tap_cannot_replace_an_output(tmp_path: Path) -> None:
    """What a tap's hook returns is dropped."""
    model = Denoiser()
    with Tracer(model, tmp_path / "run.zarr", taps=[MeddlingTap()]):
        traced = denoise(model)
    assert same(denoise(model), traced)


class FullDisk(StoreWriter):
    """A store on a disk with room for a few chunks."""

    room = 6

    def append(self, *args: Any, **kwargs: Any) -> None:
        """Fail once the room is used up."""
        type(self).room -= 1
        if type(self).room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().append(*args, **kwargs)


def test_a_full_disk_costs_records_not_the_run(tmp_path: Path) -> None:
    """When the store fails the output is unharmed, one warning is shown, and the trace says why it is incomplete."""
    model = Denoiser()
    plain = denoise(model)
    tracer = Tracer(model, tmp_path / "run.zarr", store=FullDisk)
    with pytest.warns(TracerWarning, match="incomplete.*No space left") as caught, tracer:
        traced = denoise(model)
    assert len(caught) == 1
    assert same(plain, traced)
    trace = tracer.trace
    assert trace.info.status == "incomplete"
    assert "No space left" in trace.info.error["message"]
    assert 0 < trace.n_steps < 4
    assert np.isfinite(trace.table("model").column("mean")).all()


def test_a_store_deleted_in_mid_run_costs_records_not_the_run(tmp_path: Path) -> None:
    """Even when the whole trace is taken away the run ends as if nothing had happened."""
    model = Denoiser()
    plain = denoise(model)

    def traced() -> Tensor:
        with Tracer(model, tmp_path / "run.zarr"):
            model(torch.zeros(1, 4, 8, 8), 1000.0)
            shutil.rmtree(tmp_path / "run.zarr", ignore_errors=True)
            return denoise(model)

    with pytest.warns(TracerWarning, match="incomplete"):
        output = traced()
    assert same(plain, output)


def test_a_tracer_is_used_once(tmp_path: Path) -> None:
    """Entering again is an error that says what to do."""
    tracer = Tracer(Denoiser(), tmp_path / "run.zarr")
    with pytest.raises(TracerStateError, match="with statement first"):
        _ = tracer.trace
    with tracer:
        tracer.record("something", torch.zeros(1))
        with pytest.raises(TracerStateError, match="recording; make a new Tracer"):
            tracer.__enter__()
    with pytest.raises(TracerStateError, match="closed; make a new Tracer"):
        tracer.__enter__()
    with pytest.raises(TracerStateError, match="record"):
        tracer.record("late", torch.zeros(1))


def test_an_existing_trace_is_replaced_on_request_only(tmp_path: Path) -> None:
    """A taken path is an error before anything runs, unless `overwrite` is given."""
    path = tmp_path / "run.zarr"
    with Tracer(Denoiser(), path) as tracer:
        denoise(tracer._target.components["model"])
    with pytest.raises(StoreExistsError, match="overwrite=True"):
        Tracer(Denoiser(), path).__enter__()
    with Tracer(Denoiser(), path, overwrite=True) as tracer:
        denoise(tracer._target.components["model"], steps=2)
    assert open_trace(path).n_steps == 2


def test_what_is_not_a_trace_is_never_deleted(tmp_path: Path) -> None:
    """`overwrite` does not touch a folder of something else."""
    path = tmp_path / "thesis.zarr"
    path.mkdir()
    (path / "chapter1.txt").write_text("irreplaceable")
    with pytest.raises(StoreExistsError, match="not a trace"):
        Tracer(Denoiser(), path, overwrite=True).__enter__()
    assert (path / "chapter1.txt").exists()


def test_the_name_must_end_in_zarr(tmp_path: Path) -> None:
    """A path xarray would not recognise is refused with a better one."""
    with pytest.raises(StoreError, match=r"try run\.zarr"):
        Tracer(Denoiser(), tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    """An unwritable place is told before the run."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        Tracer(Denoiser(), tmp_path / "file" / "run.zarr").__enter__()


@pytest.mark.parametrize("wrong", [None, 3, "model", [nn.Linear(1, 1)], {}, {"scheduler": object()}])
def test_a_wrong_target_is_refused(tmp_path: Path, wrong: object) -> None:
    """What cannot be traced is named, before anything is created."""
    with pytest.raises(TargetError, match="cannot trace"):
        Tracer(wrong, tmp_path / "run.zarr")
    assert not (tmp_path / "run.zarr").exists()


@pytest.mark.parametrize("name", ["latents", "a.b", "", "statistics"])
def test_reserved_component_names_are_refused(tmp_path: Path, name: str) -> None:
    """A component cannot take a name the trace uses itself."""
    with pytest.raises(TargetError, match="give it another name"):
        Tracer({name: nn.Linear(1, 1)}, tmp_path / "run.zarr")


def test_a_mapping_of_modules_is_traced_by_name(tmp_path: Path) -> None:
    """Loose modules and their names make the components; the one with a timestep makes the steps."""
    parts = {"encoder": nn.Linear(4, 4), "unet": Denoiser()}
    with Tracer(parts, tmp_path / "run.zarr") as tracer:
        parts["encoder"](torch.zeros(1, 4))
        denoise(parts["unet"], steps=3)
    trace = tracer.trace
    assert trace.components == ("encoder", "unet")
    assert not trace.site("encoder").stepped
    assert trace.n_steps == 3


def test_a_compiled_module_is_seen(tmp_path: Path) -> None:
    """Hooks added to a module compiled before fire nevertheless, and nothing of that stays."""
    model = Denoiser()
    model.compile(backend="eager")
    plain = denoise(model)
    with Tracer(model, tmp_path / "run.zarr") as tracer:
        traced = denoise(model)
    assert same(plain, traced)
    assert "model.conv_in" in tracer.trace.modules


def test_recording_uses_no_random_numbers(tmp_path: Path) -> None:
    """The global random state is the same with and without the tracer."""
    model = Denoiser()
    torch.manual_seed(5)
    with Tracer(model, tmp_path / "run.zarr"):
        denoise(model)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))


def test_a_run_in_another_thread_is_recorded(tmp_path: Path) -> None:
    """The thread that starts the tracer need not be the one that runs the model."""
    model = Denoiser()
    with Tracer(model, tmp_path / "run.zarr") as tracer:
        thread = threading.Thread(target=denoise, args=(model,))
        thread.start()
        thread.join()
    assert tracer.trace.n_steps == 4


def test_no_warning_on_a_good_run(tmp_path: Path) -> None:
    """A run that goes well is silent."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = Denoiser()
        with Tracer(model, tmp_path / "run.zarr"):
            denoise(model)


def test_latents_are_stored_under_their_own_name_whoever_has_them_too(tmp_path: Path) -> None:
    """The tensor a scheduler steps from or was given may be a record's or a module's: it is in `steps` all the same."""
    model, scheduler = Denoiser(), DDIMScheduler()
    scheduler.set_timesteps(3)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    given, outputs = [], []
    parts = {"unet": model, "scheduler": scheduler}
    with torch.no_grad(), Tracer(parts, tmp_path / "run.zarr", capture="all") as tracer:
        tracer.record("start", latents)
        for timestep in scheduler.timesteps:
            given.append(latents.clone())
            noise = model(latents, timestep)[0]
            tracer.record("now", latents)  # after the call that began the step
            outputs.append(noise.clone())
            latents = scheduler.step(noise, timestep, latents).prev_sample
    trace = tracer.trace
    assert not trace.info.gaps
    assert np.array_equal(trace.steps["latents"], torch.stack(given))
    assert np.array_equal(trace.steps["model_output"], torch.stack(outputs))
    assert np.array_equal(trace["records.now"]["output"], torch.stack(given))
    assert np.array_equal(trace["records.start"]["output"], given[0])


def test_a_run_without_numba_is_recorded_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where numba is missing torch computes the statistics: the same counts, and moments to the last digits."""
    tables = []
    for name in ("compiled", "torch"):
        if name == "torch":
            monkeypatch.setattr(statistics, "_kernel", lambda: None)
        model = Denoiser()
        with Tracer(model, tmp_path / f"{name}.zarr", capture="all") as tracer:
            denoise(model)
        tables.append(tracer.trace.table("model").values)
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-12)


def test_a_block_in_which_nothing_ran(tmp_path: Path) -> None:
    """That nothing of what is traced was called is said in one line, once; not where the block raised."""
    warned = pytest.warns(
        TracerWarning, match=r"nothing was recorded in this block, so .*run\.zarr is empty: no tensor came out of unet"
    )
    with warned as told, Tracer({"unet": Denoiser()}, tmp_path / "run.zarr"):
        pass
    assert len(told) == 1 and "\n" not in str(told[0].message)
    with pytest.raises(KeyError), Tracer(Denoiser(), tmp_path / "other.zarr"):
        raise KeyError


@pytest.mark.parametrize("raises", [False, True])
def test_a_run_that_ends_with_values_not_finite(tmp_path: Path, raises: bool) -> None:
    """One warning names the first place; where warnings are errors it does not take the place of the run's own."""
    model = nn.Sequential(nn.Identity(), nn.ReLU())
    told = pytest.raises(ZeroDivisionError) if raises else pytest.warns(TracerWarning, match="model.0:output at step 0")
    with told as caught, Tracer(model, tmp_path / "run.zarr"):
        model(torch.tensor([1.0, torch.nan]))
        model(torch.tensor([1.0, torch.inf]))
        if raises:
            raise ZeroDivisionError
    assert raises or len(caught) == 1  # type: ignore[arg-type]


def test_the_tracer_says_what_it_is(tmp_path: Path) -> None:
    """What it traces, where to, and whether it has begun."""
    tracer = Tracer({"unet": Denoiser()}, tmp_path / "run.zarr")
    assert repr(tracer) == f"<Tracer of unet into {tmp_path / 'run.zarr'}: new>"
    with tracer:
        assert "recording" in repr(tracer)
        tracer.record("x", torch.ones(1))
    assert repr(tracer).endswith(": closed>")
