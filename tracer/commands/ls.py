"""``dxray ls``."""

from __future__ import annotations

import argparse

from ..trace import open_trace
from .protocol import add_trace_argument, print_json, print_table
from .selection import add_glob_argument, select

__all__ = ["Ls"]


class Ls:
    """List the modules that fired, in call order.

    One line for each tensor seen: where, class, shape, dtype, guidance branch, and whether its tensors are stored. The
    queries and keys of a module that attends are shown with the kind of attention: self, cross or joint.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        add_trace_argument(parser)
        add_glob_argument(parser)

    def run(self, options: argparse.Namespace) -> int:
        trace = open_trace(options.trace)
        sites = select(trace, options.glob)
        kinds = {
            (call.module, port, call.call): f"{call.kind}-attention"
            for calls in trace.attention_modules.values()
            for call in calls
            for port in ("query", "key")
            if not call.reason
        }
        if options.json:
            print_json([{"key": site.key, "stored": bool(site.array), **site.to_attributes()} for site in sites])
            return 0
        rows = [
            (
                site.key,
                site.module_class,
                ", ".join(dict.fromkeys(map(_shape, (site.shape, *(variant.shape for variant in site.variants))))),
                site.torch_dtype,
                site.branch or "–",
                "loop" if site.stepped else "once",
                kinds.get((site.name, site.port, site.call), "tensors" if site.array else "statistics"),
            )
            for site in sites
        ]
        print_table(("site", "class", "shape", "dtype", "branch", "when", "stored"), rows)
        return 0


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
