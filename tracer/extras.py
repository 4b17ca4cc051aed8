"""Libraries that only recording needs, and how it is told that one is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .errors import MissingLibraryError

__all__ = ["INSTALL", "RECORDING", "explained"]

RECORDING = frozenset(
    {"accelerate", "diffusers", "huggingface_hub", "numba", "safetensors", "scipy", "torch", "transformers"}
)
"""What the extra "trace" installs, by the names it is imported under."""
INSTALL = "pip install 'diffusion-xray[trace]'"


@contextlib.contextmanager
def explained(what: str = "this") -> Iterator[None]:
    """Say in one line what to install where something within the block needs a library that recording needs.

    Args:
        what: What it is needed for, the subject of the sentence.

    Raises:
        MissingLibraryError: In place of the ``ModuleNotFoundError`` of such a library; any other goes through.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if isinstance(error, MissingLibraryError) or library not in RECORDING:
            raise
        message = f"{what} needs {library}, which is not installed: {INSTALL}"
        raise MissingLibraryError(message, name=error.name, path=error.path) from error
