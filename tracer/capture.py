"""What to keep of a run: levels, patterns, steps, dtype. Statistics of every module are always kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .errors import CaptureError, near_matches
from .layout import Codec

__all__ = ["Capture", "Level", "Selection", "is_attention", "matches"]

Level = Literal["statistics", "blocks", "attention", "all"]

_BLOCK_CLASS = re.compile(r"Block|Transformer\w*Model$|Layer$|sample\dD$|DecoderLayer|EncoderLayer")
_ATTENTION = re.compile(r"att(entio)?n(?!s)", re.IGNORECASE)
_QUERY_LAYERS = frozenset(
    {"to_q", "to_qkv", "to_qkv_mlp_proj", "q_proj", "query", "qkv", "qkv_proj", "q", "q_lin", "in_proj"}
)
_StoredDtype = Literal["auto", "float32", "float16"]


@dataclass(frozen=True, slots=True)
class Capture:
    """Which tensors to keep, beside the statistics of everything and the latents.

    A module's tensors are kept when a pattern of `modules` matches its path or one of `classes` its class, at the
    steps that `steps` and `every` leave. Paths begin with the component; ``*`` stands for one part of a path or a
    piece of it, ``**`` for any number of parts::

        Capture(modules="unet.up_blocks.**.attn2", every=5)
        Capture(classes=("ResnetBlock2D", "Attention"), inputs=True, steps=range(0, 10))

    Args:
        modules: Glob patterns on module paths.
        classes: Glob patterns on class names.
        steps: Steps to keep tensors of: a `range` or a sequence of step indices; None for all.
        every: Keep tensors of every n-th of those steps, from the first.
        inputs: Keep (and take statistics of) what goes into the matched modules.
        outputs: Keep what comes out of them.
        latents: Keep the latents, the model output and the predicted x0 of each step.
        dtype: Stored precision of floating-point tensors of 32 bits and less. "auto" (default) loses nothing: float16
            is stored as it is, all others, bfloat16 among them, as float32. "float16" rounds them.
        attention: Glob patterns on paths of attention modules, such as ``"unet.**.attn2"``: keep query, key and mask of
            each of their attention calls, from which the maps are recomputed.
        attention_heads: Of these heads only; None for all.
        attention_output: Keep the value and the result of those calls too, by which ``dxray check`` proves the maps.
        codec: "lz4" or "zstd" after a bitshuffle, or "raw"; "auto" (default) is lz4 for arrays whose first tensor it
            makes a fifth smaller, and raw for all others, as most activations in float32 are.

    Raises:
        CaptureError: A value is out of range.
    """

    modules: str | Sequence[str] = ()
    classes: str | Sequence[str] = ()
    steps: range | Sequence[int] | None = None
    every: int = 1
    inputs: bool = False
    outputs: bool = True
    latents: bool = True
    attention: str | Sequence[str] = ()
    attention_heads: Sequence[int] | None = None
    attention_output: bool = False
    dtype: _StoredDtype = "auto"
    codec: Codec = "auto"

    def __post_init__(self) -> None:
        for name in ("modules", "classes", "attention"):
            object.__setattr__(self, name, _as_tuple(name, getattr(self, name)))
        self._check_attention()
        if not isinstance(self.every, int) or self.every < 1:
            raise CaptureError(f"every={self.every!r}: give a whole number of steps from 1 up")
        if self.dtype not in get_args(_StoredDtype):
            raise CaptureError(f"dtype={self.dtype!r}: tensors are stored as {' or '.join(get_args(_StoredDtype))}")
        if self.codec not in get_args(Codec):
            raise CaptureError(f"codec={self.codec!r}: choose from {', '.join(get_args(Codec))}")
        steps = () if self.steps is None else self.steps
        if not isinstance(steps, Iterable) or any(not isinstance(step, int) or step < 0 for step in steps):
            raise CaptureError(f"steps={self.steps!r}: give step indices from 0 up, such as range(0, 50, 5)")

    def wants_step(self, step: int | None) -> bool:
        """Whether tensors of this step are kept; what fires outside of the loop (None) always is."""
        if step is None:
            return True
        if self.steps is None:
            return step % self.every == 0
        return step in self.steps and list(self.steps).index(step) % self.every == 0

    def describe(self) -> dict[str, Any]:
        """The options as JSON, for the trace's attributes."""
        steps = None if self.steps is None else list(self.steps)
        heads = None if self.attention_heads is None else list(self.attention_heads)
        fields = ("modules", "classes", "every", "inputs", "outputs", "latents", "attention", "attention_output")
        described = {name: getattr(self, name) for name in (*fields, "dtype", "codec")}
        return described | {"steps": steps, "attention_heads": heads}

    def _check_attention(self) -> None:
        heads = self.attention_heads
        if heads is not None and (
            not isinstance(heads, Sequence)
            or not heads
            or len(set(heads)) < len(heads)
            or any(not isinstance(head, int) or head < 0 for head in heads)
        ):
            raise CaptureError(f"attention_heads={heads!r}: give different numbers of heads from 0 up, such as [0, 3]")
        for name in ("attention_heads", "attention_output"):
            if getattr(self, name) and not self.attention:
                raise CaptureError(f'{name} needs modules whose attention is kept: add attention="**" or a glob')


@dataclass(frozen=True, slots=True)
class Selection:
    """A `Capture` applied to the modules of one target."""

    capture: Capture
    modules: frozenset[str]
    """Paths of the modules whose tensors are kept."""
    attention: frozenset[str] = frozenset()
    """Paths of the modules whose attention calls are kept."""
    wanted: Level | Capture | None = None
    """What was asked for."""

    def over(self, modules: Mapping[str, Any]) -> Selection:
        """The same wish for other modules, as some were added or replaced; here a pattern may match none of them."""
        if self.wanted is None:
            return self
        try:
            return Selection.of(self.wanted, modules)
        except CaptureError:
            return self

    @classmethod
    def of(cls, wanted: Level | Capture, modules: Mapping[str, Any]) -> Selection:
        """Resolve what is wanted against the modules there are.

        Args:
            wanted: A level or a `Capture`.
            modules: `nn.Module` by full path.

        Raises:
            CaptureError: The level is unknown, or a pattern matches nothing; the message lists near matches.
        """
        if isinstance(wanted, Capture):
            return cls(wanted, _match_all(wanted, modules), _match_attention(wanted, modules), wanted)
        if wanted == "statistics":
            return cls(Capture(), frozenset(), wanted=wanted)
        if wanted == "all":
            return cls(Capture(modules="**", attention="**"), frozenset(modules), frozenset(modules), wanted)
        if wanted == "blocks":
            return cls(Capture(), _blocks(modules), wanted=wanted)
        if wanted == "attention":
            return cls(Capture(attention="**"), _blocks(modules), frozenset(modules), wanted)
        raise CaptureError(
            f"capture={wanted!r}: choose from {', '.join(map(repr, get_args(Level)))}, or give a Capture(...)"
        )


def matches(pattern: str) -> Callable[[str], bool]:
    """A test whether a dotted path matches a glob in which ``*`` stays within a part and ``**`` does not."""
    pieces = re.split(r"(\*\*\.|\.\*\*|\*\*|\*|\?)", pattern)
    table = {"**.": r"(?:.+\.)?", ".**": r"(?:\..+)?", "**": ".*", "*": r"[^.]*", "?": r"[^.]"}
    compiled = re.compile("".join(table.get(piece, re.escape(piece)) for piece in pieces), re.DOTALL)
    return lambda path: compiled.fullmatch(path) is not None


def _as_tuple(name: str, patterns: str | Iterable[str]) -> tuple[str, ...]:
    given = (patterns,) if isinstance(patterns, str) or not isinstance(patterns, Iterable) else tuple(patterns)
    if any(not isinstance(pattern, str) for pattern in given):
        raise CaptureError(f"{name}={patterns!r}: give a glob such as 'unet.**', or several")
    return given


def is_attention(module: Any) -> bool:
    """Whether a module looks like attention, by its class and its children; only its calls tell for certain."""
    kind, children = type(module).__name__, dict(module.named_children())
    return kind == "MultiheadAttention" or (bool(_ATTENTION.search(kind)) and not _QUERY_LAYERS.isdisjoint(children))


def _match_attention(capture: Capture, modules: Mapping[str, Any]) -> frozenset[str]:
    found = _match("attention", capture.attention, {path: path for path in modules})
    known = [path for path, module in modules.items() if is_attention(module)]
    for pattern in capture.attention:
        fits = matches(pattern)
        matched = [path for path in found if fits(path)]
        names = (name for path in matched for name in (path.rpartition(".")[2], type(modules[path]).__name__))
        if known and not any(map(fits, known)) and not any(map(_ATTENTION.search, names)):
            below = [path for path in known if any(path.startswith(f"{name}.") for name in matched)]
            hint = f" Below are {', '.join(below[:3])}: add .** to the pattern." if below else ""
            hint = hint or near_matches(pattern.replace("*", "").strip("."), known)
            raise CaptureError(f"attention={pattern!r} matches no module that looks like attention.{hint}")
    return found


def _match_all(capture: Capture, modules: Mapping[str, Any]) -> frozenset[str]:
    classes = {path: type(module).__name__ for path, module in modules.items()}
    by_path = _match("modules", capture.modules, {path: path for path in modules})
    return by_path | _match("classes", capture.classes, classes)


def _match(kind: str, patterns: Sequence[str], names: Mapping[str, str]) -> frozenset[str]:
    """The paths whose name fits any of the patterns; every pattern must fit some."""
    chosen: set[str] = set()
    for pattern in patterns:
        fits = matches(pattern)
        found = {path for path, name in names.items() if fits(name)}
        if not found:
            raise CaptureError(
                f"{kind}={pattern!r} matches none of the {len(names)} modules."
                f"{near_matches(pattern.replace('*', '').strip('.'), sorted(set(names.values())))}"
            )
        chosen |= found
    return frozenset(chosen)


def _blocks(modules: Mapping[str, Any]) -> frozenset[str]:
    """The modules people call blocks, by their class; where a component has none, the children of its root."""
    chosen: set[str] = set()
    by_component: dict[str, list[str]] = {}
    for path in modules:
        by_component.setdefault(path.split(".", 1)[0], []).append(path)
    for paths in by_component.values():
        found = [
            path
            for path in paths
            if "." in path and any(modules[path].children()) and _BLOCK_CLASS.search(type(modules[path]).__name__)
        ]
        chosen.update(found or [path for path in paths if path.count(".") == 1] or paths)
    return frozenset(chosen)
