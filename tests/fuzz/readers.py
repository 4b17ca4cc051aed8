"""All that reads a trace: the commands, the API, lazy datasets. Each ends with an answer or an error of ours."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_xray.tracer import Trace, open_trace
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.errors import DxrayError

__all__ = ["SECRET", "readers", "reads_of"]

SECRET = b"password=hunter2"
"""In the files outside of the trace."""

Complaint = str
_MOST = 12
"""Sites, modules and steps that are looked at of each kind."""


def readers(path: Path, whole: Path, random: random.Random) -> Iterator[tuple[str, Callable[[], Complaint]]]:
    """Some readers for one damaged trace, each with its name; they return what is wrong with how they ended, or "".

    Args:
        path: The damaged trace.
        whole: The same undamaged.
        random: Chooses.
    """
    commands = [
        *(["info"], ["info", "--json"], ["ls"], ["ls", "--json"], ["stats"], ["stats", "--step", "0", "--json"]),
        *(["check", "--attention"], ["diff", str(whole)], ["diff", "--json", str(whole)]),
    ]
    for command in random.sample(commands, 4):
        yield " ".join(command[:2]), lambda command=command: _command([*command, str(path)])  # type: ignore[misc]
    yield "diff of the whole", lambda: _command(["diff", str(whole), str(path)])
    for part in (_numbers, *random.sample([_datasets, _tree, _attention, _overview], 2)):
        yield part.__name__.strip("_"), lambda part=part: _ours(lambda: part(open_trace(path)))  # type: ignore[misc]


def _command(words: list[str]) -> Complaint:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    shown, said = out.getvalue(), err.getvalue()
    wrong = [
        "it is not one line" if code == 2 and (said.count("\n") != 1 or not said.startswith("dxray: ")) else "",
        "the line is long" if len(said) > 5000 else "",
        f"exit code {code}" if code not in (0, 1, 2) else "",
        "an error without a code" if code == 0 and said else "",
        "a control character" if any(c in shown + said for c in "\x1b\x07\x9b") else "",
        "the secret" if SECRET.decode() in shown + said else "",
    ]
    return ", ".join(filter(None, wrong)) and f"{', '.join(filter(None, wrong))}: code {code}, {said[:300]!r}"


def _ours(read: Callable[[], Any]) -> Complaint:
    try:
        read()
    except DxrayError as error:
        return "" if str(error) else "an error that says nothing"
    return ""


def reads_of(path: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every array of numbers by a name, as the API reads it; not histograms, of which nothing tells the loss."""
    trace = open_trace(path)
    for name in ("timestep", "sigma", "stage"):
        yield name, functools.partial(getattr, trace, name)
    yield "images", lambda: trace.images
    yield from (
        (f"table {table.component} {table.stepped}", lambda table=table: table.values) for table in trace.tables()
    )
    for site in list(itertools.islice((site for module in trace.modules.values() for site in module.sites), 60)):
        for step in range(trace.n_steps) if site.stepped else [0]:
            if site.array:
                yield f"{site.key} {step}", functools.partial(trace.tensor, site, step)
                yield f"{site.key} {step} run", functools.partial(trace.elements, site, step, 1, 2)


def _numbers(trace: Trace) -> None:
    """Each read by itself, as one that fails must not hide the next."""
    failed: list[DxrayError] = []
    for read in (lambda: trace.modules, lambda: trace.prompts, lambda: trace.images, lambda: list(trace.tables())):
        with _kept(failed):
            _no_secret(read())
    with _kept(failed):
        for module in itertools.islice(trace.modules.values(), _MOST):
            for site, step in itertools.product(
                module.sites[:3], range(min(trace.n_steps, 2)) if trace.n_steps else [0]
            ):
                for call in (trace.tensor, trace.histogram, trace.stored):
                    with _kept(failed):
                        _no_secret(call(site, step))
                with _kept(failed):
                    _no_secret(trace.elements(site, step, 0, 3) if site.array else None)
    for name in ("preview", "latents", "x0", "model_output"):
        with _kept(failed):
            _no_secret(trace.step_array(name, 0))
    with _kept(failed):
        trace.images_of(0)
    if failed:
        raise failed[0]


@contextlib.contextmanager
def _kept(failed: list[DxrayError]) -> Iterator[None]:
    try:
        yield
    except DxrayError as error:
        failed.append(error)


def _no_secret(found: Any) -> None:
    if isinstance(found, np.ndarray) and found.dtype != object and SECRET in found.tobytes():
        raise AssertionError("the secret was read")


def _datasets(trace: Trace) -> None:
    failed: list[DxrayError] = []
    for name in [*itertools.islice(trace, _MOST)]:
        with _kept(failed):
            for variable in trace[name].variables.values():
                with _kept(failed):
                    _small(variable)
    for name in ("steps", "statistics"):
        with _kept(failed):
            found = trace.steps if name == "steps" else trace.statistics().to_dataset()
            for variable in found.variables.values():
                with _kept(failed):
                    _small(variable)


def _small(variable: Any) -> None:
    """Load a part: whoever asks for all of a large array gets it."""
    _no_secret(variable[{dim: slice(0, 64) for dim in variable.dims}].values)


def _tree(trace: Trace) -> None:
    failed: list[DxrayError] = []
    for node in trace.tree.subtree:
        for variable in node.to_dataset(inherit=False).variables.values():
            with _kept(failed):
                _small(variable)


def _attention(trace: Trace) -> None:
    failed: list[DxrayError] = []
    for name, calls in list(trace.attention_modules.items())[:3]:
        for call in calls[:2]:
            with _kept(failed):
                found = trace.attention(name, call.call)
                _small(found.variable)
    with _kept(failed):
        words = trace.words()
        trace.word_map(words[min(1, len(words) - 1)].text, step=0)
    with _kept(failed):
        trace.word_mass()


def _overview(trace: Trace) -> None:
    repr(trace)
    trace._repr_html_()
    trace.first_fault()
    assert trace.components is not None
