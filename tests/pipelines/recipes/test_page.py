"""The page of the gallery."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from diffusion_xray.pipelines.recipes.lab import Finding, Shown
from diffusion_xray.pipelines.recipes.outcome import Outcome
from diffusion_xray.pipelines.recipes.page import Entry, Page
from diffusion_xray.pipelines.recipes.registry import Listed

VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Every tag that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what is opened."""
        found = dict(attrs)
        self.links += [value for name, value in attrs if name == "href" and value]
        self.ids += [found["id"] or ""] if "id" in found else []
        self.sources += [found["src"] or ""] if "src" in found else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close what is open."""
        assert self.open.pop() == tag


@pytest.fixture
def page(tmp_path: Path) -> Page:
    """Two chapters; one recipe has failed."""
    Image.new("RGB", (2, 2), "red").save(tmp_path / "picture.png")
    Image.new("P", (2, 2)).save(tmp_path / "film.gif")
    figures = (Shown(tmp_path / "picture.png", 'A "red" <picture>'), Shown(tmp_path / "film.gif", "A film"))
    outcome = Outcome(
        recipe="soup",
        model=None,
        seconds=75.2,
        findings=(Finding("share of <leek>", 12.34567, "%"),),
        figures=figures,
        traces=(tmp_path / "my soup" / "trace.zarr",),
        command="dxray run soup --name 'a & b'",
    )
    text = "Stirred < twice.\n\n  t = n * s\n\n  Cook 1999; https://example.org/a?b=1&c=2\n\nThen <b>eaten</b>."
    entries = [Entry(Listed("soup", "kitchen", "Soup: <hot>"), text, outcome)]
    entries += [Entry(Listed("cake", "bakery", "Cake"), "", error="no <flour>")]
    return Page(None, 5, {"kitchen": "From the <kitchen>.", "bakery": ""}, entries, seconds=80.0)


def test_it_is_one_whole_file(page: Page) -> None:
    """Pictures are in it, nothing is fetched, tags are balanced, and links within lead to sections."""
    checker = Checker()
    checker.feed(page.html())
    assert checker.open == []
    assert [source.partition(",")[0] for source in checker.sources] == [
        "data:image/png;base64",
        "data:image/gif;base64",
    ]
    data = base64.b64decode(checker.sources[0].partition(",")[2])
    assert data == page.entries[0].outcome.figures[0].file.read_bytes()  # type: ignore[union-attr]
    assert [link for link in checker.links if link.startswith("#")] == ["#soup", "#cake"]
    assert {"soup", "cake"} <= set(checker.ids)
    assert re.findall(r"url\(|@import|<link|<script", page.html()) == []


def test_what_is_in_a_section(page: Page) -> None:
    """Summary, figures with captions, numbers, the commands that run and open it, and the folded explanation."""
    html = page.html()
    assert "<h3>Soup: &lt;hot&gt;</h3>" in html
    assert "A &quot;red&quot; &lt;picture&gt;</figcaption>" in html
    assert "<tr><td>share of &lt;leek&gt;</td><td>12.35 %</td></tr>" in html
    assert "$ dxray run soup --name &#x27;a &amp; b&#x27;\n$ dxray view &#x27;" in html
    assert "<details><summary>How it works</summary><p>Stirred &lt; twice.</p><pre>t = n * s</pre>" in html
    assert '<a href="https://example.org/a?b=1&amp;c=2">' in html
    assert "Then &lt;b&gt;eaten&lt;/b&gt;." in html
    assert '<p class="error">no &lt;flour&gt;</p>' in html
    assert "1 of 5 recipes, on the embedded model, 1 failed, in 1 min 20 s" in html


def test_a_picture_that_is_gone(page: Page) -> None:
    """A figure that was taken away since is told of; the page is there."""
    outcome = page.entries[0].outcome
    assert outcome is not None
    outcome.figures[0].file.unlink()
    assert f"{outcome.figures[0].file} is gone" in page.html()
