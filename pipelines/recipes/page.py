"""The page that shows what recipes have left: one file with its pictures in it."""

from __future__ import annotations

import base64
import html
import itertools
import re
import shlex
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from .lab import Finding, Shown
from .outcome import Outcome
from .registry import Listed

__all__ = ["Entry", "Page"]

_PAGE = Path(__file__).with_name("gallery.html")
_ADDRESS = re.compile(r"https?://[^\s<>\"]+[^\s<>\".,;:)]")


@dataclass(frozen=True, slots=True)
class Entry:
    """A recipe on the page."""

    listed: Listed
    text: str = ""
    """Its explanation."""
    outcome: Outcome | None = None
    error: str = ""
    """Why there is no outcome."""


@dataclass(slots=True)
class Page:
    """What has been run so far."""

    model: str | None
    """Hub id or folder; None is the embedded model."""
    planned: int
    """How many recipes there will be."""
    chapters: Mapping[str, str]
    """What each chapter is about."""
    entries: list[Entry] = field(default_factory=list)
    seconds: float = 0.0
    """How long it took."""

    def html(self) -> str:
        """The page, with everything in it."""
        links, sections = [], []
        for chapter, group in itertools.groupby(self.entries, key=lambda entry: entry.listed.chapter):
            title, about = _escaped(chapter.replace("_", " ")), _escaped(self.chapters.get(chapter, ""))
            entries = list(group)
            names = " ".join(f'<a href="#{_anchor(entry)}">{_escaped(entry.listed.name)}</a>' for entry in entries)
            links.append(f"<dt>{title}</dt><dd>{names}</dd>")
            sections.append(f'<header class="chapter"><h2>{title}</h2><p>{about}</p></header>')
            sections += map(_section, entries)
        page = Template(_PAGE.read_text(encoding="utf-8"))
        return page.substitute(state=_escaped(self._state()), links="\n".join(links), sections="\n".join(sections))

    def _state(self) -> str:
        done = sum(entry.outcome is not None for entry in self.entries)
        parts = [f"{done} of {self.planned} recipes", f"on {self.model or 'the embedded model'}"]
        if failed := len(self.entries) - done:
            parts.append(f"{failed} failed")
        return f"{', '.join(parts)}, in {_duration(self.seconds)}"


def _section(entry: Entry) -> str:
    outcome = entry.outcome
    if outcome is None:
        body = f'<p class="error">{_escaped(entry.error)}</p>'
    else:
        body = "".join(map(_figure, outcome.figures)) + _findings(outcome.findings) + _commands(outcome)
    details = f"<details><summary>How it works</summary>{_prose(entry.text)}</details>" if entry.text else ""
    title, name = _escaped(entry.listed.summary), _escaped(entry.listed.name)
    return f'<section id="{_anchor(entry)}"><h3>{title}</h3><p class="name">{name}</p>{body}{details}</section>'


def _figure(shown: Shown) -> str:
    caption, kind = _escaped(shown.caption), shown.file.suffix.removeprefix(".")
    try:
        data = base64.b64encode(shown.file.read_bytes()).decode("ascii")
    except OSError:  # taken away since
        return f'<p class="error">{_escaped(shown.file)} is gone</p>'
    picture = f'<img src="data:image/{kind};base64,{data}" alt="{caption}">'
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _findings(findings: tuple[Finding, ...]) -> str:
    cells = (f"<tr><td>{_escaped(finding.name)}</td><td>{_escaped(finding.number)}</td></tr>" for finding in findings)
    return f"<table>{''.join(cells)}</table>" if findings else ""


def _commands(outcome: Outcome) -> str:
    views = (shlex.join(["dxray", "view", str(path)]) for path in outcome.traces)
    lines = "\n".join(_escaped(f"$ {command}") for command in (outcome.command, *views))
    return f'<pre class="commands">{lines}</pre><p class="time">{_duration(outcome.seconds)}</p>'


def _prose(text: str) -> str:
    """A docstring as paragraphs; what is indented in it (formulas, sources) keeps its lines."""
    parts = []
    for block in re.split(r"\n\s*\n", text):
        escaped = _escaped(textwrap.dedent(block))
        words = _ADDRESS.sub(lambda found: f'<a href="{found[0]}">{found[0]}</a>', escaped)
        is_indented = all(line.startswith("  ") for line in block.splitlines())
        parts.append(f"<pre>{words}</pre>" if is_indented else f"<p>{words}</p>")
    return "".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _anchor(entry: Entry) -> str:
    return _escaped(entry.listed.name)


def _escaped(text: object) -> str:
    return html.escape(str(text))
