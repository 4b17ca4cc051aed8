"""``dxray check``."""

from __future__ import annotations

import argparse
import dataclasses

from ..attention_check import AttentionCheck, check_attention
from ..errors import SiteNotFoundError
from ..trace import open_trace
from .protocol import add_trace_argument, print_json, print_table

__all__ = ["Check"]

_HOW = 'trace with Capture(attention="**", attention_output=True)'


class Check:
    """Prove what a trace holds: recompute attention and compare it with what the kernels returned.

    For every attention call recorded with its value and result, softmax(Q·Kᵀ·scale + mask)·V is computed anew. One
    line each: the largest relative error over steps, batch and heads, and whether it is within the rounding of the
    dtype. Exit code 1 when one is not, 2 when there was nothing to check.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        add_trace_argument(parser)
        parser.add_argument("--attention", action="store_true", required=True, help="check the attention calls")

    def run(self, options: argparse.Namespace) -> int:
        trace = open_trace(options.trace)
        checks = list(check_attention(trace))
        if not checks:
            raise SiteNotFoundError(f"nothing to check: {trace.path} holds no results of attention; {_HOW}")
        failed = sum(not check.passed for check in checks)
        if options.json:
            print_json([{**dataclasses.asdict(check), "passed": check.passed} for check in checks])
        else:
            print_table(("module", "call", "door", "dtype", "steps", "error", "at step", ""), [_row(c) for c in checks])
            print(f"{failed} of {len(checks)} attention calls failed" if failed else f"all {len(checks)} passed")
            others = sum(len(calls) for calls in trace.attention_modules.values()) - len(checks)
            if others:
                print(f"{others} more could not be checked: there is no map, or no result was kept")
        return 1 if failed else 0


def _row(check: AttentionCheck) -> tuple[str, ...]:
    return (
        check.module,
        str(check.call),
        check.door,
        check.dtype,
        str(check.steps),
        f"{check.error:.1e}",
        "–" if check.step is None else str(check.step),
        "ok" if check.passed else f"FAILED, above {check.tolerance:.1e}",
    )
