"""``dxray info``."""

from __future__ import annotations

import argparse

from ..description import describe, tell_in_lines
from ..errors import TraceFormatError
from ..info import printable
from ..trace import open_trace
from .protocol import add_trace_argument, print_json

__all__ = ["Info"]


class Info:
    """Say what a trace holds: pipeline, prompts, steps, size, faults, gaps.

    Shows how the run ended, how it was called, which guidance branches share a batch, how previews were made, what
    could not be recorded and why, and the first place where a value was not finite. What a damaged trace cannot tell is
    said to be unknown, and the exit code is 2.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        add_trace_argument(parser)

    def run(self, options: argparse.Namespace) -> int:
        trace = open_trace(options.trace)
        if options.json:
            described = describe(trace)
            unknown = described["unknown"]
            print_json(described)
        else:
            lines, unknown = tell_in_lines(trace)
            for label, text in lines:
                print(printable(f"{label:12} {text}"))
        if unknown:
            name, reason = next(iter(unknown.items()))
            more = f", and {len(unknown) - 1} more," if len(unknown) > 1 else ""
            raise TraceFormatError(f"{name}{more} cannot be told: {reason}")
        return 0
