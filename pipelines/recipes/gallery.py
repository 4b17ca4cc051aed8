"""Every recipe, one after another, and a page of what they show."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from diffusion_xray.tracer.commands.protocol import print_json
from diffusion_xray.tracer.errors import DxrayError, StoreError
from diffusion_xray.tracer.info import printable

from .options import described, parse
from .outcome import perform, told
from .page import Entry, Page
from .registry import Listed, chapter_summary, list_recipes, load_recipe
from .sheet import contact_sheet

__all__ = ["run_all"]


def run_all(options: argparse.Namespace, recipes: Sequence[Listed] | None = None) -> int:
    """Run recipes with their defaults and write the gallery; the exit code is 1 when one of them failed.

    The page is there from the first recipe on, so that whatever ends the run leaves what was done. A sheet of the first
    figures comes last.

    Args:
        options: Options of every recipe.
        recipes: Which; None for all that are installed.

    Raises:
        StoreError: The page cannot be written.
    """
    found = list_recipes() if recipes is None else list(recipes)
    chapters = {listed.chapter: chapter_summary(listed.name) for listed in reversed(found)}
    page = Page(options.model, len(found), chapters)
    path: Path = options.out / "index.html"
    _write(path, page.html().encode())  # before hours of work: can it be written?
    started = time.monotonic()
    bar = tqdm(found, unit="recipe", disable=options.json)
    try:
        for listed in bar:
            bar.set_description(listed.name)
            page.entries.append(_attempt(listed, options))
            page.seconds = time.monotonic() - started
            _write(path, page.html().encode())
            for _ in range(2):  # traced modules and their hooks refer to one another; figures go in the second round
                gc.collect()
    except KeyboardInterrupt:
        print(printable(f"dxray: {len(page.entries)} of {len(found)} recipes are in {path}"), file=sys.stderr)
        raise
    _write(options.out / "gallery.png", contact_sheet(page.entries))
    failed = [entry for entry in page.entries if entry.outcome is None]
    if options.json:
        done = [entry.outcome.as_json() for entry in page.entries if entry.outcome]
        print_json([*done, *({"recipe": entry.listed.name, "error": entry.error} for entry in failed)])
    else:
        print(printable(path))
    for entry in failed:
        print(printable(f"dxray: {entry.listed.name}: {entry.error}"), file=sys.stderr)
    return 1 if failed else 0


def _attempt(listed: Listed, options: argparse.Namespace) -> Entry:
    """One entry of the gallery; an error of a recipe does not end the others."""
    text = ""
    try:
        recipe = load_recipe(listed.name)
        text = described(recipe.function)[0].partition("\n")[2].strip()
        return Entry(listed, text, perform(recipe, parse(recipe, options, [])))
    except DxrayError as error:
        return Entry(listed, text, error=str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 — told at the end, and on the page
        return Entry(listed, text, error=told(error))


def _write(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}; choose another --out") from error
