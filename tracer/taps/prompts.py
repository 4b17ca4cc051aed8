"""Tap on the text encoders: the tokens they were given, the embeddings they made of them, and what was cut off."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..layout import PROMPTS, array_name, module_group
from ..recording.covers import chain
from ..recording.patches import replace_attribute
from ..recording.provenance import Origin
from ..recording.sites import Source
from ..recording.target import Target
from .containers import tensors_in
from .cut_texts import cut_texts, texts_in
from .encoders import Encoder, Pass, encoders_of
from .protocol import Emit, Undo
from .steps import call_arguments, call_owner

__all__ = ["PromptsTap"]

_PICTURES = ("vae", "image_encoder", "safety_checker", "vqvae", "movq")
"""Components that are given pictures; looking for texts in those would be in vain."""


class PromptsTap:
    """Records prompts as the encoders received them, which is the truth behind any templates and truncation.

    An encoder may be called through a part of it, so the token ids are taken where they are embedded.
    """

    def attach(self, target: Target, emit: Emit) -> Undo:
        """Hook the modules of every encoder that a text passes, and what embeddings are sent through afterwards."""
        listener = _Listener(emit)
        with ExitStack() as undo:
            undo.callback(emit.follow(listener.attach))
            if target.pipeline is not None and listener.texts:
                wrap = functools.partial(_wrap_call, emit, target.pipeline, listener.texts)
                undo.callback(replace_attribute(call_owner(target.pipeline), "__call__", wrap))
            return undo.pop_all().close


class _Listener:
    """Knows which modules see texts, also after an encoder, or its embedding, was replaced during the run."""

    def __init__(self, emit: Emit) -> None:
        self.texts: dict[str, _Texts] = {}
        """What each encoder was given, by the encoder's name."""
        self._emit = emit
        self._target: Target | None = None
        self._roles: dict[int, list[dict[str, Callable[..., None]]]] = {}
        """What is done at the calls of a module, by its identity."""

    def attach(self, _: str, module: nn.Module) -> Undo | None:
        """Watch a module that a text passes, or what embeddings are sent through afterwards."""
        if self._target is not self._emit.roster.target:
            self._target = self._emit.roster.target
            self._roles.clear()
            self._look(self._target)
        with ExitStack() as undo:
            for role in self._roles.get(id(module), ()):
                undo.callback(self._emit.watch(module, **role))
            return undo.pop_all().close if id(module) in self._roles else None

    def _look(self, target: Target) -> None:
        encoders = encoders_of(target)
        for encoder in encoders:
            texts = self.texts.setdefault(encoder.name, _Texts(self._emit, encoder))
            texts.encoder, through = encoder, texts.through
            self._give(encoder.around().values(), before=through.enters, after=through.leaves, raised=through.fails)
            if embeddings := encoder.embeddings():
                self._give(embeddings.values(), after=through.embeds)
            else:  # it makes vectors of token ids in a way of its own
                self._give([encoder.module], before=functools.partial(through.embeds, output=None))
            self._give(encoder.beside().values(), after=texts.beside)
        self._give(_further(target, encoders), after=functools.partial(_derive, self._emit))

    def _give(self, modules: Iterable[nn.Module], **role: Callable[..., None]) -> None:
        """Give each module a role, once."""
        for identity in {id(module) for module in modules}:
            self._roles.setdefault(identity, []).append(role)


class _Texts:
    """What one encoder was given so far."""

    def __init__(self, emit: Emit, encoder: Encoder) -> None:
        self.encoder = encoder
        self.through = Pass(self.encoded, self.sent)
        self._emit = emit
        self._path = f"{PROMPTS}.{encoder.name}"
        self._calls: list[dict[str, Any]] = []
        self._rows: list[list[list[int]]] = []

    def encoded(self, ids: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """A text went through the encoder: record its token ids, their strings, and its embeddings."""
        call, tokenizer = len(self._calls), self.encoder.tokenizer
        suffix = array_name("", call)
        dims = (f"prompt{suffix}", f"text_token{suffix}")
        on_host = ids.cpu()
        rows: list[list[int]] = on_host.tolist()
        tokens = [[str(token) for token in tokenizer.convert_ids_to_tokens(row)] for row in rows]
        text = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
        self._calls.append({"call": call, "suffix": suffix, "text": text, "tokens": tokens})
        self._rows.append(rows)
        group = self._tell()
        self._emit.array(f"{group}/tokens{suffix}", np.array(tokens, dtype=object), dims)
        self._emit.array(f"{group}/token_ids{suffix}", on_host.numpy(), dims)
        made = [tensor for _, tensor in tensors_in(output)]
        origins = [Origin(self.encoder.name, call, row) for row in range(len(rows))]
        self._emit.provenance.texts |= dict(zip(origins, text, strict=True))
        self._emit.provenance.note(made, [(origin,) for origin in origins], content=_mask(ids, args, kwargs))
        embedding = next((tensor for tensor in made if tensor.dim() == 3), None)
        if embedding is not None:
            source = Source(self._path, "TextEmbedding")
            self._emit(source, embedding, port="embedding", dims=(*dims, f"embedding{suffix}"))

    def sent(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Something else went through the encoder or a part of it, maybe the embeddings of a text."""
        _derive(self._emit, args, kwargs, output)

    def beside(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """A part that lies beside the embedding was called, by the encoder or by itself."""
        if not self.through.running:
            self.sent(args, kwargs, output)

    @property
    def count(self) -> int:
        """Calls so far."""
        return len(self._calls)

    def compare(self, given: list[str], since: int) -> None:
        """Say what was cut off the texts of a pipeline's call."""
        rows = [row for call in self._rows[since:] for row in call]
        cut = iter(cut_texts(self.encoder.tokenizer, given, rows))
        changed = False
        for entry, call in zip(self._calls[since:], self._rows[since:], strict=True):
            own = [next(cut) for _ in call]
            if any(own):
                entry["cut"] = own
                changed = True
        if changed:
            self._tell()

    def _tell(self) -> str:
        """Describe the calls so far; returns the group that does."""
        group = module_group(self._path, has_children=False)
        self._emit.describe({"encoder": self.encoder.name, "calls": list(self._calls)}, group=group)
        return group


def _further(target: Target, encoders: Iterable[Encoder]) -> list[nn.Module]:
    """Components that may change embeddings before a denoiser sees them, such as connectors and projections."""
    known = {encoder.name for encoder in encoders} | set(target.denoisers())
    return [chain(root)[-1] for name, root in target.components.items() if name not in known and name not in _PICTURES]


def _derive(emit: Emit, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
    """A module returned: what it made of embeddings belongs to the same texts."""
    if not emit.provenance:
        return
    inputs = [tensor for _, tensor in tensors_in((args, dict(kwargs)))]
    waits = any(tensor.device.type != "cpu" for tensor in inputs)  # an accelerator, which is not stopped at every step
    if not waits or emit.clock.step_now() is None:
        emit.provenance.derive(inputs, [tensor for _, tensor in tensors_in(output)])


def _mask(ids: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """What the encoder was told is padding."""
    given = kwargs.get("attention_mask")
    listed = [given, *(value for value in args if isinstance(value, Tensor) and value is not ids)]
    return next(
        (
            mask
            for mask in listed
            if isinstance(mask, Tensor)
            and mask.shape == ids.shape
            and not mask.is_floating_point()
            and mask.data_ptr() != ids.data_ptr()
        ),
        None,
    )


def _wrap_call(
    emit: Emit, traced: object, watched: Mapping[str, _Texts], original: Callable[..., Any]
) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def call(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
        if pipeline is not traced:
            return original(pipeline, *args, **kwargs)
        since = {name: texts.count for name, texts in watched.items()}
        try:
            return original(pipeline, *args, **kwargs)
        finally:
            compare(since, args, kwargs)

    @emit.guard
    def compare(since: Mapping[str, int], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = texts_in(call_arguments(signature, traced, args, kwargs))
        for name, texts in watched.items():
            first = since.get(name, 0)
            if texts.count > first and given:
                texts.compare(given, first)

    return call
