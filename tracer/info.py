"""What a trace says of itself, read from its attributes. A trace is untrusted: every field is checked or defaulted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .layout import HAS_TENSOR, array_name
from .stored import Stored

__all__ = ["LatentsChange", "ModuleInfo", "SchedulerInfo", "SiteInfo", "TraceInfo", "printable"]


def printable(text: object) -> str:
    """Text from a trace, safe for a terminal: control characters are shown as escapes, never sent."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def _mappings(value: object) -> tuple[Mapping[str, Any], ...]:
    return tuple(entry for entry in value if isinstance(entry, Mapping)) if isinstance(value, list) else ()


def _gap(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """A gap as `TraceInfo.gaps` has it, also of the first format, which lists every tensor by itself."""
    step, count, steps = entry.get("step"), entry.get("count", 1), entry.get("steps", [])
    steps = [[step, step]] if type(step) is int else steps
    is_list = isinstance(steps, list) and all(
        isinstance(span, list) and len(span) == 2 and all(type(at) is int for at in span) for span in steps
    )
    return {
        "site": str(entry.get("site", "")),
        "reason": str(entry.get("reason", "")),
        "count": count if type(count) is int else 1,
        "steps": steps if is_list or type(steps) is int else [],
    }


@dataclass(frozen=True, slots=True)
class SiteInfo:
    """One place a tensor was seen: a port of a module, and which of its calls within a step."""

    name: str
    """Path of the module (or record) with its component, "unet.mid_block"."""
    port: str
    """ "output", "input", or a further tensor such as "output_1"."""
    call: int
    """0 for the first time the module fires within a step."""
    row: int
    """Row in the component's statistics table; rows are in the order in which tensors came into being."""
    order: int
    """Position of the module in call order; a module comes before its children."""
    module_class: str
    torch_dtype: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    branch: str
    """Guidance branch of this call ("conditional", "unconditional"); "" when they share the batch or none is known."""
    array: str
    """Path of the stored tensors in the trace, or "" when only statistics were kept."""
    stepped: bool
    """Whether it fired inside the denoising loop and so has a step dimension."""
    variants: tuple[Stored, ...] = ()
    """The arrays of its tensors that had another shape or stored type than those in `array`."""
    place: tuple[str | int, ...] = ()
    """Where in the module's output (or input) the tensor sits: keys and indices; () of the output itself."""
    strides: tuple[int, ...] = ()
    """Of the first tensor in memory, in elements; () where they are not known."""
    structure: object = field(default=None, hash=False)
    """Of the first output, where that is a container: its class and what lies in it, as JSON; else None."""

    @property
    def arrays(self) -> tuple[Stored, ...]:
        """All arrays that hold tensors of it; none where only statistics were kept."""
        return (Stored(self.array, self.shape, self.dims, self.torch_dtype), *self.variants) if self.array else ()

    def stored(self, captured: int) -> Stored | None:
        """The array that a step's tensor lies in.

        Args:
            captured: What the table's `captured` says of the step.

        Returns:
            None where the tensor was not kept, or lies in an array that the trace does not name (yet).
        """
        arrays, at = self.arrays, captured - HAS_TENSOR
        return arrays[at] if 0 <= at < len(arrays) else None

    @property
    def array_name(self) -> str:
        """Name of the tensor among those of its module: "output", "output_call1"."""
        return array_name(self.port, self.call)

    @property
    def key(self) -> str:
        """Name and port in one word, unique within a trace: "unet.mid_block:output_call1"."""
        return f"{self.name}:{self.array_name}"

    @classmethod
    def from_attributes(cls, values: Mapping[str, Any], *, row: int, stepped: bool) -> SiteInfo:
        """Read a site from the list in its table's attributes."""
        return cls(
            name=str(values.get("name", "")),
            port=str(values.get("port", "output")),
            call=int(values.get("call", 0)),
            row=row,
            order=int(values.get("order", row)),
            module_class=str(values.get("class", "")),
            torch_dtype=str(values.get("dtype", "")),
            shape=tuple(int(size) for size in values.get("shape", ())),
            dims=tuple(str(dim) for dim in values.get("dims", ())),
            branch=str(values.get("branch", "")),
            array=str(values.get("array", "")),
            stepped=stepped,
            variants=tuple(map(Stored.from_attributes, _mappings(values.get("variants")))),
            place=tuple(part if isinstance(part, int) else str(part) for part in values.get("place", ())),
            strides=tuple(int(stride) for stride in values.get("strides", ())),
            structure=values.get("structure"),
        )

    def to_attributes(self) -> dict[str, Any]:
        """The form in which the writer stores a site; the row is its place in the list."""
        return {
            "name": self.name,
            "port": self.port,
            "call": self.call,
            "order": self.order,
            "class": self.module_class,
            "dtype": self.torch_dtype,
            "shape": list(self.shape),
            "dims": list(self.dims),
            "branch": self.branch,
            "array": self.array,
            "variants": [variant.to_attributes() for variant in self.variants],
            "place": list(self.place),
            "strides": list(self.strides),
        } | ({} if self.structure is None else {"structure": self.structure})


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """A module that fired, with everything recorded of it."""

    name: str
    module_class: str
    sites: tuple[SiteInfo, ...]

    @property
    def component(self) -> str:
        """The part of the pipeline it belongs to."""
        return self.name.split(".", 1)[0]

    @property
    def site(self) -> SiteInfo:
        """The module's first output, or whatever was recorded first."""
        return next((site for site in self.sites if site.port == "output" and not site.call), self.sites[0])

    @property
    def stored(self) -> bool:
        """Whether any of its tensors was kept."""
        return any(site.array for site in self.sites)


@dataclass(frozen=True, slots=True)
class SchedulerInfo:
    """A scheduler of the run."""

    kind: str
    """Its class."""
    config: Mapping[str, Any]
    """Plain values of its configuration; empty where it has none, and in older traces."""

    @classmethod
    def all_of(cls, kinds: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, SchedulerInfo]:
        """Read them from the root's attributes; older traces have only their classes."""
        found = {str(name): cls(str(kind), {}) for name, kind in kinds.items()}
        for name, entry in settings.items():
            if isinstance(entry, Mapping):
                config = entry.get("config")
                found[str(name)] = cls(str(entry.get("class", "")), config if isinstance(config, Mapping) else {})
        return found


@dataclass(frozen=True, slots=True)
class LatentsChange:
    """Latents that were changed between two steps: by a callback, a blend of inpainting, a loop of the user's own."""

    step: int
    """The step that began with other latents than those that the step before had returned."""
    call: int
    """Which of the schedulers that step within a step, as in "latents_call1"."""
    max_abs: float
    """Largest difference; NaN where there is none to take, as of another shape."""
    relative: float
    """‖change‖ / ‖latents returned‖, or NaN likewise."""

    @classmethod
    def from_attributes(cls, values: Mapping[str, Any]) -> LatentsChange | None:
        """Read one from the list in the root's attributes; None where it does not say which step."""
        step, call = values.get("step"), values.get("call", 0)
        if not isinstance(step, int) or not isinstance(call, int):
            return None
        numbers = (values.get(name) for name in ("max_abs", "relative"))
        return cls(step, call, *(float(n) if isinstance(n, int | float) else math.nan for n in numbers))


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """The head of a trace."""

    format_version: int
    status: str
    """ "recording", "complete", "failed" (the run raised), "interrupted" (Ctrl-C), "incomplete" (the store failed)."""
    title: str
    """Where the tracer was started, "script.py:12"."""
    pipeline: str
    components: Mapping[str, str]
    """Class of each component."""
    covers: Mapping[str, tuple[str, ...]]
    """Classes of what a component was called through, such as `torch.compile`'s, the outermost first."""
    schedulers: Mapping[str, SchedulerInfo]
    """The pipeline's own schedulers, and others that stepped."""
    latents_changed: tuple[LatentsChange, ...]
    """Where a step did not begin with the latents that the one before had ended with."""
    call: Mapping[str, Any]
    """Arguments of the pipeline call that are numbers or text."""
    capture: Mapping[str, Any]
    versions: Mapping[str, str]
    planned_steps: int
    guidance: Mapping[str, Any]
    """Per denoiser: the branches in the order of the batch, or of the calls, and what proves them."""
    batches: Mapping[str, Any]
    """Per denoiser what its calls were conditioned on, from which step on: see `tracer.batches`."""
    runs: tuple[Mapping[str, Any], ...]
    """Calls of the pipeline: the first step of each, and its arguments that are numbers or text."""
    error: Mapping[str, Any]
    """Exception that ended the run: type, message, module, step. Empty when there was none."""
    compiled: Mapping[str, Any]
    """Of modules given to `torch.compile`: `how` they ran ("eager" or "keep"), `modules`, and the `unseen` in them."""
    modules_changed: tuple[Mapping[str, Any], ...]
    """Modules that were added, removed or replaced within the block: after which step, how many, and some names."""
    gaps: tuple[Mapping[str, Any], ...]
    """What could not be recorded: `site` ("" where it is many), `reason`, `count` of tensors, and `steps`.

    `steps` lists first and last step of each run of them, or is their number where that would be a long list; it is
    empty of what fired outside of the loop.
    """
    taps: tuple[str, ...]
    tap_failures: tuple[Mapping[str, Any], ...]
    preview: Mapping[str, Any]
    """How previews were made: method, R² of the fit, and the reason where it is no fit, or there are none."""
    started: str
    seconds: float | None
    memory: Mapping[str, int]
    """Of copies on their way to the disk, in bytes: `budget`, and `peak`, the most there were; empty until the end."""
    process: Mapping[str, Any]
    """The process that writes it, as `process.describe_process` has it; empty where it is not known."""

    @property
    def arguments(self) -> tuple[Mapping[str, Any], ...]:
        """What each call of the pipeline was given, defaults included where the trace has them; at least one."""
        told = (run.get("call") for run in self.runs)
        return tuple(call for call in told if isinstance(call, Mapping)) or (self.call,)

    @classmethod
    def from_attributes(cls, values: Mapping[str, Any]) -> TraceInfo:
        """Read the head from the root's attributes."""

        def mapping(key: str) -> Mapping[str, Any]:
            value = values.get(key)
            return value if isinstance(value, Mapping) else {}

        def mappings(key: str) -> tuple[Mapping[str, Any], ...]:
            return _mappings(values.get(key))

        seconds, planned, taps = (values.get(key) for key in ("seconds", "planned_steps", "taps"))
        return cls(
            format_version=int(values.get("format_version", 0)),
            status=str(values.get("status", "unknown")),
            title=str(values.get("title", "")),
            pipeline=str(values.get("pipeline", "")),
            components={str(name): str(kind) for name, kind in mapping("components").items()},
            covers={name: _texts(kinds) for name, kinds in mapping("covers").items() if _texts(kinds)},
            schedulers=SchedulerInfo.all_of(mapping("schedulers"), mapping("scheduler_settings")),
            latents_changed=tuple(filter(None, map(LatentsChange.from_attributes, mappings("latents_changed")))),
            call=mapping("call"),
            capture=mapping("capture"),
            versions={str(name): str(version) for name, version in mapping("versions").items()},
            planned_steps=planned if isinstance(planned, int) else 0,
            guidance=mapping("guidance"),
            batches=mapping("batches"),
            runs=mappings("runs"),
            error=mapping("error"),
            compiled=mapping("compiled"),
            modules_changed=mappings("modules_changed"),
            gaps=tuple(map(_gap, mappings("gaps"))),
            taps=tuple(str(tap) for tap in taps) if isinstance(taps, list) else (),
            tap_failures=mappings("tap_failures"),
            preview=mapping("preview"),
            started=str(values.get("started", "")),
            seconds=float(seconds) if isinstance(seconds, int | float) else None,
            memory=_sizes(mapping("memory")),
            process=mapping("process"),
        )


def _sizes(values: Mapping[str, Any]) -> dict[str, int]:
    """Budget and peak, where both are numbers of bytes."""
    known = {name: values.get(name) for name in ("budget", "peak")}
    sizes = {name: size for name, size in known.items() if type(size) is int and size >= 0}
    return sizes if len(sizes) == len(known) else {}


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()
