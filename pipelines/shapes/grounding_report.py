"""The grounding report as Markdown: what `grounding` measured, in tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["ALL_STEPS", "WORD_CLASSES", "as_markdown"]

ALL_STEPS = "all steps, all layers"
"""What `Trace.word_map` gives when nothing is chosen, averaged over the steps."""

_AGAINST = {
    ALL_STEPS: "`word_map`",
    "random": "random map",
    "uniform": "uniform map",
    "mask": "the mask, on the map's grid",
}
_FIGURES = {
    "pointing": "Pointing game: how often the brightest cell of the map touches the mask.",
    "pixel": "Pointing game to the pixel: how often the brightest pixel of the enlarged map lies in the mask.",
    "iou": "IoU at equal area, of the mask and as many of the enlarged map's brightest pixels as it has.",
}

_INTRODUCTION = (
    "{captions} held-out captions were drawn ({sampler[scheduler]}, {sampler[steps]} steps, guidance "
    '{sampler[guidance]}) and traced. The map of each word, `trace.word_map(word).mean("step")`, is compared with the '
    "pixels of what it names, which `judge.py` finds in the picture. {left_out} pictures were left out, because an "
    "object of the asked colour and shape was not to be found; {used} remain."
)
_SUPERVISION = (
    "**Colour, shape and size words were supervised**: a loss in training rewarded their attention for lying on their "
    "object. Their figures show that reading maps works, and say nothing about other models. Background, relation and "
    "position words were not. Relations and positions have no region of their own; theirs are, by definition, the "
    "objects they are about."
)
_COMPARISON = (
    "A map has {rows}×{columns} cells. A random map has noise in them; of a uniform one the brightest places are drawn "
    "by lot. The last column puts the mask itself in place of the map: more is not to be expected of so few cells."
)


@dataclass(frozen=True, slots=True)
class _WordClass:
    supervised: bool
    mask: str


WORD_CLASSES = {
    "colour": _WordClass(supervised=True, mask="its object"),
    "shape": _WordClass(supervised=True, mask="its object"),
    "size": _WordClass(supervised=True, mask="its object"),
    "background": _WordClass(supervised=False, mask="what no object covers"),
    "relation": _WordClass(supervised=False, mask="both objects"),
    "position": _WordClass(supervised=False, mask="the object"),
}
"""By kind of word."""


def as_markdown(report: dict[str, Any]) -> str:
    """The report of `grounding.measure` to read."""
    classes = report["classes"]
    rows, columns = report["grid"]
    used = report["captions"] - report["left_out"]
    lines = [
        "# Where the words of the embedded model look",
        "",
        _INTRODUCTION.format(used=used, **report),
        "",
        _SUPERVISION,
        "",
        "| words | supervised | number | mask | share of the picture |",
        "|---|---|---|---|---|",
    ]
    for kind, found in classes.items():
        supervised = "yes" if found["supervised"] else "no"
        lines.append(f"| {kind} | {supervised} | {found['words']} | {found['mask']} | {found['area']:.1%} |")
    for figure, told in _FIGURES.items():
        lines += ["", f"{told}", "", *_table("words", list(_AGAINST.values()))]
        for kind, found in classes.items():
            lines.append(_row(kind, [found["scores"][source][figure] for source in _AGAINST]))
    lines += [
        "",
        _COMPARISON.format(rows=rows, columns=columns),
        "",
        "Shape words by shape. The middle of a ring is no part of it.",
        "",
        *_table("shape", ["number", "pointing", "to the pixel", "IoU"]),
    ]
    for shape, found in report["shapes"].items():
        figures = [found[figure] for figure in _FIGURES]
        lines.append(f"| {shape} | {found['words']} | " + " | ".join(map(_number, figures)) + " |")
    lines += ["", "Other choices of steps and layers: pointing, IoU.", "", *_table("maps", list(classes))]
    sources = next(iter(classes.values()))["scores"]
    for source in (source for source in sources if source == ALL_STEPS or source not in _AGAINST):
        pairs = [found["scores"][source] for found in classes.values()]
        lines.append(
            f"| {source} | " + " | ".join(f"{pair['pointing']:.3f}, {pair['iou']:.3f}" for pair in pairs) + " |"
        )
    lines += ["", *_table("target", ["at least", "reached", "outcome"])]
    for target in report["targets"]:
        outcome = "met" if target["met"] else "**missed**"
        lines.append(f"| {target['name']} | {target['least']} | {_number(target['reached'])} | {outcome} |")
    versions = ", ".join(f"{name} {value}" for name, value in report["versions"].items())
    return "\n".join([*lines, "", f"Measured with {versions}.", ""])


def _table(first: str, columns: list[str]) -> list[str]:
    return [f"| {first} | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]


def _row(label: str, figures: list[float]) -> str:
    return f"| {label} | " + " | ".join(map(_number, figures)) + " |"


def _number(value: float) -> str:
    return f"{value:.3f}"
