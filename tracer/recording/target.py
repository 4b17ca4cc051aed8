"""What is traced: a pipeline, a module, or a mapping of named parts, seen as one kind of thing."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import TargetError, TracerStateError
from ..layout import RESERVED, as_text
from .asking import attribute_of, is_a
from .covers import chain, named_modules, time_parameters

__all__ = ["Target"]

_HOLDERS: dict[int, Path | str] = {}
"""Trace that each module is being recorded into, by the module's identity."""
_SCHEDULERS: Counter[int] = Counter()
"""How many tracers each scheduler is a part of, by its identity."""
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Target:
    """The traced object and its parts. Taps attach to this."""

    pipeline: Any | None
    """The `DiffusionPipeline`, or None when loose modules are traced."""
    components: Mapping[str, nn.Module]
    """As they are called, covers included."""
    schedulers: Mapping[str, Any]
    tokenizers: Mapping[str, Any]
    traced: object = None
    """What was given."""

    @classmethod
    def of(cls, traced: object) -> Target:
        """Take a `DiffusionPipeline`, an `nn.Module`, or a mapping of names to modules, schedulers and tokenizers.

        A scheduler alone will do: a port of a model runs outside of torch, and its arrays are recorded by hand.

        Raises:
            TargetError: It is none of these, holds neither module nor scheduler, or a name is reserved by the trace.
        """
        if is_a(traced, nn.Module):
            return cls(None, {"model": traced}, {}, {}, traced)
        pipeline = None
        parts: object = traced
        if not is_a(traced, Mapping):  # type: ignore[type-abstract]
            pipeline, parts = traced, attribute_of(traced, "components")
        if not is_a(parts, Mapping):  # type: ignore[type-abstract]
            raise TargetError(
                f"cannot trace {type(traced).__name__!r}: give a diffusers pipeline, an nn.Module, "
                'or a mapping such as {"unet": unet, "scheduler": scheduler}'
            )
        components: dict[str, nn.Module] = {}
        for name, part in parts.items():
            if is_a(part, nn.Module) and not any(part is known for known in components.values()):
                components[as_text(name)] = part
        others = {as_text(name): part for name, part in parts.items() if not is_a(part, nn.Module)}
        for name in components:
            if name in RESERVED or "." in name or not name:
                raise TargetError(f"a component cannot be called {name!r} in a trace; give it another name")
        schedulers = {name: part for name, part in others.items() if _is_scheduler(part)}
        if not components and not schedulers:
            raise TargetError(
                f"cannot trace {type(traced).__name__!r}: none of its parts is an nn.Module, or a scheduler"
            )
        tokenizers = {name: found for name, part in others.items() if (found := _tokenizer_of(part)) is not None}
        return cls(pipeline, components, schedulers, tokenizers, traced)

    def current(self) -> Target:
        """The same with the parts it has now, some of which may have been replaced since."""
        try:
            return Target.of(self.traced)
        except Exception:  # noqa: BLE001 — whatever the user's pipeline raises: nothing more is known of it then
            return self

    def has_become(self, module: nn.Module) -> bool:
        """Whether a module stands in the place of a part by now."""
        parts = self.traced if isinstance(self.traced, Mapping) else vars(self.pipeline) if self.pipeline else {}
        try:
            return any(part is module for part in parts.values())
        except Exception:  # noqa: BLE001 — a mapping of the user's own
            return False

    def modules(self) -> dict[str, nn.Module]:
        """Every module by its full path, "unet.mid_block.resnets.0"; a shared module under its first path.

        Covers of torch and peft, such as those of compiled modules, are looked through; see `covers`.
        """
        found: dict[str, nn.Module] = {}
        seen: set[int] = set()
        for component, root in self.components.items():
            found.update(named_modules(root, component, seen))
        return found

    def classes(self) -> dict[str, str]:
        """Class of each component, of what is beneath its covers."""
        return {name: type(chain(root)[-1]).__name__ for name, root in self.components.items()}

    def covers(self) -> dict[str, list[str]]:
        """Classes of the covers of a component, the outermost first, of those that have any."""
        found = {name: [type(cover).__name__ for cover in chain(root)[:-1]] for name, root in self.components.items()}
        return {name: covers for name, covers in found.items() if covers}

    @contextmanager
    def claim(self, trace: Path | str) -> Iterator[None]:
        """Hold the modules for one tracer: each would otherwise record what the other's hooks do to the run.

        Raises:
            TracerStateError: Another tracer holds one of them, or writes to the same place.
        """
        modules = self.modules()
        with _LOCK:
            if any(_is_same(trace, other) for other in set(_HOLDERS.values())):
                raise TracerStateError(f"another tracer is writing to {trace}; choose another path, or end it first")
            for name, module in modules.items():
                if other := _HOLDERS.get(id(module)):
                    raise TracerStateError(
                        f"{name} is being traced into {other} already; end that tracer first, "
                        "or have one tracer capture all that is needed"
                    )
            _HOLDERS.update((id(module), trace) for module in modules.values())
            _SCHEDULERS.update(id(scheduler) for scheduler in self.schedulers.values())
        try:
            yield
        finally:
            with _LOCK:
                _SCHEDULERS.subtract(id(scheduler) for scheduler in self.schedulers.values())
                for module in modules.values():
                    del _HOLDERS[id(module)]

    def denoisers(self) -> dict[str, nn.Module]:
        """Components whose forward takes a timestep, beneath their covers; of loose modules all when none does.

        Where none is known and a scheduler is, what it steps from tells which they are.
        """
        found = {name: root for name, root in self.components.items() if any(map(time_parameters, chain(root)))}
        counted_by_calls = self.pipeline is None and not self.schedulers
        return found if found or not counted_by_calls else dict(self.components)


def is_held(scheduler: object) -> bool:
    """Whether a scheduler is a part of what some tracer is recording."""
    return _SCHEDULERS[id(scheduler)] > 0


def _tokenizer_of(part: object) -> object | None:
    """A tokenizer, or that of a processor."""
    candidates = (part, attribute_of(part, "tokenizer"))
    return next((found for found in candidates if attribute_of(found, "convert_ids_to_tokens") is not None), None)


def _is_same(trace: Path | str, other: Path | str) -> bool:
    if isinstance(trace, Path) and isinstance(other, Path):
        return trace.resolve() == other.resolve()
    return trace == other


def _is_scheduler(part: object) -> bool:
    missing = object()
    return callable(attribute_of(part, "step")) and attribute_of(part, "timesteps", missing) is not missing
