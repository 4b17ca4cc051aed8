"""Whether a text that an encoder received is the prompt or the negative one, told by the arguments of the call."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["CONDITIONAL", "UNCONDITIONAL", "roles_of", "texts_given"]

CONDITIONAL: Final = "conditional"
UNCONDITIONAL: Final = "unconditional"


def roles_of(texts: Sequence[str], call: Mapping[str, Any]) -> list[str]:
    """The guidance branch of each text that one encoder received, "" where the arguments do not settle it.

    A text may be an argument as it is, one that was cut, or one within a template, as language models have it; of a
    template around prompts alone it is enough that negative ones are there as they are. A better match wins; where
    prompt and negative prompt match alike, neither does. Without arguments (a loop of one's own) an
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
    framed = _framed(seen, given, negative) or {
        **dict.fromkeys(_holding(seen, given, others=negative), CONDITIONAL),
        **dict.fromkeys(_holding(seen, negative, others=given), UNCONDITIONAL),
    }
    return [_role(_best(text, given), _best(text, negative)) or framed.get(text, "") for text in seen]


def _framed(texts: Sequence[str], given: set[str], negative: set[str]) -> dict[str, str]:
    """Roles of texts in a template, which is what is left of a prompt and of a negative one alike."""

    def frames(entries: set[str]) -> dict[str, set[str]]:
        return {
            text: {
                " ".join(f" {text} ".replace(f" {entry} ", " ", 1).split()) if entry else text
                for entry in entries
                if not entry or f" {entry} " in f" {text} "
            }
            for text in texts
        }

    prompts, negatives = frames(given), frames(negative)
    template = set().union(*prompts.values()) & set().union(*negatives.values()) - {""}
    found: dict[str, str] = {}
    for text in texts:
        is_prompt, is_negative = bool(prompts[text] & template), bool(negatives[text] & template)
        if is_prompt != is_negative:
            found[text] = CONDITIONAL if is_prompt else UNCONDITIONAL
    return found


def _holding(texts: Sequence[str], entries: set[str], *, others: set[str]) -> list[str]:
    """Texts that hold one of the entries, where the other entries are all there as texts of their own."""
    if not others or not others <= set(texts):
        return []
    return [
        text for text in texts if text not in others and any(entry and f" {entry} " in f" {text} " for entry in entries)
    ]


def texts_given(call: Mapping[str, Any], argument: str) -> set[str]:
    """The values of an argument and of those for further encoders ("prompt_2"), as they compare."""
    values = [value for name, value in call.items() if name == argument or name.startswith(f"{argument}_")]
    listed = [entry for value in values for entry in (value if isinstance(value, list | tuple) else [value])]
    return {_plain(entry) for entry in listed if isinstance(entry, str)}


def _role(prompt: int, negative: int) -> str:
    if prompt == negative:
        return ""
    return CONDITIONAL if prompt < negative else UNCONDITIONAL


def _best(seen: str, given: set[str]) -> int:
    """How well a text is one of those given: 0 the same, 1 the beginning of it, 2 neither."""
    own, entries = seen.replace(" ", ""), {entry.replace(" ", "") for entry in given}  # tokenizers change spaces
    if own in entries:
        return 0
    return 1 if own and any(entry.startswith(own) for entry in entries) else 2


def _plain(text: str) -> str:
    """Words without letter case and marks, which tokenizers change; marks alone as they are."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold())) or "".join(text.split())
