"""A port of a model that runs outside of torch: its scheduler is traced, its arrays are recorded by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray

from diffusion_xray.tracer import TargetError, Trace, Tracer
from diffusion_xray.tracer.recording.foreign import as_tensor


def port(latents: NDArray[np.float32], timestep: float) -> NDArray[np.float32]:
    """Stands for a session of another library: arrays in, arrays out."""
    return np.asarray(latents * 0.5 + timestep / 1000, np.float32)


def loop(tracer: Tracer, scheduler: Any, steps: int) -> list[NDArray[np.float32]]:
    """Draw with the port; what it predicted."""
    scheduler.set_timesteps(steps)
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    predicted = []
    for timestep in scheduler.timesteps:
        output = port(latents.numpy(), float(timestep))
        tracer.record("unet.input", latents.numpy())
        tracer.record("unet.output", output)
        predicted.append(output)
        latents = scheduler.step(torch.from_numpy(output), timestep, latents).prev_sample
    tracer.record("picture", latents.numpy())
    return predicted


def series(trace: Trace, name: str) -> list[NDArray[Any]]:
    """What was recorded at each step."""
    site = trace.site(f"records.{name}")
    return [trace.tensor(site, step) for step in range(trace.n_steps)]


def test_a_scheduler_alone(tmp_path: Path) -> None:
    """What is recorded before the scheduler's step is of that step; a second loop goes on where the first ended."""
    scheduler = DDIMScheduler()
    with Tracer({"scheduler": scheduler}, tmp_path / "run.zarr") as tracer:
        predicted = loop(tracer, scheduler, 3) + loop(tracer, scheduler, 2)
    trace = tracer.trace
    assert trace.n_steps == trace.info.planned_steps == 5
    assert np.array_equal(series(trace, "unet.output"), predicted)
    assert np.array_equal(trace.steps["model_output"].values, predicted)
    assert np.array_equal(trace.steps["latents"].values, series(trace, "unet.input"))
    picture = trace.table("records").captured[:, trace.site("records.picture").row]
    assert picture.tolist() == [0, 0, 2, 0, 2]
    assert trace.timestep.tolist() == [667, 334, 1, 501, 1] or np.isfinite(trace.timestep).all()


def test_the_user_may_say_where_a_port_is(tmp_path: Path) -> None:
    """`tracer.step` goes before what the scheduler tells."""
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(2)
    with Tracer({"scheduler": scheduler}, tmp_path / "run.zarr") as tracer:
        for step in range(2):
            tracer.step(step)
            tracer.record("a", np.full(2, float(step)))
            tracer.record_latents(np.zeros((1, 4, 4, 4), np.float32), x0=np.ones((1, 4, 4, 4)))
    assert np.array_equal(series(tracer.trace, "a"), [[0, 0], [1, 1]])
    assert tracer.trace.steps["x0"].shape == (2, 1, 4, 4, 4)


@pytest.mark.parametrize("traced", [{}, {"tokenizer": object()}])
def test_neither_module_nor_scheduler(tmp_path: Path, traced: dict[str, object]) -> None:
    """A mapping that holds neither is refused."""
    with pytest.raises(TargetError, match=r"an nn.Module, or a scheduler"):
        Tracer(traced, tmp_path / "run.zarr")


class Exchanged:
    """An array of another library, by DLPack."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        """Hand it over."""
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        """Where it is."""
        return self._array.__dlpack_device__()


class Converted:
    """An array of another library that numpy is given a copy of, and torch cannot take."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """A copy."""
        return np.array(self._array, dtype)

    def __dlpack__(self, **options: Any) -> Any:
        """Refuse."""
        raise BufferError("on a device that torch does not know")

    def __dlpack_device__(self) -> Any:
        """Some other."""
        return (99, 0)


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """The same, not to be written to."""
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("wrap", [Exchanged, Converted, np.asarray, lambda a: a[::-1], lambda a: frozen(a.copy())])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool", ">f4"])
def test_arrays_of_other_libraries(wrap: Any, dtype: str) -> None:
    """Numbers come over as they are, whatever their layout; nothing is written to what was given."""
    if wrap is Exchanged and dtype == ">f4":
        pytest.skip("DLPack has no other byte order")
    array = np.arange(6).reshape(2, 3).astype(dtype)
    given = wrap(array)
    tensor = as_tensor(given)
    assert tensor is not None
    expected = array[::-1] if isinstance(given, np.ndarray) and given.strides[0] < 0 else array
    assert np.array_equal(tensor.numpy(), expected)


@pytest.mark.parametrize("value", [None, 3, [1.0], "text", np.array(["text"]), np.array([{}]), np.ndarray])
def test_what_is_no_array(value: object) -> None:
    """Anything else is not guessed at."""
    assert as_tensor(value) is None


def test_small_floats_by_name() -> None:
    """A dtype that a package adds to numpy under the name of torch's is read by its bits."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    tensor = as_tensor(np.array([1.0, -2.5], ml_dtypes.bfloat16))
    assert tensor is not None and tensor.dtype == torch.bfloat16 and tensor.tolist() == [1.0, -2.5]
