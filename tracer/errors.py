"""Every error this package raises on purpose.

::

    DxrayError
    ├── CaptureError(ValueError)          a pattern that matches nothing, a level that does not exist
    ├── TargetError(TypeError)            something that cannot be traced
    ├── TracerStateError(RuntimeError)    a session used twice, or used while not recording
    ├── StepError(ValueError)             what is given as a step is none
    ├── StoreExistsError(FileExistsError) the place for the trace is taken
    ├── StoreError(OSError)               the trace cannot be written any further
    ├── TraceNotFoundError(FileNotFoundError)
    ├── TraceFormatError(ValueError)      not a trace, damaged, or of a newer format
    ├── ComparisonError(ValueError)       two traces that cannot be laid side by side as asked
    ├── RecipeError(ValueError)           an experiment that cannot run as asked
    ├── MissingLibraryError(ModuleNotFoundError)
    └── SiteNotFoundError(KeyError)       a module, component or tensor the trace does not hold

A message names the offending value and what to do next; the command line prints it as one line and exits with 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CaptureError",
    "ComparisonError",
    "DxrayError",
    "MissingLibraryError",
    "RecipeError",
    "SiteNotFoundError",
    "StepError",
    "StoreError",
    "StoreExistsError",
    "TargetError",
    "TraceFormatError",
    "TraceNotFoundError",
    "TracerStateError",
    "TracerWarning",
    "near_matches",
    "said",
]


class DxrayError(Exception):
    """Base of all errors of diffusion-xray."""


class CaptureError(DxrayError, ValueError):
    """What to capture was described wrongly, or matches nothing."""


class TargetError(DxrayError, TypeError):
    """The object handed to the tracer cannot be traced."""


class TracerStateError(DxrayError, RuntimeError):
    """The tracer is not in a state that allows this call."""


class StepError(DxrayError, ValueError):
    """What was given as a step of a loop is no step."""


class StoreExistsError(DxrayError, FileExistsError):
    """The place where the trace should go is taken."""


class StoreError(DxrayError, OSError):
    """The trace cannot be written."""


class TraceNotFoundError(DxrayError, FileNotFoundError):
    """There is nothing at the path."""


class TraceFormatError(DxrayError, ValueError):
    """What lies at the path is not a trace this version can read."""


class SiteNotFoundError(DxrayError, KeyError):
    """The trace holds nothing under this name."""

    def __str__(self) -> str:  # KeyError would print the message's repr
        return str(self.args[0]) if self.args else ""


class ComparisonError(DxrayError, ValueError):
    """Two traces cannot be laid side by side in the way that was asked for."""


class RecipeError(DxrayError, ValueError):
    """An experiment cannot run: its model cannot be loaded, or is of another kind, or a library is missing."""


class MissingLibraryError(DxrayError, ModuleNotFoundError):
    """A library is not installed that recording needs and reading does not."""


class TracerWarning(UserWarning):
    """Something could not be recorded; the traced run itself is unharmed."""


def near_matches(name: str, known: Iterable[str], *, most: int = 5) -> str:
    """A clause that lists what `name` may have meant: " Did you mean a, b?", or "" when nothing is close."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=most, cutoff=0.6)
    close += [entry for entry in known if name and name in entry and entry not in close]
    return f" Did you mean {', '.join(close[:most])}?" if close else ""


def said(error: BaseException) -> str:
    """What an error says, or its class where it says nothing."""
    return words_of(error) or type(error).__name__


def words_of(error: BaseException) -> str:
    """The message of any error, also one whose own ``__str__`` raises: "" then."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 — a method of the user's
        return ""
