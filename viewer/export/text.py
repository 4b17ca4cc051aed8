"""The selection as text: the command that opens it, the Python that reads it, a name for its file.

A trace is untrusted, and so are the names in it: what is written here is quoted so that it can be pasted.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Sequence
from typing import Final

from diffusion_xray.tracer.storage.library_store import is_url, local_path

from .selection import Selection

__all__ = ["file_stem", "full_path", "quoted", "snippet", "view_arguments", "view_command"]

_LONGEST: Final = 120
"""Characters of a file's name: file systems allow 255 bytes, and an ending and a number still come."""


def full_path(trace: str) -> str:
    """Where a trace is, from wherever it is asked: a folder or file by its full path, a URL as it is."""
    return trace if is_url(trace) else str(local_path(trace).absolute())


def view_arguments(trace: str, *, layer: str = "", step: int | None = None, tab: str = "") -> list[str]:
    """Arguments of `dxray` that open the browser at a place."""
    options = [("--layer", layer), ("--step", "" if step is None else str(step)), ("--tab", tab)]
    found = ["view"]
    for name, value in options:
        if value:  # a value that begins with a dash must not be taken for an option
            found += [f"{name}={value}"] if value.startswith("-") else [name, value]
    return [*found, *(["--"] if trace.startswith("-") else []), trace]


def view_command(selection: Selection) -> str:
    """The command that opens the browser exactly here, quoted for sh, bash and zsh."""
    stepped = selection.site is None or selection.site.stepped
    step = selection.step if stepped and selection.snapshot.steps else None
    return quoted(["dxray", *view_arguments(selection.trace, layer=selection.layer, step=step, tab=selection.tab)])


def quoted(arguments: Sequence[str]) -> str:
    """Words of a command line; what cannot be printed is written as escapes ($'…'), so that it is safe to look at."""
    return " ".join(shlex.quote(word) if word.isprintable() else _escaped(word) for word in arguments)


def _escaped(word: str) -> str:
    safe = {ord(sign) for sign in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ._-/:=+,@%"}
    return "$'" + "".join(chr(byte) if byte in safe else f"\\x{byte:02x}" for byte in os.fsencode(word)) + "'"


def snippet(selection: Selection) -> str:
    """Python that reads what the view shows from the trace."""
    lines = ["from diffusion_xray.tracer import open_trace", "", f"trace = open_trace({selection.trace!r})"]
    return "\n".join([*lines, *(selection.taken.python.splitlines() or _reading(selection))]) + "\n"


def _reading(selection: Selection) -> list[str]:
    site = selection.site
    if site is None:
        return ["print(trace)"]
    if selection.tab == "hist":
        step = f", {selection.step}" if site.stepped else ""
        return [f"histogram = trace.histogram(trace.site({site.key!r}){step})"]
    if selection.tab in {"overview", "stats"} or selection.why_no_tensor():
        module = selection.snapshot.layers[site.name].module
        prefix = "" if module is not None and module.site == site else f"{site.array_name}_"
        return [f"{selection.look.statistic} = trace[{site.name!r}][{prefix + selection.look.statistic!r}]"]
    step = f".sel(step={selection.step})" if site.stepped else ""
    lines = [f"tensor = trace[{site.name!r}][{site.array_name!r}]{step}"]
    return [*lines, f"plane = tensor.values{_plane(selection)}"] if selection.tab == "image" else lines


def _plane(selection: Selection) -> str:
    """How `plane_of` picks from the tensor, as Python."""
    assert selection.site is not None
    look, shape = selection.look, selection.site.shape
    if len(shape) < 2 or not math.prod(shape):
        return ".reshape(1, -1)"
    batch = look.batch % shape[0]
    if len(shape) == 2:
        return f"[{batch}][None]"
    if len(shape) > 3:
        maps = math.prod(shape[1:-2])
        pick = f"{look.channel % maps}"
        return f"[{batch}, {pick}]" if len(shape) == 4 else f"[{batch}].reshape({maps}, *{shape[-2:]})[{pick}]"
    side = math.isqrt(shape[1])
    if side < 2 or side * side != shape[1] or "text" in selection.site.name:
        return f"[{batch}]"
    return f"[{batch}, :, {look.channel % shape[2]}].reshape({side}, {side})"


def file_stem(selection: Selection) -> str:
    """A name for a file without its ending: trace, layer, step; letters, digits and ``. _ -`` alone."""
    parts = [selection.snapshot.title.removesuffix(".zarr"), selection.layer]
    if selection.site is None or selection.site.stepped:
        parts.append(f"step{selection.step}")
    parts.append(selection.taken.name)
    stem = "-".join(name for part in parts if (name := re.sub(r"[^A-Za-z0-9_.-]+", "_", part).strip("._-")))
    return stem[-_LONGEST:].lstrip("._-") or "trace"
