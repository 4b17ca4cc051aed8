"""Words of tokenized texts."""

from __future__ import annotations

import pytest

from diffusion_xray.tracer.attention.words import find_phrase, token_label, unique, words_of
from diffusion_xray.tracer.errors import SiteNotFoundError

END = "<|endoftext|>"
CLIP = ["<|startoftext|>", "a</w>", "ot", "ter</w>", "in</w>", "a</w>", "top</w>", "hat</w>", END, END, END]


def spelled(tokens: list[str]) -> list[tuple[str, tuple[int, ...]]]:
    """The words with their positions."""
    return [(word.text, word.positions) for word in words_of(tokens)]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (CLIP[:5], [("<|startoftext|>", (0,)), ("a", (1,)), ("otter", (2, 3)), ("in", (4,))]),
        (["▁an", "▁ot", "ter", ",", "</s>", "<pad>"], [("an", (0,)), ("otter,", (1, 2, 3)), ("</s>", (4, 5))]),
        (["Red", "Ġcir", "cle", "<|endoftext|>"], [("Red", (0,)), ("circle", (1, 2)), ("<|endoftext|>", (3,))]),
        (["[CLS]", "em", "##bed", "in", "[SEP]"], [("[CLS]", (0,)), ("embed", (1, 2)), ("in", (3,)), ("[SEP]", (4,))]),
        (["▁a", "<pad>", "<pad>"], [("a", (0,)), ("<pad>", (1, 2))]),
        (["</s>", "<pad>", "<pad>"], [("</s>", (0, 1, 2))]),
        (["cat</w>", END, "!</w>", "!</w>"], [("cat", (0,)), (END, (1, 2, 3))]),
        (["caf", "Ã", "©</w>"], [("café", (0, 1, 2))]),
        (["red", "blue"], [("red", (0,)), ("blue", (1,))]),
        ([], []),
    ],
    ids=["clip", "t5", "byte level", "wordpiece", "no end", "empty text", "odd pads", "bytes", "plain", "none"],
)  # fmt: skip
def test_pieces_are_joined(tokens: list[str], expected: list[tuple[str, tuple[int, ...]]]) -> None:
    """Pieces make words by the marks of their tokenizer; the end token and all behind it is one entry."""
    assert spelled(tokens) == expected


def test_labels_have_no_marks() -> None:
    """A token reads as what it says, a special one as it is."""
    tokens = ["circle</w>", "▁red", "Ġblue", "##ing", "ter", "<|endoftext|>", "<pad>"]
    assert [token_label(token) for token in tokens] == ["circle", "red", "blue", "ing", "ter", "<|endoftext|>", "<pad>"]


@pytest.mark.parametrize(
    ("phrase", "occurrence", "positions"),
    [
        ("otter", None, (2, 3)),
        ("OTTER", None, (2, 3)),
        ("a", None, (1, 5)),
        ("a", 0, (1,)),
        ("a", 1, (5,)),
        ("top hat", None, (6, 7)),
        ("a top  hat", 0, (5, 6, 7)),
        ("in a", None, (4, 5)),
        ("<|endoftext|>", None, (8, 9, 10)),
    ],
)
def test_phrases_are_found(phrase: str, occurrence: int | None, positions: tuple[int, ...]) -> None:
    """A word or phrase is found wherever it stands, whatever its case and spaces."""
    assert find_phrase(words_of(CLIP), phrase, occurrence=occurrence) == positions


@pytest.mark.parametrize(
    ("phrase", "occurrence", "message"),
    [
        ("oter", None, "no word 'oter' in the prompt; it has .*otter, in, top, hat.*Did you mean otter"),
        ("ter", None, "no word 'ter'"),
        ("hat top", None, "no word 'hat top'"),
        ("", None, "no word ''"),
        ("a", 2, "'a' stands 2 times .*: no 2"),
        ("a", -1, "no -1"),
    ],
)
def test_what_is_not_there_is_listed(phrase: str, occurrence: int | None, message: str) -> None:
    """A word that is not in the text is an error that lists those which are, the near ones first of all."""
    with pytest.raises(SiteNotFoundError, match=message):
        find_phrase(words_of(CLIP), phrase, occurrence=occurrence)


def test_labels_become_unique() -> None:
    """A label that comes again is numbered, so that every one can be selected by."""
    assert unique(["a", "red", "a", "a"]) == ["a", "red", "a#1", "a#2"]
