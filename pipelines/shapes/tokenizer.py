"""A real `CLIPTokenizer` whose vocabulary is the grammar of the shapes world.

Every grammar word is one token, so attention columns and words match one to one; any other word splits into
characters and still tokenizes.
"""

from __future__ import annotations

import itertools
import string

from transformers import CLIPTokenizer

from .world import BACKGROUNDS, COLOURS, POSITIONS, RELATIONS, SHAPES, SIZES

__all__ = ["MAX_TOKENS", "make_tokenizer", "unknown_words"]

MAX_TOKENS = 20
"""Length to which every prompt is padded: the longest caption has 14 tokens, the rest is room for other words."""

_START, _END = "<|startoftext|>", "<|endoftext|>"


def make_tokenizer() -> CLIPTokenizer:
    """Build the tokenizer: ASCII characters, the merges that join each grammar word, two special tokens."""
    words = _grammar_words()
    characters = [c for c in string.printable if not c.isspace() and not c.isupper()]
    tokens = [*characters, *(c + "</w>" for c in characters)]
    merges: list[tuple[str, str]] = []
    for word in words:
        while len(pieces := _split(word, merges)) > 1:
            merges.append((pieces[0], pieces[1]))
            tokens.append(pieces[0] + pieces[1])
    vocabulary = {token: index for index, token in enumerate([*tokens, _START, _END])}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        bos_token=_START,
        eos_token=_END,
        unk_token=_END,
        pad_token=_END,
        model_max_length=MAX_TOKENS,
    )


def unknown_words(prompt: str) -> list[str]:
    """The words of a prompt that no caption has: the model has never seen them."""
    known = _grammar_words()
    return [word for word in prompt.lower().split() if word not in known]


def _grammar_words() -> list[str]:
    listed = (*SIZES, *COLOURS, *SHAPES, *BACKGROUNDS, *POSITIONS, *RELATIONS, "a", "at", "the", "on")
    return sorted({word for entry in listed for word in entry.split()})


def _split(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """Byte-pair encoding: apply the earliest possible merge until none applies."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while possible := [pair for pair in itertools.pairwise(pieces) if pair in merges]:
        first = min(possible, key=merges.index)
        at = next(i for i in range(len(pieces)) if (pieces[i], pieces[i + 1]) == first)
        pieces[at : at + 2] = [first[0] + first[1]]
    return pieces
