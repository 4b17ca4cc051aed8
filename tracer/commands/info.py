"""``dxray info``."""

from __future__ import annotations

import argparse

from ..description import describe, describe_in_lines
from ..info import printable
from ..trace import open_trace
from .protocol import add_trace_argument, print_json

__all__ = ["Info"]


class Info:
    """Say what a trace holds: pipeline, prompts, steps, size, faults, gaps.

    Shows how the run ended, how it was called, which guidance branches share a batch, how previews were made, what
    could not be recorded and why, and the first place where a value was not finite.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        add_trace_argument(parser)

    def run(self, options: argparse.Namespace) -> int:
        trace = open_trace(options.trace)
        if options.json:
            print_json(describe(trace))
        else:
            for label, text in describe_in_lines(trace):
                print(printable(f"{label:12} {text}"))
        return 0
