"""The tokenizer: one token a grammar word, pieces for all others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from diffusion_xray.pipelines.shapes.tokenizer import MAX_TOKENS, make_tokenizer
from diffusion_xray.pipelines.shapes.world import sample_scene

TOKENIZER = make_tokenizer()


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_captions_have_one_token_a_word(seed: int, articles: bool) -> None:
    """Every word of every caption is one token, in order, and the caption fits the context."""
    words = sample_scene(np.random.default_rng(seed)).caption(articles=articles).split()
    assert TOKENIZER.tokenize(" ".join(words)) == [word + "</w>" for word in words]
    assert len(words) + 2 <= MAX_TOKENS


@pytest.mark.parametrize("word", ["dog", "crimson", "x", "redish", "42"])
def test_unknown_words_split_into_known_pieces(word: str) -> None:
    """A word outside the grammar becomes pieces that spell it, none of them the unknown token."""
    pieces = TOKENIZER.tokenize(word)
    assert "".join(pieces).replace("</w>", "") == word
    assert TOKENIZER.unk_token_id not in TOKENIZER.convert_tokens_to_ids(pieces)


def test_prompts_are_padded_to_the_context() -> None:
    """A prompt starts with the start token and is filled up with end tokens."""
    ids = TOKENIZER("red", padding="max_length")["input_ids"]
    assert len(ids) == MAX_TOKENS
    assert ids[0] == TOKENIZER.bos_token_id
    assert ids[2:] == [TOKENIZER.eos_token_id] * (MAX_TOKENS - 2)


def test_long_prompts_are_cut() -> None:
    """Truncation keeps the context length and the end token."""
    ids = TOKENIZER("red " * 40, truncation=True)["input_ids"]
    assert len(ids) == MAX_TOKENS
    assert ids[-1] == TOKENIZER.eos_token_id


def test_it_is_a_genuine_clip_tokenizer() -> None:
    """Tools that expect a `CLIPTokenizer` get one, the same every time."""
    assert isinstance(TOKENIZER, CLIPTokenizer)
    assert make_tokenizer().get_vocab() == TOKENIZER.get_vocab()
