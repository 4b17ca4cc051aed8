"""What two runs have in common, and where they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..description import describe_changes
from ..info import SiteInfo
from ..layout import LATENTS
from ..trace import Trace
from .distance import Tolerance, measure

__all__ = ["Fact", "facts"]


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that two runs have in common, or not."""

    name: str
    a: str
    b: str

    @property
    def same(self) -> bool:
        """Whether it holds of both."""
        return self.a == self.b


def facts(a: Trace, b: Trace) -> tuple[Fact, ...]:
    """What two runs have in common and where they differ: model, steps, dtype, noise, prompt, arguments, versions.

    A trace does not hold the seed; the latents that the first step was given tell whether it began with the same.
    """
    both = (a, b)
    found = {
        "pipeline": [trace.info.pipeline for trace in both],
        "model": [", ".join(f"{k} {v}" for k, v in trace.info.components.items()) for trace in both],
        "called through": [_covers(trace) for trace in both],
        "layers": [str(len(trace.modules)) for trace in both],
        "steps": [str(trace.n_steps) for trace in both],
        "dtype": [_dtypes(trace) for trace in both],
        "schedule": [" ".join(f"{t:g}" for t in trace.timestep) for trace in both],
        **_schedulers(a, b),
        "noise": _noise(a, b),
        "latents changed": [describe_changes(trace.info.latents_changed) for trace in both],
        "prompt": [_prompt(trace) for trace in both],
    }
    told = {"prompt", "negative_prompt", "num_inference_steps"}
    for key in sorted({*a.info.call, *b.info.call} - told):
        found[key] = [_argument(trace, key) for trace in both]
    for key in sorted({*a.info.versions, *b.info.versions}):
        found[f"{key} version"] = [trace.info.versions.get(key, "–") for trace in both]
    return tuple(Fact(name, *values) for name, values in found.items() if any(values))


def _covers(trace: Trace) -> str:
    return ", ".join(f"{name} in {' in '.join(reversed(kinds))}" for name, kinds in trace.info.covers.items())


def _schedulers(a: Trace, b: Trace) -> dict[str, list[str]]:
    """The class of each scheduler, and of its configuration what differs where both are known."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys([*a.info.schedulers, *b.info.schedulers]):
        pair = [trace.info.schedulers.get(name) for trace in (a, b)]
        found[name] = [scheduler.kind if scheduler else "–" for scheduler in pair]
        configs = [scheduler.config if scheduler else {} for scheduler in pair]
        if all(configs):
            for key in sorted({*configs[0], *configs[1]}):
                values = [str(config.get(key, "–")) for config in configs]
                if values[0] != values[1]:
                    found[f"{name} {key}"] = values
    return found


def _noise(a: Trace, b: Trace) -> list[str]:
    """The latents that the first step was given, the same or not; nothing where they are not stored."""
    found: list[Any] = [trace.step_array(LATENTS, 0) if trace.n_steps else None for trace in (a, b)]
    if any(latents is None for latents in found):
        return ["", ""]
    tolerance = Tolerance.of(*(site.torch_dtype for trace in (a, b) for site in _first_latents(trace)))
    same = (
        found[0].shape == found[1].shape
        and measure([(found[0], found[1])], tolerance).relative_l2 <= tolerance.relative
    )
    return ["first latents", "first latents" if same else "other first latents"]


def _first_latents(trace: Trace) -> tuple[SiteInfo, ...]:
    return trace.modules[LATENTS].sites[:1] if LATENTS in trace.modules else ()


def _dtypes(trace: Trace) -> str:
    kinds = {site.torch_dtype for module in trace.modules.values() for site in module.sites if site.stepped}
    return ", ".join(sorted(kind for kind in kinds if "float" in kind))


def _argument(trace: Trace, key: str) -> str:
    """What the pipeline was given; of several calls what each was, unless it is the same."""
    values = [str(call.get(key, "–")) for call in trace.info.arguments]
    return values[0] if len(set(values)) == 1 else ", then ".join(values)


def _prompt(trace: Trace) -> str:
    asked = [
        " | ".join(str(call[key]) for key in ("prompt", "negative_prompt") if call.get(key))
        for call in trace.info.arguments
    ]
    encoded = dict.fromkeys(text for prompt in trace.prompts for text in prompt.text)
    return ", then ".join(dict.fromkeys(filter(None, asked))) or " | ".join(filter(None, encoded))
