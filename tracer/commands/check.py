"""``dxray check``."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from tqdm import tqdm

from ..attention_check import AttentionCheck, check_attention
from ..data_check import DataCheck, check_data
from ..errors import SiteNotFoundError
from ..info import printable
from ..trace import Trace, open_trace
from .protocol import add_trace_argument, print_json, print_table

__all__ = ["Check"]

_HOW = 'trace with Capture(attention="**", attention_output=True)'


class Check:
    """Prove what a trace holds: that all of it can be read, that attention gives what the kernels returned.

    --data reads every chunk, compares its checksum, and tells what is damaged or missing.

    --attention computes softmax(Q·Kᵀ·scale + mask)·V anew for every attention call recorded with its value and result.
    One line each: the largest relative error over steps, batch and heads, and whether it is within the rounding of the
    dtype.

    Exit code 1 when a check fails, 2 when there was nothing to check.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        add_trace_argument(parser)
        parser.add_argument("--data", action="store_true", help="read everything; the default")
        parser.add_argument("--attention", action="store_true", help="check the attention calls")

    def run(self, options: argparse.Namespace) -> int:
        documents: list[Any] = []
        failed = False
        if options.data or not options.attention:
            data = _check_data(options.trace)
            failed = bool(data.damage)
            documents.append(dataclasses.asdict(data))
            if not options.json:
                _print_data(data, options.trace)
        if options.attention:
            trace = open_trace(options.trace)
            checks = _check_attention(trace)
            failed |= any(not check.passed for check in checks)
            documents.append([{**dataclasses.asdict(check), "passed": check.passed} for check in checks])
            if not options.json:
                _print_attention(checks, trace)
        if options.json:
            print_json(documents[0] if len(documents) == 1 else {"data": documents[0], "attention": documents[1]})
        return 1 if failed else 0


def _check_data(where: str) -> DataCheck:
    """Behind a progress bar where there is a terminal."""
    with tqdm(desc="reading", unit=" arrays", leave=False, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return check_data(where, progress)


def _print_data(data: DataCheck, where: str) -> None:
    for entry in data.damage:
        print(printable(entry.reason))
    told = f"{len(data.damage)} damaged" if data.damage else "all is there and can be read"
    print(printable(f"{data.arrays} arrays of {where}, {data.nbytes / 1e6:.1f} MB decoded: {told}"))
    if data.without_checksums:
        count = len(data.without_checksums)
        print(f"{count} of them have no checksums: a flipped bit there may read as another value")


def _check_attention(trace: Trace) -> list[AttentionCheck]:
    checks = list(check_attention(trace))
    if not checks:
        raise SiteNotFoundError(f"nothing to check: {trace.path} holds no results of attention; {_HOW}")
    return checks


def _print_attention(checks: list[AttentionCheck], trace: Trace) -> None:
    failed = sum(not check.passed for check in checks)
    print_table(("module", "call", "door", "dtype", "steps", "error", "at step", ""), [_row(c) for c in checks])
    print(f"{failed} of {len(checks)} attention calls failed" if failed else f"all {len(checks)} passed")
    others = sum(len(calls) for calls in trace.attention_modules.values()) - len(checks)
    if others:
        print(f"{others} more could not be checked: there is no map, or no result was kept")


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
