"""Which text the keys of an attention belong to: by length and branch, and nothing where that is not certain."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..prompts import Prompt
from .words import Word, words_of

__all__ = ["CONDITIONAL", "UNCONDITIONAL", "Text", "texts_of", "words_at"]

CONDITIONAL = "conditional"
UNCONDITIONAL = "unconditional"

Rows = tuple[tuple[str, ...], ...]
"""Token strings, shape (prompt, token)."""


@dataclass(frozen=True, slots=True)
class Text:
    """One encoder's tokens where they stand in a sequence. Several may share positions, as the two CLIPs of SDXL do."""

    encoder: str
    start: int
    tokens: Rows
    """Of each entry of the batch; empty where it is not known which prompt it was given."""

    @property
    def size(self) -> int:
        """Number of positions."""
        return max(map(len, self.tokens), default=0)


def words_at(texts: Sequence[Text], entry: int) -> tuple[Word, ...]:
    """The words of one entry of the batch with their positions, those that encoders share named once."""
    words = (word.moved(text.start) for text in texts for word in words_of(text.tokens[entry]))
    return tuple(sorted(dict.fromkeys(words), key=lambda word: word.positions))


def texts_of(
    prompts: Sequence[Prompt],
    call: Mapping[str, Any],
    *,
    start: int,
    length: int,
    branches: Sequence[str],
    encoder: str = "",
    encoder_call: int = 0,
) -> tuple[Text, ...]:
    """Find the texts behind a run of text positions.

    Encoders of one kind and length stand side by side and share positions; others follow one another in their order.
    Only CLIP encoders may take no part, because some models use them for their pooled output alone.

    Args:
        prompts: What the encoders of the run were given.
        call: Arguments of the pipeline's call, which tell prompts from negative ones.
        start: First position.
        length: Number of positions.
        branches: Guidance branch of each entry of the batch, "" where there are none.
        encoder: The component that attends, when it is a text encoder itself: its tokens are its own input.
        encoder_call: Which of its calls.
    """
    by_encoder = {name: tuple(calls) for name, calls in _grouped(prompts)}
    if encoder in by_encoder:
        own = [prompt.tokens for prompt in by_encoder[encoder] if prompt.call == encoder_call]
        fits = len(own) == 1 and len(own[0]) == len(branches) and all(len(row) == length for row in own[0])
        return (Text(encoder, start, own[0]),) if fits else ()
    found = list(_arrangements(by_encoder, length))
    if len(found) != 1:
        return ()
    texts = [
        Text(name, start + offset, _of_batch(by_encoder[name], call, branches)) for name, offset in found[0].items()
    ]
    return tuple(text for text in texts if text.size)


def _grouped(prompts: Sequence[Prompt]) -> Iterator[tuple[str, list[Prompt]]]:
    for name, calls in itertools.groupby(sorted(prompts, key=lambda p: p.encoder), key=lambda p: p.encoder):
        yield name, list(calls)


def _arrangements(by_encoder: Mapping[str, Sequence[Prompt]], length: int) -> Iterator[dict[str, int]]:
    """The ways in which encoders can fill `length` positions: the offset of each encoder that takes part."""
    kinds: dict[tuple[bool, int], list[str]] = {}
    for name, calls in by_encoder.items():
        sizes = {len(row) for prompt in calls for row in prompt.tokens}
        clip = any(token.endswith("</w>") for prompt in calls for row in prompt.tokens for token in row)
        if len(sizes) == 1:
            kinds.setdefault((clip, sizes.pop()), []).append(name)
    for count in range(1, len(kinds) + 1):
        for chosen in itertools.combinations(kinds, count):
            left_out = kinds.keys() - set(chosen)
            if sum(size for _, size in chosen) == length and all(clip for clip, _ in left_out):
                offsets = itertools.accumulate((size for _, size in chosen), initial=0)
                yield {name: at for kind, at in zip(chosen, offsets, strict=False) for name in kinds[kind]}


def _of_batch(calls: Sequence[Prompt], call: Mapping[str, Any], branches: Sequence[str]) -> Rows:
    """Tokens of each entry of the batch: within a branch every prompt has as many images in a row."""
    rows = {branch: _of_branch(calls, call, branch) for branch in dict.fromkeys(branches)}
    counts = {branch: branches.count(branch) for branch in rows}
    seen = dict.fromkeys(rows, 0)
    found: list[tuple[str, ...]] = []
    for branch in branches:
        own = rows[branch]
        fits = own and not counts[branch] % len(own)
        found.append(own[seen[branch] * len(own) // counts[branch]] if fits else ())
        seen[branch] += 1
    return tuple(found)


def _of_branch(calls: Sequence[Prompt], call: Mapping[str, Any], branch: str) -> Rows:
    """Tokens of the prompts of one branch: told apart by their text, else by order, the negative prompt second."""
    if branch == "":  # one branch only, as long as one text was encoded only
        return calls[0].tokens if len({prompt.tokens for prompt in calls}) == 1 else ()
    if branch not in (CONDITIONAL, UNCONDITIONAL):
        return ()
    given, negative = _texts(call, "prompt"), _texts(call, "negative_prompt") or {""}
    wanted, other = (given, negative) if branch == CONDITIONAL else (negative, given)
    if len(calls) == 1:  # maybe both in one batch
        pairs = list(zip(calls[0].text, calls[0].tokens, strict=False))
        own = tuple(row for text, row in pairs if _is_one_of(text, wanted) and not _is_one_of(text, other))
        return own or (calls[0].tokens if branch == CONDITIONAL else ())
    by_text = {
        prompt.tokens
        for prompt in calls
        if prompt.text and all(_is_one_of(text, wanted) and not _is_one_of(text, other) for text in prompt.text)
    }
    if len(by_text) == 1:
        return by_text.pop()
    return calls[branch == UNCONDITIONAL].tokens if len(calls) == 2 and not by_text else ()


def _texts(call: Mapping[str, Any], argument: str) -> set[str]:
    """The values of an argument and of those for further encoders ("prompt_2"), as they compare."""
    values = [value for name, value in call.items() if name == argument or name.startswith(f"{argument}_")]
    listed = [entry for value in values for entry in (value if isinstance(value, list) else [value])]
    return {_letters(entry) for entry in listed if isinstance(entry, str)}


def _is_one_of(text: str, known: set[str]) -> bool:
    """Whether an encoder was given one of the texts, which it may have cut."""
    seen = _letters(text)
    return any(entry == seen or (seen and entry.startswith(seen)) for entry in known)


def _letters(text: str) -> str:
    """Tokenizers change case and spaces."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())
