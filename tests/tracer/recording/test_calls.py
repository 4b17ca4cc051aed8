from __future__ import annotations

import copy
import functools
import pickle
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_xray.tracer.recording.calls import innermost_call, meet_strangers, stand_for, watch

_ORIGINAL = vars(nn.Module)["__call__"]


@pytest.fixture(autouse=True)
def undone() -> Any:
    """Whatever a test does, torch is as before."""
    yield
    assert vars(nn.Module)["__call__"] is _ORIGINAL


class Log:
    """Notes what is told of a module."""

    def __init__(self, module: nn.Module, name: str = "", events: list[Any] | None = None) -> None:
        self.events: list[Any] = [] if events is None else events
        self.undo = watch(
            module,
            before=lambda args, _: self.events.append((name, "before", len(args))),
            after=lambda _, __, output: self.events.append((name, "after", float(output.detach().sum()))),
            raised=lambda: self.events.append((name, "raised")),
        )


class Own(nn.Module):
    """A class with a `__call__` of its own, as some attention processors have."""

    def __call__(self, x: Tensor) -> Tensor:
        """Double."""
        return x * 2


class OwnAndBase(nn.Module):
    """A class whose own `__call__` goes through that of torch and changes what comes back."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Add 100."""
        return super().__call__(*args, **kwargs) + 100

    def forward(self, x: Tensor) -> Tensor:
        """Add 1."""
        return x + 1


def test_what_leaves_the_module() -> None:
    """A value is seen as the caller gets it, whatever hooks are added later and whatever they return."""
    module = nn.Identity()
    log = Log(module)
    module.register_forward_hook(lambda *_: torch.full((1,), 7.0))
    assert float(module(torch.zeros(1))) == 7
    log.undo()
    assert log.events == [("", "before", 1), ("", "after", 7.0)]


def test_a_call_of_its_own() -> None:
    """A class with its own `__call__` is seen too, once a call, also where that goes through torch's."""
    for module, expected in ((Own(), 6.0), (OwnAndBase(), 104.0)):
        call = vars(type(module))["__call__"]
        log = Log(module)
        assert float(module(torch.full((1,), 3.0))) == expected
        log.undo()
        assert log.events == [("", "before", 1), ("", "after", expected)]
        assert vars(type(module))["__call__"] is call


def test_a_module_that_calls_itself() -> None:
    """A module that calls itself is seen at every depth."""

    class Deeper(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x) > 2 else self(x + 1)

    module = Deeper()
    log = Log(module)
    module(torch.zeros(1))
    log.undo()
    assert [event[1] for event in log.events] == ["before"] * 4 + ["after"] * 4


def test_order_and_undo() -> None:
    """Listeners come in turn, one that asks to be first before them; an undo takes out its own, even twice."""
    module, heard = nn.Identity(), list[str]()
    undos = [watch(module, before=functools.partial(lambda name, *_: heard.append(name), name)) for name in "ab"]
    undos.append(watch(module, before=lambda *_: heard.append("first"), first=True))
    module(torch.zeros(1))
    assert heard == ["first", "a", "b"]
    undos[0]()
    undos[0]()
    heard.clear()
    module(torch.zeros(1))
    assert heard == ["first", "b"]
    for undo in undos:
        undo()
    heard.clear()
    module(torch.zeros(1))
    assert not heard


def test_one_that_raises() -> None:
    """A call that raises is told as such, and the exception is the run's own."""

    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyboardInterrupt

    module = Breaks()
    log = Log(module)
    with pytest.raises(KeyboardInterrupt):
        module(torch.zeros(1))
    log.undo()
    assert log.events == [("", "before", 1), ("", "raised")]


class Parent(nn.Module):
    """Calls a child that raises; catches that, or not, and answers with an error of its own, or not."""

    def __init__(self, *, catches: bool, answers: bool) -> None:
        super().__init__()
        self.child = Child()
        self.catches, self.answers = catches, answers

    def forward(self, x: Tensor) -> Tensor:
        """Call the child."""
        if not self.catches:
            return torch.as_tensor(self.child(x))
        try:
            self.child(x)
        except ArithmeticError:
            if self.answers:
                raise LookupError from None
        return x


class Child(nn.Module):
    """Always fails."""

    def forward(self, x: Tensor) -> Tensor:
        """Fail."""
        raise ArithmeticError


@pytest.mark.parametrize(("catches", "raiser"), [(False, "child"), (True, "parent")])
def test_who_raised(catches: bool, raiser: str) -> None:
    """The module that raised is the innermost one the exception came out of, not one whose error was caught."""
    parent = Parent(catches=catches, answers=True)
    logs = [Log(parent), Log(parent.child)]
    with pytest.raises((ArithmeticError, LookupError)) as error:
        parent(torch.zeros(1))
    found = innermost_call(error.value.__traceback__)
    for log in logs:
        log.undo()
    assert found is (parent if raiser == "parent" else parent.child)


def test_an_error_of_the_caller_has_no_module() -> None:
    """An error that no module raised is not said to be of the last one that failed."""
    parent = Parent(catches=True, answers=False)
    logs = [Log(parent), Log(parent.child)]
    parent(torch.zeros(1))
    with pytest.raises(ZeroDivisionError) as error:
        float(parent.child is None) / 0
    assert innermost_call(error.value.__traceback__) is None
    for log in logs:
        log.undo()


def test_copies_carry_nothing() -> None:
    """A copy of a watched module, by any way, is not watched and holds nothing of ours."""
    module = nn.Linear(2, 2)
    log = Log(module)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        other(torch.zeros(1, 2))
        assert vars(other).keys() == vars(nn.Linear(2, 2)).keys()
        assert not other._forward_hooks and not other._forward_pre_hooks
    log.undo()
    assert not log.events


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_scripted_module() -> None:
    """A module of TorchScript is seen by its caller's side."""
    module: Any = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))  # type: ignore[no-untyped-call]
    log = Log(module)
    module(torch.zeros(1, 2))
    log.undo()
    assert [event[1] for event in log.events] == ["before", "after"]


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_tracing_a_watched_module() -> None:
    """TorchScript and fx trace a watched module as they would one that nobody watches, and nothing is told."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

    def traced() -> tuple[str, str]:
        script = torch.jit.trace(module, torch.zeros(1, 2), check_trace=False)  # type: ignore[no-untyped-call]
        graph = str(script.graph)
        return torch.fx.symbolic_trace(module).code, re.sub(r"___torch_mangle_\d+\.", "", graph)

    plain = traced()
    log = Log(module[0])
    watched = traced()
    log.undo()
    assert watched == plain and not log.events


def test_threads() -> None:
    """Calls from several threads are all told."""
    modules = [nn.Identity() for _ in range(4)]
    logs = [Log(module) for module in modules]

    def work(module: nn.Module) -> None:
        for _ in range(200):
            module(torch.zeros(1))

    threads = [threading.Thread(target=work, args=(module,)) for module in modules]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in logs:
        log.undo()
    assert [len(log.events) for log in logs] == [400] * 4


def test_strangers() -> None:
    """A module that nobody watches is shown, and if it is watched then, the very call is told."""
    known, other, met, events = nn.Identity(), nn.Identity(), list[nn.Module](), list[Any]()
    logs = [Log(known)]

    def meet(module: nn.Module) -> None:
        met.append(module)
        logs.append(Log(module, "new", events))

    undo = meet_strangers(meet)
    known(torch.zeros(1))
    other(torch.ones(1))
    other(torch.ones(1))
    undo()
    for log in logs:
        log.undo()
    assert met == [other]
    assert events == [("new", "before", 1), ("new", "after", 1.0)] * 2


@pytest.mark.parametrize("cover_first", [True, False])
def test_a_compiled_cover(cover_first: bool) -> None:
    """Calls of a compiled module's cover count as its own, once, and so do calls that go around the cover."""
    module = nn.Linear(2, 2)
    cover: Any = torch.compile(module, backend="eager")
    log = Log(module) if not cover_first else None
    undo = stand_for(cover, module)
    log = log or Log(cover)
    with torch.compiler.set_stance("force_eager"):
        cover(torch.zeros(1, 2))
        assert [event[1] for event in log.events] == ["before", "after"]
        module(torch.zeros(1, 2))
        assert [event[1] for event in log.events] == ["before", "after"] * 2
    log.undo()
    undo()


def test_someone_else_replaces_it() -> None:
    """Where someone else has replaced torch's `__call__` meanwhile, theirs stays, and ours is silent beneath it."""
    module, heard = nn.Identity(), list[int]()
    log = Log(module)
    ours = vars(nn.Module)["__call__"]

    def theirs(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        heard.append(1)
        return ours(self, *args, **kwargs)

    nn.Module.__call__ = theirs  # type: ignore[method-assign]
    log.undo()
    module(torch.zeros(1))
    assert heard == [1] and not log.events
    log = Log(module)
    module(torch.zeros(1))
    assert heard == [1, 1] and len(log.events) == 2
    nn.Module.__call__ = ours  # type: ignore[method-assign]
    log.undo()


def test_compiling_while_something_is_watched() -> None:
    """Another model is compiled as often as without us, whether it was before, or is for the first time in between."""
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        compiled.append(1)
        return graph.forward

    class Warm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.inner(x))

    class Cold(Warm):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.inner(x))

    warm, cold = (torch.compile(kind(), backend=backend) for kind in (Warm, Cold))
    warm(torch.zeros(1, 2))
    assert len(compiled) == 1
    log = Log(nn.Identity())
    undo = meet_strangers(lambda _: None)
    warm(torch.zeros(1, 2))
    assert len(compiled) == 1
    cold(torch.zeros(1, 2))
    cold(torch.zeros(1, 2))
    assert len(compiled) == 2
    undo()
    log.undo()
    warm(torch.zeros(1, 2))
    cold(torch.zeros(1, 2))
    assert len(compiled) == 2
