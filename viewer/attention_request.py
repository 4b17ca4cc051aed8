"""What ``dxray attention`` is asked for, looked up in a trace: shares as numbers, maps as drawings."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.attention.info import AttentionInfo
from diffusion_xray.tracer.attention.use import steps_text
from diffusion_xray.tracer.attention.word_map import Choice, layers_of, where_else
from diffusion_xray.tracer.attention.words import Word, find_phrase, unique
from diffusion_xray.tracer.commands.protocol import print_table
from diffusion_xray.tracer.errors import SiteNotFoundError
from diffusion_xray.tracer.info import printable
from diffusion_xray.tracer.trace import Trace

from .run_pictures import flat, picture_of, previews_of
from .terminal import has_colours

if TYPE_CHECKING:
    import xarray
    from PIL.Image import Image

__all__ = ["AttentionRequest", "Drawing"]

_FEW_STEPS = 5
_COLUMNS = 7


@dataclass(frozen=True, slots=True)
class Drawing:
    """What to show."""

    plate: Image
    """For a file."""
    pictures: tuple[tuple[str, NDArray[np.uint8]], ...]
    """For the terminal: each with a line of text above it, or ""."""
    caption: str


class AttentionRequest:
    """What the options ask of a trace."""

    def __init__(self, trace: Trace, options: argparse.Namespace) -> None:
        self._trace = trace
        self._asked: tuple[str, ...] = tuple(options.word or ())
        self._step: int | None = _step_of(trace, options.step)
        self._occurrence: int | None = options.occurrence
        self._grid: str | None = options.grid
        self._choice = {
            "layers": options.layer,
            "heads": options.head,
            "branch": options.branch,
            "image": options.image,
        }

    def elsewhere(self) -> str:
        """A sentence on the first word that only another prompt of the trace has, or ""."""
        choice = Choice(branch=self._choice["branch"], image=self._choice["image"])
        for word in self._asked:
            place = None if self._is_here(word) else where_else(self._trace.attentions, word, choice)
            if place is None:
                continue
            there, step = place
            if there.branch != choice.branch:
                image = f" --image {there.image}" if there.image != choice.image else ""
                return f" The prompt of the other branch has {word!r}: add --branch {there.branch}{image}."
            if there.image != choice.image:
                return f" Add --image {there.image}."
            return f" The prompt from step {step} on has {word!r}: add --step {step}."
        return ""

    def _is_here(self, word: str) -> bool:
        try:
            return bool(find_phrase(self._words(), word))
        except SiteNotFoundError:
            return False

    def facts(self) -> dict[str, Any]:
        """Shares, as JSON."""
        import xarray

        steps = self._steps(None)
        asked: tuple[str | None, ...] = self._asked or (None,)
        mass = xarray.concat([self._trace.word_mass(word, step=steps, **self._choice) for word in asked], "word")
        words = [] if self._asked else self._words()
        attentions = self._trace.attentions
        calls = {layer.name: layer.call for layer in layers_of(attentions, Choice(**self._choice), steps[0])}
        rows = [
            {
                "step": int(step),
                "layer": str(layer),
                "mass": {str(word): float(mass.values[at, row, n]) for n, word in enumerate(mass["word"].values)},
                "use": attentions.at(calls[str(layer)], int(step)).use.at(int(step)),
            }
            for at, step in enumerate(mass["step"].values)
            for row, layer in enumerate(mass["layer"].values)
        ]
        total = mass.mean(("step", "layer"))
        return {
            "trace": str(self._trace.path),
            "branch": self._choice["branch"],
            "image": self._choice["image"],
            "doubt": mass.attrs.get("doubt"),
            "mass": {str(word): float(value) for word, value in zip(total["word"].values, total.values, strict=True)},
            "positions": dict(zip(unique([w.text for w in words]), [list(w.positions) for w in words], strict=True)),
            "by_step_and_layer": rows,
        }

    def print_overview(self) -> None:
        """Words with their shares, then modules."""
        modules = self._trace.attention_modules
        try:
            steps = self._steps(_FEW_STEPS)
            mass = self._trace.word_mass(step=steps, **self._choice)
        except SiteNotFoundError as error:
            if not modules or self._choice["layers"] or self._choice["branch"] != "conditional":
                raise
            print(printable(error))
        else:
            average = mass.mean(("step", "layer")).values
            first, last = mass.isel(step=0).mean("layer").values, mass.isel(step=-1).mean("layer").values
            rows = [
                (str(word), _percent(average[n]), _percent(first[n]), _percent(last[n]))
                for n, word in enumerate(mass["word"].values)
            ]
            print_table(("word", "share", f"step {steps[0]}", f"step {steps[-1]}"), rows)
            layers = "1 layer" if mass.sizes["layer"] == 1 else f"{mass.sizes['layer']} layers"
            print(f"\nmean over {layers} at {_listed_steps(steps)}\n")
            _print_doubt(mass)
        for encoder, rest in _cut_off(self._trace):
            print(printable(f"{encoder} did not read all of the prompt; cut off: {rest!r}\n"))
        print_table(
            ("module", "attention", "heads", "queries", "keys", ""),
            [
                (*_row(form), self._remark(form))
                for calls in modules.values()
                for call in calls
                for form in self._forms(call)
            ],
        )

    def _forms(self, call: AttentionInfo) -> Sequence[AttentionInfo]:
        """What a call was like along the steps: each form that has a map, if any, of the complete steps."""
        steps = self._trace.n_steps
        forms = [form for form in self._trace.attentions.forms(call) if min(form.steps or (0,)) < max(steps, 1)]
        return [form for form in forms if not form.reason] or [call]

    def _remark(self, call: AttentionInfo) -> str:
        """Which steps it is of where not all are alike, and a word on maps that are not those of the run."""
        when = f"steps {steps_text(step for step in call.steps if step < self._trace.n_steps)}" if call.steps else ""
        doubt = "" if call.reason else self._trace.attentions.doubt([call])
        return "; ".join(filter(None, (when, doubt.split(":", 1)[0])))

    def map(self) -> Drawing:
        """One map."""
        from .plates import heat_over, plate, share

        word = self._one_word()
        found = self._trace.word_map(word, step=self._steps(None), occurrence=self._occurrence, **self._choice)
        heat, picture = flat(found.mean("step")), self._picture(found)
        title = word + ("" if self._occurrence is None else f" ({self._occurrence})")
        caption = self._caption(len(found.attrs["layers"]), len(_steps_with(found)))
        size = picture.shape[:2] if picture is not None else heat.shape
        high = float(np.nanmax(heat, initial=0))
        small = heat_over(heat, picture if has_colours() else None, high=high, size=(size[0], size[1]))
        doubt = str(found.attrs.get("doubt", ""))
        text = f"{title}: {caption}; brightest {share(high)}" + _on_its_own(doubt)
        return Drawing(plate(heat, picture, title=title, caption=caption, doubt=doubt), (("", small),), text)

    def grid(self) -> Drawing:
        """A table of maps."""
        from .plates import share, strip, table

        above = None
        if self._grid == "heads":
            if not self._asked:
                raise SiteNotFoundError("--grid heads shows one word: add --word WORD")
            word = self._one_word()
            found = self._trace.head_maps(word, step=self._steps(None), **self._choice)
            layers = found.sizes["layer"]
            rows = _short([str(layer) for layer in found["layer"].values])
            columns = [f"head {head}" for head in found["head"].values]
            title = f"{word}, in every layer and head"
        else:
            listed = self._words()
            words = list(dict.fromkeys(self._asked or (word.text for word in listed)))
            steps = self._steps(_COLUMNS)
            found = self._trace.word_map(words, step=steps, occurrence=self._occurrence, **self._choice)
            layers = len(found.attrs["layers"])
            rows, columns = words, [f"step {step}" for step in steps]
            seen = previews_of(self._trace, steps, int(self._choice["image"]))
            above = ("predicted x0", seen) if seen else None
            title = " ".join(word.text for word in listed if not word.special)
        picture = self._picture(found)
        caption = self._caption(layers, len(_steps_with(found))) + "; each row from 0 to the share at its end"
        heats = flat(found.mean("step") if self._grid == "heads" else found)
        doubt = str(found.attrs.get("doubt", ""))
        drawn = table(
            heats, picture, rows=rows, columns=columns, title=title, caption=caption, above=above, doubt=doubt
        )
        under = picture if has_colours() else None
        strips = tuple(
            (f"{row}, up to {share(float(np.nanmax(heat, initial=0)))}", strip(heat, under))
            for row, heat in zip(rows, heats, strict=True)
        )
        return Drawing(drawn, strips, f"{', '.join(columns)}\n{caption}" + _on_its_own(doubt))

    def _one_word(self) -> str:
        if len(self._asked) > 1:
            raise SiteNotFoundError(f"this draws one word, not {', '.join(self._asked)}; --grid words draws several")
        return self._asked[0]

    def _words(self) -> Sequence[Word]:
        return self._trace.words(branch=self._choice["branch"], image=self._choice["image"], step=self._step)

    def _steps(self, most: int | None) -> list[int]:
        """The step asked for, or all, or `most` of them from the first to the last."""
        if self._step is not None:
            return [self._step]
        count = self._trace.n_steps
        if not count:
            raise SiteNotFoundError(f"no step of {self._trace.path} is complete, so there is no attention of an image")
        if most is None or count <= most:
            return list(range(count))
        return [int(step) for step in np.linspace(0, count - 1, most).round()]

    def _picture(self, maps: xarray.DataArray) -> NDArray[np.uint8] | None:
        """What the call of the pipeline returned that the last of some maps are of."""
        last = max(_steps_with(maps), default=self._trace.n_steps - 1)
        return picture_of(self._trace, int(self._choice["image"]), last)

    def _caption(self, layers: int, steps: int) -> str:
        if self._step is None:
            when = (
                f"mean over {steps} step{'s' * (steps != 1)}"
                if self._grid != "words"
                else f"{self._trace.n_steps} steps"
            )
        else:
            timestep = self._trace.timestep[self._step]
            when = f"step {self._step} of {self._trace.n_steps}"
            when += f", t = {timestep:.0f}" if np.isfinite(timestep) else ""
        heads = "all heads" if self._choice["heads"] is None else f"head {self._choice['heads']}"
        heads = "" if self._grid == "heads" else f", {heads}"
        which = "" if self._choice["branch"] == "conditional" else f", {self._choice['branch']} branch"
        return f"{when}, {layers} layer{'s' * (layers != 1)}{heads}{which}"


def _steps_with(maps: xarray.DataArray) -> list[int]:
    """The steps that have a map: another call of the pipeline may not have had the word."""
    there = maps.notnull().any([dim for dim in maps.dims if dim != "step"])
    return [int(step) for step in maps["step"].values[there.values]]


def _on_its_own(doubt: str) -> str:
    """A doubt on a line of its own, or nothing."""
    return f"\n{doubt}" if doubt else ""


def _print_doubt(found: xarray.DataArray) -> None:
    if "doubt" in found.attrs:
        print(printable(str(found.attrs["doubt"])) + "\n")


def _step_of(trace: Trace, step: int | None) -> int | None:
    if step is None:
        return None
    if not -trace.n_steps <= step < trace.n_steps:
        known = f"its complete steps are 0 to {trace.n_steps - 1}" if trace.n_steps else "no step of it is complete"
        raise SiteNotFoundError(f"no step {step} in {trace.path}; {known}")
    return step % trace.n_steps


def _cut_off(trace: Trace) -> list[tuple[str, str]]:
    return [(prompt.encoder, rest) for prompt in trace.prompts for rest in prompt.cut if rest]


def _row(call: AttentionInfo) -> tuple[str, ...]:
    name = f"{call.module}:{call.call}" if call.call else call.module
    if call.reason:
        return name, "none", call.reason, "", ""
    return name, call.kind, str(len(call.heads)), _sequence(call.query_parts), _sequence(call.key_parts)


def _sequence(parts: Sequence[Any]) -> str:
    return " + ".join(f"{part.kind} {'×'.join(map(str, part.shape))}" for part in parts)


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.1f} %"


def _listed_steps(steps: Sequence[int]) -> str:
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {', '.join(map(str, steps))}"


def _short(paths: Sequence[str]) -> list[str]:
    """Paths without the parts that all have in common at both ends."""
    split = [path.split(".") for path in paths]
    if len(paths) < 2:
        return list(paths)
    start, end = _shared(split), _shared([parts[::-1] for parts in split])
    return [".".join(parts[start : max(len(parts) - end, start + 1)]) for parts in split]


def _shared(paths: Sequence[Sequence[str]]) -> int:
    """How many parts all begin with."""
    return sum(1 for _ in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False)))
