"""Choose sites of a trace by glob, as several commands do."""

from __future__ import annotations

import argparse

from ..capture import matches
from ..errors import SiteNotFoundError, near_matches
from ..info import SiteInfo
from ..trace import Trace

__all__ = ["add_glob_argument", "select"]


def add_glob_argument(parser: argparse.ArgumentParser) -> None:
    """The optional pattern on module paths."""
    parser.add_argument(
        "glob",
        metavar="GLOB",
        nargs="?",
        default="**",
        help='modules by path, such as "unet.mid_block" or "unet.**.attn2": * is one part, ** any number of parts',
    )


def select(trace: Trace, glob: str) -> list[SiteInfo]:
    """The sites whose module (or key) matches, in call order.

    Raises:
        SiteNotFoundError: Nothing matches; the message lists near matches.
    """
    fits = matches(glob)
    found = [site for module in trace.modules.values() for site in module.sites if fits(site.name) or fits(site.key)]
    if not found and trace.modules:
        plain = glob.replace("*", "").strip(".")
        raise SiteNotFoundError(f"{glob!r} matches no module of {trace.path}.{near_matches(plain, trace.modules)}")
    return found
