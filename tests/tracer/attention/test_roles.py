"""Prompts are told from negative ones by the arguments of the call."""

from __future__ import annotations

from typing import Any

import pytest

from diffusion_xray.tracer.attention.roles import roles_of

U, C = "unconditional", "conditional"
FRAME = "describe the picture: {} . answer"


@pytest.mark.parametrize(
    ("texts", "call", "roles"),
    [
        (["red ring", "blurry"], {"prompt": "Red  ring", "negative_prompt": "blurry"}, [C, U]),
        (["", "red ring"], {"prompt": "red ring", "negative_prompt": None}, [U, C]),
        (["red ring", "red"], {"prompt": "red ring", "negative_prompt": "red"}, [C, U]),
        (["red ring on"], {"prompt": "red ring on white"}, [C]),
        (["red", "dot", ""], {"prompt": ["red", "dot"]}, [C, C, U]),
        (["gold", "red"], {"prompt": "red", "prompt_2": "gold"}, [C, C]),
        (["red", "red"], {"prompt": "red", "negative_prompt": "red"}, ["", ""]),
        (["another"], {"prompt": "red", "negative_prompt": "blurry"}, [""]),
        (
            [FRAME.format("red ring"), FRAME.format("blurry")],
            {"prompt": "red ring", "negative_prompt": "blurry"},
            [C, U],
        ),
        ([FRAME.format("red ring"), FRAME.format("")], {"prompt": "red ring"}, [C, U]),
        (["you draw: red ring", "blurry"], {"prompt": "red ring", "negative_prompt": "blurry"}, [C, U]),
        (["you draw: red ring", "soft"], {"prompt": "red ring", "negative_prompt": "blurry"}, ["", ""]),
        ([FRAME.format("a picture"), FRAME.format("")], {"prompt": "picture"}, ["", ""]),
        ([FRAME.format("red ring"), FRAME.format("red")], {"prompt": "red ring", "negative_prompt": "red"}, [C, U]),
    ],
)
def test_by_the_arguments(texts: list[str], call: dict[str, Any], roles: list[str]) -> None:
    """The same text, the beginning of it, or a template around it; what matches both, or neither, is not known."""
    assert roles_of(texts, call) == roles


@pytest.mark.parametrize(
    ("texts", "roles"),
    [(["", "ring"], [U, C]), (["ring"], [""]), (["blurry", "ring"], ["", ""]), (["", "ring", "dot"], [U, "", ""])],
)
def test_a_loop_of_ones_own(texts: list[str], roles: list[str]) -> None:
    """Without arguments only an empty text beside another one tells something."""
    assert roles_of(texts, {}) == roles
