"""Which text the keys belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from diffusion_xray.tracer.attention.texts import Text, texts_of, words_at
from diffusion_xray.tracer.prompts import Prompt

BOTH = ("unconditional", "conditional")


def clip(text: str, length: int = 5) -> tuple[str, ...]:
    """Tokens as CLIP makes them."""
    return ("<s>", *(f"{word}</w>" for word in text.split()), *["<|endoftext|>"] * length)[:length]


def t5(text: str, length: int = 8) -> tuple[str, ...]:
    """Tokens as T5 makes them."""
    return (*(f"▁{word}" for word in text.split()), "</s>", *["<pad>"] * length)[:length]


def prompts(**encoders: Sequence[tuple[Any, ...]]) -> list[Prompt]:
    """What encoders were given: for each, in call order, (tokenizer, text or texts)."""
    found = []
    for encoder, calls in encoders.items():
        for number, (tokenize, texts, *length) in enumerate(calls):
            listed = [texts] if isinstance(texts, str) else texts
            rows = tuple(tokenize(text, *length) for text in listed)
            found.append(Prompt(encoder, number, tuple(listed), rows, np.zeros((0, 0), np.int64)))
    return found


def read(
    given: list[Prompt], *, length: int = 5, branches: Sequence[str] = BOTH, call: Any = None, **more: Any
) -> list[tuple[str, int, list[str]]]:
    """Encoder, start and the joined words of each entry of the batch."""
    found = texts_of(given, call or {}, start=more.pop("start", 0), length=length, branches=branches, **more)
    return [(text.encoder, text.start, [_joined(text, entry) for entry in range(len(branches))]) for text in found]


def _joined(text: Text, entry: int) -> str:
    return " ".join(word.text for word in words_at([text], entry) if not word.special)


def test_each_branch_has_its_prompt() -> None:
    """Without further evidence the prompt is encoded first and the negative one second."""
    given = prompts(text_encoder=[(clip, "red ring"), (clip, "blurry")])
    assert read(given) == [("text_encoder", 0, ["blurry", "red ring"])]


def test_text_tells_prompts_apart() -> None:
    """A pipeline that encodes the negative prompt first, or both in one call, is understood by the texts."""
    call = {"prompt": "Red ring", "negative_prompt": "blurry"}
    first = prompts(text_encoder=[(clip, "blurry"), (clip, "red ring")])
    together = prompts(text_encoder=[(clip, ["blurry", "red ring"])])
    for given in (first, together):
        assert read(given, call=call) == [("text_encoder", 0, ["blurry", "red ring"])]


def test_a_negative_prompt_that_begins_the_prompt() -> None:
    """Where the texts could be either, the order decides."""
    given = prompts(text_encoder=[(clip, "red ring"), (clip, "red")])
    call = {"prompt": "red ring", "negative_prompt": "red"}
    assert read(given, call=call) == [("text_encoder", 0, ["red", "red ring"])]


def test_several_images_of_several_prompts() -> None:
    """Within a branch every prompt has as many images in a row."""
    given = prompts(text_encoder=[(clip, ["red", "blue"]), (clip, ["", ""])])
    branches = ["unconditional"] * 4 + ["conditional"] * 4
    assert read(given, branches=branches) == [("text_encoder", 0, ["", "", "", "", "red", "red", "blue", "blue"])]
    assert read(given, branches=["conditional"] * 3) == []


def test_encoders_side_by_side() -> None:
    """The two CLIPs of SDXL share positions, each with its own prompt."""
    given = prompts(text_encoder=[(clip, "ring"), (clip, "")], text_encoder_2=[(clip, "gold"), (clip, "")])
    assert read(given) == [("text_encoder", 0, ["", "ring"]), ("text_encoder_2", 0, ["", "gold"])]


def test_encoders_one_after_the_other() -> None:
    """SD 3 puts T5's tokens behind those of the CLIPs, which share theirs."""
    given = prompts(
        text_encoder=[(clip, "ring")], text_encoder_2=[(clip, "ring")], text_encoder_3=[(t5, "a golden ring")]
    )
    assert read(given, length=13, start=100, branches=["conditional"]) == [
        ("text_encoder", 100, ["ring"]),
        ("text_encoder_2", 100, ["ring"]),
        ("text_encoder_3", 105, ["a golden ring"]),
    ]


@pytest.mark.parametrize("t5_length", [5, 8])
def test_a_pooled_encoder_takes_no_part(t5_length: int) -> None:
    """Flux attends to T5's tokens and uses CLIP pooled, also where both have the same length."""
    given = prompts(text_encoder=[(clip, "ring")], text_encoder_2=[(t5, "a ring", t5_length)])
    assert read(given, length=t5_length, branches=[""]) == [("text_encoder_2", 0, ["a ring"])]


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ([], {}),
        (prompts(text_encoder=[(clip, "ring", 4)]), {"branches": [""]}),
        (prompts(text_encoder=[(t5, "ring", 5)], text_encoder_2=[(t5, "x", 3)]), {"branches": [""]}),
        (prompts(text_encoder=[(clip, "ring"), (clip, "")]), {"branches": [""]}),
        (prompts(text_encoder=[(clip, "ring"), (clip, "")]), {"branches": ["part 0", "part 1", "part 2"]}),
        (prompts(text_encoder=[(clip, "ring"), (clip, "dot"), (clip, "star")]), {}),
        ([Prompt("text_encoder", 0, (), (), np.zeros((0, 0), np.int64))], {"branches": [""]}),
    ],
    ids=["no prompts", "other length", "part of two", "two texts, one branch", "three parts", "three texts", "broken"],
)
def test_what_is_not_certain_is_not_said(given: list[Prompt], options: dict[str, Any]) -> None:
    """Where lengths or branches do not settle it, there are no strings at all."""
    assert read(given, **options) == []


def test_one_branch_alone_may_be_known() -> None:
    """Where the negative prompt is not in the trace, the entries of its branch have no words."""
    assert read(prompts(text_encoder=[(clip, "ring")])) == [("text_encoder", 0, ["", "ring"])]


def test_a_text_encoder_sees_its_own_input() -> None:
    """Self-attention of an encoder's n-th call is over the tokens of that call."""
    given = prompts(text_encoder=[(clip, "ring"), (clip, "dot")])
    own: dict[str, Any] = {"branches": [""], "encoder": "text_encoder"}
    assert read(given, **own, encoder_call=1) == [("text_encoder", 0, ["dot"])]
    assert read(given, **own, encoder_call=2) == []
    assert read(given, **own, length=7) == []


def test_words_of_shared_positions_are_named_once() -> None:
    """Two encoders that were given the same words show each of them once, where they stand in the sequence."""
    given = prompts(text_encoder=[(clip, "ring")], text_encoder_2=[(clip, "ring")])
    found = texts_of(given, {}, start=10, length=5, branches=[""])
    assert [(word.text, word.positions) for word in words_at(found, 0)][1:] == [
        ("ring", (11,)),
        ("<|endoftext|>", (12, 13, 14)),
    ]
