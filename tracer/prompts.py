"""The texts of a run, as the encoders received them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from .layout import PROMPTS
from .storage.archive import Archive

__all__ = ["Prompt", "read_prompts"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One text as an encoder received it."""

    encoder: str
    call: int
    text: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]
    """Token strings, shape (prompt, token)."""
    token_ids: NDArray[np.int64]
    """Shape (prompt, token)."""
    cut: tuple[str, ...] = ()
    """What was cut off each text, "" where nothing was; empty where nothing was of any."""


def read_prompts(archive: Archive) -> tuple[Prompt, ...]:
    """The texts of a trace, in call order for each encoder."""
    found = []
    for group, attributes in archive.groups(PROMPTS).items():
        for entry in attributes.get("calls", ()):
            ids = archive.load_if_there(f"{group}/token_ids{entry.get('suffix', '')}")
            found.append(
                Prompt(
                    encoder=PurePosixPath(group).name,
                    call=int(entry.get("call", 0)),
                    text=tuple(map(str, entry.get("text", ()))),
                    tokens=tuple(tuple(map(str, row)) for row in entry.get("tokens", ())),
                    token_ids=np.zeros((0, 0), np.int64) if ids is None else ids,
                    cut=tuple(map(str, entry.get("cut", ()))),
                )
            )
    return tuple(found)
