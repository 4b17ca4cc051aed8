"""The texts of a run, as the encoders received them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from .batches import Batch, branches_at
from .layout import PROMPTS
from .storage.archive import Archive

__all__ = ["Prompt", "prompts_by_step", "read_prompts"]

_CONDITIONAL = "conditional"


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

    @property
    def told(self) -> tuple[str, ...]:
        """Each text as it reads for people: what was cut off is said."""
        cut = (*self.cut, *("" for _ in self.text))
        return tuple(f"{text} [cut off: {rest}]" if rest else text for text, rest in zip(self.text, cut, strict=False))


def prompts_by_step(prompts: Sequence[Prompt], batches: Iterable[Sequence[Batch]]) -> list[tuple[int, str]]:
    """The prompt that is drawn from each step on, as it reads; where that is not known, the first text from step 0.

    Args:
        prompts: Those of the trace.
        batches: What each denoiser was given.
    """
    told = {(prompt.encoder, prompt.call, row): line for prompt in prompts for row, line in enumerate(prompt.told)}
    found: dict[int, str] = {}
    for batch in (batch for own in batches for batch in own if not batch.call):
        branches = branches_at(batch, len(batch.texts))
        drawn = (texts for texts, branch in zip(batch.texts, branches, strict=True) if branch in ("", _CONDITIONAL))
        line = next((told.get((text.encoder, text.call, text.prompt), "") for texts in drawn for text in texts), "")
        if line:
            found.setdefault(batch.step, line)
    first = next((line for prompt in prompts for line in prompt.told if line), "")
    return sorted(found.items()) or ([(0, first)] if first else [])


def read_prompts(archive: Archive) -> tuple[Prompt, ...]:
    """The texts of a trace, in call order for each encoder."""
    found = []
    for group, attributes in archive.groups(PROMPTS).items():
        for entry in attributes.get("calls", ()):
            ids = archive.load_if_there(f"{group}/token_ids{entry.get('suffix', '')}")
            found.append(
                Prompt(
                    encoder=str(attributes.get("encoder") or PurePosixPath(group).name),
                    call=int(entry.get("call", 0)),
                    text=tuple(map(str, entry.get("text", ()))),
                    tokens=tuple(tuple(map(str, row)) for row in entry.get("tokens", ())),
                    token_ids=np.zeros((0, 0), np.int64) if ids is None else ids,
                    cut=tuple(map(str, entry.get("cut", ()))),
                )
            )
    return tuple(found)
