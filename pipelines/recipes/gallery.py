"""Every recipe, one after another, and a page of what they show."""

from __future__ import annotations

import argparse
import base64
import gc
import html
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from tqdm import tqdm

from diffusion_xray.tracer.commands.protocol import print_json
from diffusion_xray.tracer.errors import DxrayError
from diffusion_xray.tracer.info import printable

from .command import parse
from .lab import Shown
from .options import described
from .outcome import Outcome, perform
from .registry import Listed, list_recipes, load_recipe

__all__ = ["Entry", "render", "run_all"]

_PAGE = Path(__file__).with_name("gallery.html")


@dataclass(frozen=True, slots=True)
class Entry:
    """A recipe on the page."""

    listed: Listed
    text: str = ""
    """Its explanation."""
    outcome: Outcome | None = None
    error: str = ""
    """Why there is no outcome."""


def run_all(options: argparse.Namespace) -> int:
    """Run every recipe with its defaults and write the gallery; the exit code is 1 when one of them failed."""
    entries: list[Entry] = []
    bar = tqdm(list_recipes(), unit="recipe", disable=options.json)
    for listed in bar:
        bar.set_description(listed.name)
        entries.append(_attempt(listed, options))
        _write(options.out / "index.html", render(entries))
        gc.collect()  # traced modules and their hooks refer to one another
    failed = [entry for entry in entries if entry.outcome is None]
    if options.json:
        done = [entry.outcome.as_json() for entry in entries if entry.outcome]
        print_json([*done, *({"recipe": entry.listed.name, "error": entry.error} for entry in failed)])
    else:
        print(printable(options.out / "index.html"))
    for entry in failed:
        print(printable(f"dxray: {entry.listed.name}: {entry.error}"), file=sys.stderr)
    return 1 if failed else 0


def render(entries: Sequence[Entry]) -> str:
    """The page, with everything in it."""
    parts, chapter = [], ""
    for entry in entries:
        if entry.listed.chapter != chapter:
            chapter = entry.listed.chapter
            parts.append(f"<h2>{html.escape(chapter.replace('_', ' '))}</h2>")
        parts.append(_section(entry))
    links = " ".join(
        f'<a href="#{html.escape(entry.listed.name)}">{html.escape(entry.listed.name)}</a>' for entry in entries
    )
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(links=links, sections="\n".join(parts))


def _attempt(listed: Listed, options: argparse.Namespace) -> Entry:
    """One entry of the gallery; an error of a recipe does not end the others."""
    text = ""
    try:
        recipe = load_recipe(listed.name)
        text = described(recipe.function)[0].partition("\n")[2].strip()
        return Entry(listed, text, perform(recipe, parse(recipe, options, [])))
    except DxrayError as error:
        return Entry(listed, text, error=str(error))
    except Exception as error:  # noqa: BLE001 — told at the end, and on the page
        return Entry(listed, text, error=f"{type(error).__name__}: {error}")


def _section(entry: Entry) -> str:
    name, summary, text = map(html.escape, (entry.listed.name, entry.listed.summary, entry.text))
    if entry.outcome is None:
        body = f'<p class="error">{html.escape(entry.error)}</p>'
    else:
        findings = "".join(f"<li>{html.escape(str(finding))}</li>" for finding in entry.outcome.findings)
        commands = [entry.outcome.command, *(f"dxray view {path}" for path in entry.outcome.traces)]
        shown = "".join(map(_figure, entry.outcome.figures))
        body = f"{shown}<ul>{findings}</ul><pre>{html.escape(chr(10).join(commands))}</pre>"
    details = f"<details><summary>how it works</summary><pre>{text}</pre></details>" if text else ""
    return f'<section id="{name}"><h3>{name}</h3><p>{summary}</p>{body}{details}</section>'


def _figure(shown: Shown) -> str:
    kind = shown.file.suffix.removeprefix(".")
    data = base64.b64encode(shown.file.read_bytes()).decode("ascii")
    caption = html.escape(shown.caption)
    picture = f'<img src="data:image/{kind};base64,{data}" alt="{caption}">'
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _write(path: Path, text: str) -> None:
    """Write the page, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
