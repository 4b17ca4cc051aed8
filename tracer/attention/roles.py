"""Whether a text that an encoder received is the prompt or the negative one, told by the arguments of the call."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["CONDITIONAL", "UNCONDITIONAL", "roles_of", "texts_given"]

CONDITIONAL: Final = "conditional"
UNCONDITIONAL: Final = "unconditional"

_Rank = tuple[int, int]
_NO_MATCH: Final[_Rank] = (9, 0)


def roles_of(texts: Sequence[str], call: Mapping[str, Any]) -> list[str]:
    """The guidance branch of each text that one encoder received, "" where the arguments do not settle it.

    A text may be an argument as it is, one that was cut, or one within a template, as language models have it. A better
    match wins; where prompt and negative prompt match alike, neither does. Without arguments (a loop of one's own) an
    empty text among others is the unconditional one, and the only other text is the conditional one.

    Args:
        texts: Decoded, without special tokens.
        call: Arguments of the pipeline's call.
    """
    given, negative = texts_given(call, "prompt"), texts_given(call, "negative_prompt") or {""}
    seen = [_plain(text) for text in texts]
    if not given and not texts_given(call, "negative_prompt"):
        others = {text for text in seen if text}
        if len(others) == len(set(seen)):
            return ["" for _ in seen]
        return [
            (CONDITIONAL if len(others) == 1 else "") if text else (UNCONDITIONAL if others else "") for text in seen
        ]
    found = [_role(_best(text, given, seen), _best(text, negative, seen)) for text in seen]
    if "" in negative:  # an empty prompt in a template is what the others are without theirs
        frames = {
            _plain(f" {other} ".replace(f" {entry} ", " ", 1))
            for other in seen
            for entry in given
            if entry and f" {entry} " in f" {other} "
        } - {""}
        found = [role or (UNCONDITIONAL if text in frames else "") for role, text in zip(found, seen, strict=True)]
    return found


def texts_given(call: Mapping[str, Any], argument: str) -> set[str]:
    """The values of an argument and of those for further encoders ("prompt_2"), as they compare."""
    values = [value for name, value in call.items() if name == argument or name.startswith(f"{argument}_")]
    listed = [entry for value in values for entry in (value if isinstance(value, list | tuple) else [value])]
    return {_plain(entry) for entry in listed if isinstance(entry, str)}


def _role(prompt: _Rank, negative: _Rank) -> str:
    if prompt == negative:
        return ""
    return CONDITIONAL if prompt < negative else UNCONDITIONAL


def _best(seen: str, given: set[str], texts: Sequence[str]) -> _Rank:
    """How well a text is one of those given: the same, then the beginning of it, then the longest that it holds."""
    return min((_rank(seen, entry, texts) for entry in given), default=_NO_MATCH)


def _rank(seen: str, entry: str, texts: Sequence[str]) -> _Rank:
    if seen.replace(" ", "") == entry.replace(" ", ""):  # tokenizers change spaces
        return (0, 0)
    if seen and entry.replace(" ", "").startswith(seen.replace(" ", "")):
        return (1, 0)
    within = [f" {entry} " in f" {text} " for text in texts]
    if entry and f" {entry} " in f" {seen} " and not all(within):  # in all of them it is the template's
        return (2, -len(entry))
    return _NO_MATCH


def _plain(text: str) -> str:
    """Words without letter case and marks, which tokenizers change; marks alone as they are."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold())) or "".join(text.split())
