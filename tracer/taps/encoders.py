"""Which component encodes texts, and which of its modules see the token ids, however it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..recording.target import Target
from .containers import tensors_in

__all__ = ["Encoder", "Pass", "encoders_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """A component with a tokenizer."""

    name: str
    module: nn.Module
    tokenizer: Any

    def embeddings(self) -> dict[str, nn.Module]:
        """The modules that turn token ids into vectors, by path; one may lie at several places."""
        named = self.module.named_modules(remove_duplicate=False)
        found = {path: module for path, module in named if isinstance(module, nn.Embedding)}
        rows = _rows_of_vocabulary(self.module, found)
        return {path: module for path, module in found.items() if module.num_embeddings == rows}

    def around(self) -> dict[str, nn.Module]:
        """The modules that hold an embedding, the component itself among them: what a text can be encoded by."""
        paths = {path.rsplit(".", depth)[0] for path in self.embeddings() for depth in range(1, path.count(".") + 1)}
        modules = dict(self.module.named_modules(remove_duplicate=False))
        return {path: modules[path] for path in ("", *sorted(paths))}

    def beside(self) -> dict[str, nn.Module]:
        """The modules next to those: what embeddings may be sent through afterwards, such as a projection."""
        inside = self.around()
        ids = {id(module) for module in (*inside.values(), *self.embeddings().values())}
        return {
            f"{path}.{name}".lstrip("."): child
            for path, module in inside.items()
            for name, child in module.named_children()
            if id(child) not in ids and not isinstance(child, nn.ModuleList)
        }


def encoders_of(target: Target) -> list[Encoder]:
    """Components with the tokenizers they were made for.

    They belong together by name ("text_encoder_2", "tokenizer_2"); what has another name where there is one way only.
    """
    found: list[Encoder] = []
    left = dict(target.tokenizers)
    for name, tokenizer in target.tokenizers.items():
        own = name.replace("tokenizer", "text_encoder")
        if own != name and own in target.components:
            found.append(Encoder(own, target.components[own], tokenizer))
            del left[name]
    taken, denoisers = {encoder.name for encoder in found}, target.denoisers()
    if len(denoisers) == len(target.components):  # loose modules, none of which takes a timestep
        denoisers = {}
    others = {
        name: module
        for name, module in target.components.items()
        if name not in taken and name not in denoisers and any(isinstance(m, nn.Embedding) for m in module.modules())
    }
    for tokenizer in left.values():
        fits = [Encoder(name, module, tokenizer) for name, module in others.items() if _reads(module, tokenizer)]
        if len(fits) == 1 and fits[0].name not in taken:
            found.append(fits[0])
            taken.add(fits[0].name)
    return found


class Pass:
    """One way through an encoder, from the first of its modules that is called to the return of that module.

    Args:
        finished: Told of the ids, what the outermost module was given, and what it returned.
        without: Told of what it was given and returned where there were no ids.
    """

    def __init__(
        self,
        finished: Callable[[Tensor, tuple[Any, ...], Mapping[str, Any], Any], None],
        without: Callable[[tuple[Any, ...], Mapping[str, Any], Any], None],
    ) -> None:
        self._finished = finished
        self._without = without
        self._depth = 0
        self._ids: Tensor | None = None

    @property
    def running(self) -> bool:
        """Whether the encoder is being called."""
        return self._depth > 0

    def enters(self, *_: Any) -> None:
        """A module around the embedding is called."""
        if not self._depth:
            self._ids = None
        self._depth += 1

    def fails(self) -> None:
        """A module around the embedding raised."""
        self._depth = max(0, self._depth - 1)

    def embeds(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """The embedding was given token ids."""
        ids = next(
            (tensor for _, tensor in tensors_in((args, dict(kwargs))) if tensor.dtype in (torch.int64, torch.int32)),
            None,
        )
        if ids is None or ids.dim() != 2 or ids.shape[1] < 2 or self._ids is not None:
            return  # a token more, as generated text is made of, is no prompt
        if self._depth:
            self._ids = ids.detach()
        else:
            self._finished(ids.detach(), args, {}, output)

    def leaves(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """A module around the embedding returned."""
        self._depth = max(0, self._depth - 1)
        if self._depth:
            return
        ids, self._ids = self._ids, None
        if ids is None:
            self._without(args, kwargs, output)
        else:
            self._finished(ids, args, kwargs, output)


def _rows_of_vocabulary(module: nn.Module, embeddings: Mapping[str, nn.Module]) -> int:
    """Rows of the embedding of tokens, where the model says which that is; else of the largest one."""
    try:
        own = module.get_input_embeddings()  # type: ignore[operator]
    except Exception:  # noqa: BLE001 — models may not have one, or not say
        own = None
    if isinstance(own, nn.Embedding) and any(own is known for known in embeddings.values()):
        return own.num_embeddings
    return max((known.num_embeddings for known in embeddings.values() if isinstance(known, nn.Embedding)), default=0)


def _reads(module: nn.Module, tokenizer: Any) -> bool:
    """Whether a model has a vector for every token."""
    sizes = [known.num_embeddings for known in module.modules() if isinstance(known, nn.Embedding)]
    try:
        return max(sizes, default=0) >= len(tokenizer)
    except TypeError:
        return bool(sizes)
