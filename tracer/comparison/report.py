"""A comparison of two traces as text: Markdown for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, get_args

import numpy as np

from ..errors import ComparisonError
from ..info import printable
from ..text import number
from .divergence import Comparison, Divergence, Evidence
from .facts import facts

__all__ = ["FORMS", "Form", "entry_of", "report"]

Form = Literal["markdown", "json", "csv"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)
_MOST_ROWS: Final = 50


def report(comparison: Comparison, form: Form, tolerance: float | None = None) -> str:
    """What a comparison has found so far.

    Args:
        comparison: Two traces; run it first, else the distances are those of statistics alone.
        form: "markdown" (a summary, with the layers over the tolerance), "json" (the same with every layer), "csv" (a
            line for every layer and step).
        tolerance: Largest relative L2 distance that passes; by default what rounding explains.

    Raises:
        ComparisonError: There is no such form.
    """
    if form == "markdown":
        return _markdown(comparison, tolerance)
    if form == "json":
        return json.dumps(_document(comparison, tolerance), indent=1, ensure_ascii=False) + "\n"
    if form == "csv":
        return _csv(comparison)
    raise ComparisonError(f"no report as {form!r}; choose from {', '.join(FORMS)}")


def _document(comparison: Comparison, tolerance: float | None) -> dict[str, Any]:
    table = comparison.table
    limits, over = table.limits(tolerance), table.is_over(tolerance)
    first, worst = table.first_over(tolerance), table.worst()
    return {
        "a": str(comparison.a.path),
        "b": str(comparison.b.path),
        "tolerance": tolerance,
        "facts": [{"name": f.name, "a": f.a, "b": f.b, "same": f.same} for f in facts(comparison.a, comparison.b)],
        "steps": {
            "linked_by": table.links.by,
            "pairs": [list(pair) for pair in table.links.pairs],
            "only_a": list(table.links.only_a),
            "only_b": list(table.links.only_b),
        },
        "first_over": None if first is None else entry_of(first),
        "worst": None if worst is None else entry_of(worst),
        "layers_over": int(over.any(axis=1).sum()),
        "layers": [
            {
                "site": pair.a.key,
                "site_b": pair.b.key,
                "problem": pair.problem,
                "tolerance": float(limits[row, int(np.argmax(over[row]))]),
                "first_over": int(np.argmax(over[row])) if over[row].any() else None,
                "steps": [entry_of(divergence) for divergence in _row(comparison, row)],
            }
            for row, pair in enumerate(table.pairing.pairs)
        ],
        "only_a": [site.key for site in table.pairing.only_a],
        "only_b": [site.key for site in table.pairing.only_b],
        "errors": [
            {"site": table.pairing.pairs[row].a.key, "link": link, "error": error}
            for (row, link), error in table.errors.items()
        ],
    }


def entry_of(divergence: Divergence) -> dict[str, Any]:
    """One layer at one step. JSON has neither infinity nor NaN: they become "inf" and null."""
    distance = divergence.distance
    numbers = {
        "relative_l2": distance.relative_l2,
        "cosine": distance.cosine,
        "max_abs": distance.max_abs,
        "over": distance.over,
        "histogram": divergence.histogram,
    }
    shape = divergence.shape
    place = np.unravel_index(distance.where, shape) if divergence.evidence == Evidence.TENSOR and shape else ()
    return {
        "site": divergence.pair.a.key,
        "step_a": divergence.steps[0] if divergence.steps else None,
        "step_b": divergence.steps[1] if divergence.steps else None,
        "evidence": divergence.evidence.name.lower(),
        **{name: "inf" if math.isinf(v) else None if math.isnan(v) else v for name, v in numbers.items()},
        "where": [int(index) for index in place],
    }


def _row(comparison: Comparison, row: int) -> Iterator[Divergence]:
    table = comparison.table
    stepped = table.pairing.pairs[row].a.stepped
    for link in range(len(table.links.pairs) if stepped else 1):
        if table.evidence[row, link]:
            yield table.at(row, link)


def _csv(comparison: Comparison) -> str:
    text = io.StringIO()
    names = ["site", "step_a", "step_b", "evidence", "relative_l2", "cosine", "max_abs", "over", "histogram", "where"]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in range(len(comparison.table)):
        for divergence in _row(comparison, row):
            entry = entry_of(divergence)
            entry["site"], entry["where"] = printable(entry["site"]), " ".join(map(str, entry["where"]))
            writer.writerow(entry)
    return text.getvalue()


def _markdown(comparison: Comparison, tolerance: float | None) -> str:
    table = comparison.table
    over = table.is_over(tolerance)
    count, pairing = int(over.any(axis=1).sum()), table.pairing
    first, worst = table.first_over(tolerance), table.worst()
    told = "that of the coarsest dtype on each layer's way" if tolerance is None else f"{tolerance:g}"
    lines = [
        f"# {_cell(comparison.a.name)} ↔ {_cell(comparison.b.name)}",
        "",
        f"Relative L2 distance ‖A − B‖ / ‖A‖, tolerance {told}. {count} of {len(pairing.pairs)} tensors are over it.",
        "",
        f"- Steps: {len(table.links.pairs)}, linked by {table.links.by}",
        f"- First: {_place(first)}",
        f"- Worst: {_place(worst)}",
        f"- In A only: {len(pairing.only_a)} tensors, steps {_steps(table.links.only_a)}",
        f"- In B only: {len(pairing.only_b)} tensors, steps {_steps(table.links.only_b)}",
        f"- Could not be read: {len(table.errors)}",
        "",
        "| | A | B |",
        "|---|---|---|",
        *(
            f"| {_cell(fact.name)} | {_cell(fact.a)} | {'same' if fact.same else _cell(fact.b)} |"
            for fact in facts(comparison.a, comparison.b)
        ),
        "",
    ]
    shown = table.first_steps(tolerance)[:_MOST_ROWS, 0]
    if len(shown):
        lines += [
            "| layer | first step | largest rel L2 | least cosine | largest difference | from |",
            "|---|---|---|---|---|---|",
        ]
    for row in map(int, shown):
        found = [divergence for divergence in _row(comparison, row) if not math.isnan(divergence.distance.relative_l2)]
        most = max(found, key=lambda divergence: divergence.distance.relative_l2)
        start = table.at(row, int(np.argmax(over[row])))
        cells = [
            _cell(pairing.pairs[row].a.key),
            str(start.steps[0]) if start.steps else "–",
            _number(most.distance.relative_l2),
            _number(_extreme(np.min, [divergence.distance.cosine for divergence in found])),
            _number(_extreme(np.max, [divergence.distance.max_abs for divergence in found])),
            most.evidence.name.lower(),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if count > len(shown):
        lines.append(f"\n{count - len(shown)} more are over the tolerance, all later.")
    return "\n".join(lines).rstrip() + "\n"


def _place(divergence: Divergence | None) -> str:
    if divergence is None:
        return "none"
    when = f"step {divergence.steps[0]}" if divergence.steps else "outside of the loop"
    least = "at least " if divergence.evidence != Evidence.TENSOR else ""
    return f"`{_cell(divergence.pair.a.key)}`, {when}, {least}{_number(divergence.distance.relative_l2)}"


def _extreme(choose: Callable[[Any], Any], values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(choose(known)) if known else math.nan


def _number(value: float) -> str:
    return "∞" if math.isinf(value) else number(float(value))


def _steps(steps: tuple[int, ...]) -> str:
    return ", ".join(map(str, steps)) or "none"


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|").replace("`", "'")
