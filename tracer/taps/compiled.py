"""Models given to `torch.compile`: run eagerly while they are traced, or as they are, with what can be seen then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from ..capture import Selection
from ..recording.covers import covers_in

__all__ = ["Compiled", "CompiledModules"]

Compiled = Literal["eager", "keep"]
"""What to do with compiled modules while they are traced."""

_NAMED = 20


@dataclass(frozen=True, slots=True)
class CompiledModules:
    """What of the traced modules is compiled.

    Args:
        names: Of the compiled modules.
        within: Of the modules in these, whose calls compiled code does not make.
    """

    names: tuple[str, ...]
    within: tuple[str, ...]

    @classmethod
    def among(cls, modules: Mapping[str, nn.Module], roots: Iterable[nn.Module]) -> CompiledModules:
        """Find them, those in a cover of `torch.compile` and those compiled in place.

        Args:
            modules: All that are traced, by name, covers left out.
            roots: The components.
        """
        covered = {id(beneath) for root in roots for cover, beneath in covers_in(root) if "_orig_mod" in cover._modules}
        names = [
            name
            for name, module in modules.items()
            if id(module) in covered or getattr(module, "_compiled_call_impl", None) is not None
        ]
        known = frozenset(names)
        within = (
            name
            for name, module in modules.items()
            if getattr(type(module), "forward", None) is not nn.Module.forward  # lists of modules are never called
            and any(above in known for above in _above(name))
        )
        return cls(tuple(names), tuple(within))

    def stance(self, wanted: Compiled) -> AbstractContextManager[Any]:
        """Runs them eagerly where that is wanted, without compiling anything, then or later."""
        if not self.names or wanted == "keep":
            return nullcontext()
        stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
        return stance

    def narrowed(self, selection: Selection, wanted: Compiled) -> Selection:
        """What can be kept: where they run as they are, their own outputs in place of what is within them.

        Nothing is listened at in their components that compiled code calls: it would be compiled anew for that.
        """
        if not self.names or wanted == "eager":
            return selection
        components = {name.partition(".")[0] for name in self.names}
        hidden = frozenset(self.within)
        kept = {
            name for name in self.names if any(within.startswith(f"{name}.") for within in selection.modules & hidden)
        }
        attention = (name for name in selection.attention if name.partition(".")[0] not in components)
        return replace(selection, modules=(selection.modules - hidden) | kept, attention=frozenset(attention))

    def describe(self, wanted: Compiled) -> dict[str, Any]:
        """What to write into the trace; empty where nothing is compiled."""
        if not self.names:
            return {}
        told = {"how": wanted, "count": len(self.names), "modules": list(self.names[:_NAMED])}
        unseen = {"count": len(self.within), "names": list(self.within[:_NAMED])} if wanted == "keep" else {}
        return {"compiled": told | ({"unseen": unseen} if unseen else {})}


def _above(name: str) -> Iterable[str]:
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts)))
