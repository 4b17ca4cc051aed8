"""Words of a tokenized text: pieces joined, padding folded into the end of the text, phrases found."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import SiteNotFoundError, near_matches

__all__ = ["Word", "find_phrase", "token_label", "unique", "words_of"]

_SPECIAL: Final = re.compile(r"<\|.*\|>|</?s>|<(?:pad|bos|eos|unk|mask)>|\[(?:CLS|SEP|PAD|UNK|MASK)\]", re.IGNORECASE)
_ENDS: Final = frozenset({"<|endoftext|>", "</s>", "<eos>", "[SEP]", "<|eot_id|>", "<|im_end|>"})
_PADDING: Final = frozenset({"<pad>", "[PAD]"})
_ENDING: Final = "</w>"
"""With which CLIP's tokenizer marks the last piece of a word."""
_STARTS: Final = ("▁", "Ġ")
"""With which sentencepiece and byte-level tokenizers mark the first piece."""
_CONTINUES: Final = "##"
"""With which WordPiece marks every other piece."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text, or a special token."""

    text: str
    positions: tuple[int, ...]
    """Its pieces' places in the sequence; of the end token those of the padding after it, too."""
    special: bool = False

    def moved(self, by: int) -> Word:
        """The word in a sequence in which its text starts at `by`."""
        return Word(self.text, tuple(position + by for position in self.positions), self.special)


def words_of(tokens: Sequence[str]) -> tuple[Word, ...]:
    """Join the pieces of a text, as CLIP, sentencepiece, byte-level and WordPiece tokenizers mark them.

    The first end token and everything after it are one entry; so is padding where there is no end token.
    """
    end = next((at for at, token in enumerate(tokens) if token in _ENDS), len(tokens))
    begin_marked = [token.startswith(_STARTS) for token in tokens[:end]]
    end_marked = any(token.endswith(_ENDING) for token in tokens[:end])
    groups: list[list[int]] = []
    for at, token in enumerate(tokens[:end]):
        before = tokens[at - 1] if at else ""
        if not groups or _is_special(token) or _is_special(before):
            joined = token in _PADDING and before in _PADDING
        elif token.startswith(_CONTINUES):
            joined = True
        elif end_marked:
            joined = not before.endswith(_ENDING)
        else:
            joined = any(begin_marked) and not begin_marked[at]
        if joined:
            groups[-1].append(at)
        else:
            groups.append([at])
    if end < len(tokens):
        groups.append(list(range(end, len(tokens))))
    return tuple(_word(tokens, group) for group in groups)


def token_label(token: str) -> str:
    """A token as it reads: without the marks of its tokenizer."""
    return token if _is_special(token) else _decoded(_bare(token))


def unique(labels: Sequence[str]) -> list[str]:
    """Labels that can be selected by: "a", "red", "a#1" for the second "a"."""
    seen: dict[str, int] = {}
    found = []
    for label in labels:
        seen[label] = seen.get(label, -1) + 1
        found.append(f"{label}#{seen[label]}" if seen[label] else label)
    return found


def find_phrase(words: Sequence[Word], phrase: str, *, occurrence: int | None = None) -> tuple[int, ...]:
    """Positions of a word or of several in a row; letter case and spaces do not matter.

    Args:
        words: Those of the text.
        phrase: What to look for; a special token by its name.
        occurrence: Which of the places it stands at, from 0; None for all.

    Raises:
        SiteNotFoundError: The text does not hold it, or not as often; the message lists the words there are.
    """
    wanted = _plain(phrase)
    found = [_positions(run) for run in _runs(words, wanted)]
    if not found or not wanted:
        known = ", ".join(dict.fromkeys(word.text for word in words)) or "none"
        names = [word.text for word in words if not word.special]
        raise SiteNotFoundError(f"no word {phrase!r} in the prompt; it has {known}.{near_matches(phrase, names)}")
    if occurrence is None:
        return tuple(sorted({position for positions in found for position in positions}))
    if not 0 <= occurrence < len(found):
        raise SiteNotFoundError(f"{phrase!r} stands {len(found)} times in the prompt, counted from 0: no {occurrence}")
    return found[occurrence]


def _runs(words: Sequence[Word], wanted: str) -> Iterator[Sequence[Word]]:
    for start in range(len(words)):
        text = ""
        for stop in range(start, len(words)):
            text += _plain(words[stop].text)
            if text == wanted:
                yield words[start : stop + 1]
            if not wanted.startswith(text):
                break


def _positions(words: Sequence[Word]) -> tuple[int, ...]:
    return tuple(itertools.chain.from_iterable(word.positions for word in words))


def _plain(text: str) -> str:
    return "".join(text.split()).casefold()


def _is_special(token: str) -> bool:
    return _SPECIAL.fullmatch(token) is not None


def _word(tokens: Sequence[str], group: Sequence[int]) -> Word:
    first = tokens[group[0]]
    if _is_special(first):
        return Word(first, tuple(group), special=True)
    return Word(_decoded("".join(_bare(tokens[at]) for at in group)), tuple(group))


def _bare(token: str) -> str:
    return token.removesuffix(_ENDING).removeprefix(_CONTINUES).lstrip("".join(_STARTS))


def _decoded(text: str) -> str:
    """Text of a byte-level tokenizer, which writes every byte as a letter; as it is where it is something else."""
    table = _letters()
    try:
        return bytes(table[letter] for letter in text).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return text


@functools.cache
def _letters() -> dict[str, int]:
    """The byte behind each letter: printable ones stand for themselves, the others follow from 256 (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(rest)}
