"""What of a text did not reach its encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["cut_texts", "texts_in"]

_LEAST = 4
"""Tokens at the end of a template that are taken for the beginning of a text."""


def texts_in(arguments: Mapping[str, Any]) -> list[str]:
    """The prompts among the arguments of a pipeline's call, negative ones and those for further encoders included."""
    values = [
        value
        for name, value in arguments.items()
        if name.removeprefix("negative_").split("_")[0] == "prompt" and not name.endswith("embeds")
    ]
    listed = [entry for value in values for entry in (value if isinstance(value, list | tuple) else [value])]
    return list(dict.fromkeys(entry for entry in listed if isinstance(entry, str)))


def cut_texts(tokenizer: Any, given: Sequence[str], rows: Sequence[Sequence[int]]) -> list[str]:
    """What was cut off each row, "" where nothing was, or where that cannot be told.

    The texts are tokenized once more, without a limit. A row that is the beginning of one of them, and none of them
    whole, was cut; not where another row goes on with the rest, as pipelines do that split long prompts.

    Args:
        tokenizer: That of the encoder.
        given: Texts as the user gave them.
        rows: Token ids that the encoder received.
    """
    special = set(tokenizer.all_special_ids)

    def content(ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(token for token in ids if token not in special)

    whole = [content(tokenizer(text, truncation=False, verbose=False)["input_ids"]) for text in given]
    seen = [content(row) for row in rows]
    found = []
    for row, own in zip(rows, seen, strict=True):
        rest: tuple[int, ...] = ()
        if own and own not in whole:
            padded = bool(tokenizer.pad_token_id in row[-1:] and tokenizer.pad_token_id != tokenizer.eos_token_id)
            rest = max((_rest(own, text, padded=padded) for text in whole), key=len) if whole else ()
        if rest and any(other and rest[: len(other)] == other for other in seen):
            rest = ()
        found.append(tokenizer.decode(list(rest)).strip() if rest else "")
    return found


def _rest(own: tuple[int, ...], text: tuple[int, ...], *, padded: bool) -> tuple[int, ...]:
    """What follows in a text after a row that it begins with, or that ends, behind a template, with its beginning."""
    if len(own) < len(text) and text[: len(own)] == own:
        return text[len(own) :]
    if padded or any(own[at : at + len(text)] == text for at in range(len(own) - len(text) + 1)):
        return ()
    kept = next((size for size in range(min(len(own), len(text)) - 1, _LEAST - 1, -1) if own[-size:] == text[:size]), 0)
    return text[kept:] if kept else ()
