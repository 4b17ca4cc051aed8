"""`Trace.attention`: an attention map as a lazy xarray array, computed from queries and keys where it is indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from .info import AttentionInfo, Attentions
from .inputs import Inputs
from .maps import probabilities
from .texts import CONDITIONAL, Text
from .tokens import Part, part_labels, places
from .use import said, steps_text
from .words import token_label, unique, words_of

__all__ = ["AttentionArray", "attention_array"]

_CHUNK = 64 << 20
"""Most bytes of a block as dask computes it, as long as that is one head."""


class AttentionArray(BackendArray):
    """softmax(Q Kᵀ · scale + mask), shape (step, batch, head, query, key), or without step outside of the loop.

    Indexing reads the chunks of the steps asked for, computes the rows asked for in blocks, and picks columns after
    they were normalised over all keys. A step that was not captured is NaN.
    """

    def __init__(self, inputs: Inputs, call: AttentionInfo, steps: int) -> None:
        self._inputs = inputs
        self._call = call
        self.shape = (steps, *call.shape) if call.stepped else call.shape
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        if not isinstance(key, indexing.VectorizedIndexer):
            return self._compute(key.tuple)
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._compute)

    def _compute(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        picks = key if self._call.stepped else (0, *key)
        sizes = (*self.shape[: -len(self._call.shape)], *self._call.shape) if self._call.stepped else (1, *self.shape)
        steps, batch, heads, rows, columns = (
            np.atleast_1d(np.arange(size)[pick]) for size, pick in zip(sizes, picks, strict=True)
        )
        result = np.empty((len(steps), len(batch), len(heads), len(rows), len(columns)), np.float32)
        everything = len(columns) == sizes[-1] and bool((columns == np.arange(sizes[-1])).all())
        for at, step in enumerate(steps.tolist() if result.size else []):
            for row, entry in enumerate(batch.tolist()):
                given = self._inputs.of(step, entry, heads.tolist())
                if given is None:
                    result[at, row] = np.nan
                    continue
                query, keys, mask = given
                result[at, row] = probabilities(
                    query,
                    keys,
                    scale=self._call.scale,
                    mask=mask,
                    causal=self._call.causal,
                    rows=rows,
                    columns=slice(None) if everything else columns,
                )
        return result[tuple(0 if np.ndim(pick) == 0 and not isinstance(pick, slice) else slice(None) for pick in picks)]


def attention_array(
    attentions: Attentions, call: AttentionInfo, *, timestep: NDArray[Any], sigma: NDArray[Any]
) -> xarray.DataArray:
    """The map of one call with its coordinates; see `Trace.attention`."""
    steps = len(timestep)
    source = AttentionArray(attentions.inputs(call), call, steps)
    dims = ("step",) * call.stepped + ("batch", "head", "query", "key")
    coordinates: dict[str, Any] = {"head": list(call.heads)}
    if call.stepped:
        coordinates |= {"step": np.arange(steps), "timestep": ("step", timestep), "sigma": ("step", sigma)}
    branches, query_texts, key_texts = _throughout(attentions, call, steps)
    if any(branches):
        coordinates["branch"] = ("batch", list(branches))
    coordinates |= _positions("query", call.query_parts, query_texts, branches)
    coordinates |= _positions("key", call.key_parts, key_texts, branches)
    variable = xarray.Variable(dims, indexing.LazilyIndexedArray(source))
    described: dict[str, Any] = {
        "module": call.module,
        "call": call.call,
        "kind": call.kind,
        "door": call.door,
        "scale": call.scale,
    }
    described |= {"causal": int(call.causal)} | said(attentions.doubt([call]))
    if call.steps is not None and len(attentions.forms(call)) > 1:
        described["steps"] = steps_text(step for step in call.steps if step < steps)
    array = xarray.DataArray(variable, coordinates, name="attention", attrs=described)
    array.encoding["preferred_chunks"] = dict(zip(dims, _chunks(source.shape), strict=True))
    return array


def _throughout(
    attentions: Attentions, call: AttentionInfo, steps: int
) -> tuple[tuple[str, ...], Sequence[Text], Sequence[Text]]:
    """Branches and texts that hold at all of its steps; of several calls of a pipeline each may have its own."""
    firsts = [
        step
        for step in attentions.first_steps([call])
        if step < max(steps, 1) and (call.steps is None or step in call.steps)
    ]
    branches = {attentions.branches(call, step) for step in firsts}
    queries = {attentions.query_texts(call, step) for step in firsts}
    keys = {attentions.texts(call, step) for step in firsts}
    common = branches.pop() if len(branches) == 1 else ("",) * call.shape[0]
    return common, queries.pop() if len(queries) == 1 else (), keys.pop() if len(keys) == 1 else ()


def _chunks(shape: tuple[int, ...]) -> tuple[int, ...]:
    """One step and one batch entry, as many heads as fit, and at least one row."""
    *lead, heads, queries, keys = shape
    rows = min(max(_CHUNK // (4 * keys), 1), queries)
    together = min(max(_CHUNK // (4 * keys * queries), 1), heads) if rows == queries else 1
    return (*(1 for _ in lead), together, rows, keys)


def _positions(dim: str, parts: Sequence[Part], texts: Sequence[Text], branches: Sequence[str]) -> dict[str, Any]:
    """Coordinates along queries or keys: number or token, part, place in the image, tokens and words of the text."""
    size = parts[-1].span.stop
    found: dict[str, Any] = {dim: np.arange(size), f"{dim}_part": (dim, part_labels(parts))}
    found |= {f"{dim}_{axis}": (dim, place) for axis, place in places(parts).items()}
    layers: list[list[Text]] = []  # encoders that share positions go to coordinates of their own
    for text in texts:
        free = next((layer for layer in layers if all(_apart(text, other) for other in layer)), None)
        if free is None:
            layers.append([text])
        else:
            free.append(text)
    for number, layer in enumerate(layers):
        tokens, words = (np.full((len(branches), size), "", object) for _ in range(2))
        for text in layer:
            for entry, row in enumerate(text.tokens):
                tokens[entry, text.start : text.start + len(row)] = [token_label(token) for token in row]
                for word in words_of(row):
                    words[entry, [text.start + position for position in word.positions]] = word.text
        suffix = f"_{number + 1}" if number else ""
        found[f"{dim}_token{suffix}"] = ("batch", dim), tokens.astype(str)
        found[f"{dim}_word{suffix}"] = ("batch", dim), words.astype(str)
        shown = next((at for at, branch in enumerate(branches) if branch in ("", CONDITIONAL)), None)
        if not number and shown is not None and all(part.kind == "text" for part in parts) and tokens[shown].all():
            found |= {dim: unique(tokens[shown].tolist()), f"{dim}_position": (dim, np.arange(size))}
    return found


def _apart(text: Text, other: Text) -> bool:
    return text.start + text.size <= other.start or other.start + other.size <= text.start
