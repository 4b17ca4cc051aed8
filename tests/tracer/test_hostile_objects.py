"""Whatever belongs to the user may refuse, lie or never end: the run is what it is without the tracer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_xray.tracer import Tracer

from .hostile import HOSTILE, UntellableError

PATIENCE = 60

pytestmark = pytest.mark.filterwarnings("ignore::diffusion_xray.tracer.TracerWarning")


class Inner(nn.Module):
    """Hands everything on."""

    def forward(self, x: Tensor, *others: Any, **named: Any) -> Any:
        """The tensor beside whatever came with it."""
        return (x * 2, *others, named) if others or named else x * 2


class Outer(nn.Module):
    """Calls another module with an object, and returns it in some place."""

    def __init__(self, place: str, thing: Any) -> None:
        super().__init__()
        self.inner, self.last, self.place, self.held = (
            Inner(),
            nn.Linear(2, 2),
            place,
            [thing],
        )  # torch asks what it is given

    def forward(self, x: Tensor, timestep: float = 0.0, given: Any = None) -> Any:
        """In the output, in a container of it, in what a module is called with, or raised."""
        (thing,) = self.held
        if self.place == "argument":
            x = self.inner(x, thing)[0]
        elif self.place == "keyword":
            x = self.inner(x, thing=thing)[0]
        result = self.last(self.inner(x))
        if self.place == "error":
            raise thing
        return {"output": thing, "tuple": (result, thing), "dict": {"a": result, "b": thing}}.get(self.place, result)


class Pipeline:
    """A pipeline of a user's own, an attribute and the configuration of which are objects."""

    def __init__(self, model: nn.Module, thing: Any) -> None:
        self.components = {"unet": model, "odd": thing}
        self.config = {"odd": thing}
        self.odd = thing


def ends(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What a function returns and raises; one that does not come back fails."""
    found: list[Any] = [None, None]

    def call() -> None:
        try:
            found[0] = function()
        except BaseException as error:  # noqa: BLE001 — returned
            found[1] = error

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "the run does not end"
    return found[0], found[1]


@pytest.mark.parametrize("place", ["output", "tuple", "dict", "argument", "keyword", "given"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_objects_in_calls(kind: str, place: str, tmp_path: Path) -> None:
    """In an output, in a container of one, or given to a module: the same objects come back, other tensors are seen."""
    thing = HOSTILE[kind]()
    model = Outer(place, thing)
    x = torch.ones(1, 2)

    def run() -> Any:
        return [model(x, 3.0 - step, thing if place == "given" else None) for step in range(3)]

    plain, error = ends(run)
    assert error is None

    def traced() -> Any:
        with Tracer({"unet": model}, tmp_path / "run.zarr", capture="all") as tracer:
            found = run()
        return found, tracer.trace

    result, error = ends(traced)
    assert error is None, error
    found, trace = result
    for own, other in zip(plain, found, strict=True):
        assert type(own) is type(other)
        if type(own) is Tensor:
            assert torch.equal(own, other)
        elif type(own) is tuple:
            assert torch.equal(own[0], other[0]) and own[1] is other[1] is thing
        elif place == "output":
            assert own is other is thing
    assert not trace.info.tap_failures
    assert trace.n_steps == 3
    assert trace.site("unet.last").array


@pytest.mark.parametrize("kind", [UntellableError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_error_of_the_run_is_the_one_that_comes_out(kind: type[BaseException], tmp_path: Path) -> None:
    """The very exception that the model raised, also where it cannot be printed."""
    thing = kind()
    model = Outer("error", thing)

    def traced() -> None:
        with Tracer({"unet": model}, tmp_path / "run.zarr"):
            model(torch.ones(1, 2))

    _, error = ends(traced)
    assert error is thing


@pytest.mark.parametrize("kind", HOSTILE)
def test_objects_of_a_mapping_are_refused_or_left_alone(kind: str, tmp_path: Path) -> None:
    """Beside a module in what is traced: an error of ours, or no word, and never the object's own error."""
    from diffusion_xray.tracer.errors import DxrayError

    model, thing = Outer("", None), HOSTILE[kind]()

    def traced() -> None:
        with Tracer({"unet": model, "odd": thing}, tmp_path / "run.zarr"):
            model(torch.ones(1, 2))

    _, error = ends(traced)
    assert error is None or isinstance(error, DxrayError), repr(error)
