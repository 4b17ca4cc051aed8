"""The tensors of an output are found whatever it is, and nothing that it says of itself is believed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_xray.tracer import Tracer
from diffusion_xray.tracer.taps.containers import MOST_TENSORS, placed_tensors, structure_of

ONE, TWO = torch.ones(1), torch.ones(2)


class Plain:
    """An object with attributes."""

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)


class Slotted:
    """An object with slots, one of which is never set."""

    __slots__ = ("never", "sample")

    def __init__(self, sample: Tensor) -> None:
        self.sample = sample


class Both(Slotted):
    """Slots, and a dictionary."""

    def __init__(self, sample: Tensor, more: Tensor) -> None:
        super().__init__(sample)
        self.more = more


class Liar:
    """Raises at every question, or never stops answering."""

    def __init__(self) -> None:
        object.__setattr__(self, "sample", ONE)

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __len__(self) -> int:
        return 10**9

    def __iter__(self) -> Any:
        while True:
            yield TWO

    def __getitem__(self, at: int) -> Tensor:
        return TWO

    @property
    def computed(self) -> Tensor:
        """Never to be asked for."""
        raise RuntimeError("no")


class Lengthless(list[Any]):
    """A list that says it goes on for ever."""

    def __iter__(self) -> Any:
        while True:
            yield TWO


@dataclasses.dataclass
class Data:
    """A dataclass."""

    sample: Tensor
    rest: Any = None


@pytest.mark.parametrize(
    ("value", "places"),
    [
        (ONE, [()]),
        ((ONE, {"a": TWO}), [(0,), (1, "a")]),
        (Data(ONE, [TWO]), [("sample",), ("rest", 0)]),
        (Plain(sample=ONE, more=Plain(hidden=TWO)), [("sample",), ("more", "hidden")]),
        (Slotted(ONE), [("sample",)]),
        (Both(ONE, TWO), [("more",), ("sample",)]),
        (Liar(), [("sample",)]),
        (Lengthless([ONE]), [(0,)]),
        ({1: ONE, (2, 3): TWO}, [(1,), ("(2, 3)",)]),
        (iter([ONE]), []),
        ("text", []),
        (Plain(module=nn.Linear(1, 1), function=print, kind=Plain), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_tensors_are_found_where_they_are(value: Any, places: list[tuple[Any, ...]]) -> None:
    """In containers, dataclasses, attributes and slots; modules, iterators and classes are not looked into."""
    found, complete = placed_tensors(value)
    assert ([place for place, _ in found], complete) == (places, True)


def test_what_holds_itself_ends() -> None:
    """A cycle is followed once around, not for ever."""
    cyclic = Plain(sample=ONE)
    cyclic.me = cyclic  # type: ignore[attr-defined]
    assert [place for place, _ in placed_tensors(cyclic)[0]] == [("sample",)]
    assert structure_of(cyclic)["length"] == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: tuple(torch.ones(1) for _ in range(MOST_TENSORS + 1)),
        lambda: [[[0] * 300] * 300] * 300,
        lambda: {"deep": Plain(rows=[[0] * 4000 for _ in range(4000)])},
    ],
)
def test_very_much_is_not_all_looked_at(make: Callable[[], Any]) -> None:
    """Of an output that holds very much the first tensors are taken, at once, and it is known not to be all."""
    value, start = make(), time.process_time()
    found, complete = placed_tensors(value)
    assert len(found) in (0, MOST_TENSORS + 1)
    assert not complete
    assert time.process_time() - start < 5  # an endless walk, not a slow one


def test_the_whole_walk_is_recorded(tmp_path: Path) -> None:
    """Sites say where in the output their tensors were, and the first of a module how the output is built."""

    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return Plain(sample=x.t(), cache=[x + 1, None], scale=2.0)

    model = Odd()
    with Tracer(model, tmp_path / "run.zarr", capture="all") as tracer:
        for _ in range(2):
            model(torch.ones(2, 3))
    trace = tracer.trace
    assert trace.info.tap_failures == () and trace.info.gaps == ()
    first, second = trace.site("model"), trace.site("model", "output_cache_0")
    assert (first.place, second.place) == (("sample",), ("cache", 0))
    assert (first.strides, second.strides) == ((1, 3), (3, 1))
    assert second.structure is None
    built = first.structure
    assert isinstance(built, dict) and built["class"].endswith("Plain")
    assert built["items"] == [
        ["sample", "tensor"],
        ["cache", {"class": "list", "items": [[0, "tensor"], [1, None]], "length": 2}],
        ["scale", "float"],
    ]


def test_too_many_tensors_are_a_gap(tmp_path: Path) -> None:
    """An output of thousands of tensors has rows for the first, and one gap for all steps."""

    class Many(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return tuple(x + at for at in range(MOST_TENSORS + 5))

    model = Many()
    with Tracer(model, tmp_path / "run.zarr") as tracer:
        for _ in range(2):
            model(ONE)
    trace = tracer.trace
    assert len(trace.modules["model"].sites) == MOST_TENSORS
    (gap,) = trace.info.gaps
    assert (gap["site"], gap["steps"]) == ("model", [[0, 1]])
