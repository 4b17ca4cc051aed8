"""Which text the keys of an attention belong to: by length and branch, and nothing where that is not certain."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..batches import Batch
from ..prompts import Prompt
from .roles import CONDITIONAL, UNCONDITIONAL, roles_of
from .words import Word, words_of

__all__ = ["CONDITIONAL", "UNCONDITIONAL", "Text", "proven_texts", "texts_of", "words_at"]

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
    assume: bool = True,
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
        assume: Take the second text for the negative one where nothing else tells, as was done for version 1.
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
        Text(name, start + offset, _of_batch(by_encoder[name], call, branches, assume=assume))
        for name, offset in found[0].items()
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


def _of_batch(calls: Sequence[Prompt], call: Mapping[str, Any], branches: Sequence[str], *, assume: bool) -> Rows:
    """Tokens of each entry of the batch: within a branch every prompt has as many images in a row."""
    rows = {branch: _of_branch(calls, call, branch, assume=assume) for branch in dict.fromkeys(branches)}
    counts = {branch: branches.count(branch) for branch in rows}
    seen = dict.fromkeys(rows, 0)
    found: list[tuple[str, ...]] = []
    for branch in branches:
        own = rows[branch]
        fits = own and not counts[branch] % len(own)
        found.append(own[seen[branch] * len(own) // counts[branch]] if fits else ())
        seen[branch] += 1
    return tuple(found)


def _of_branch(calls: Sequence[Prompt], call: Mapping[str, Any], branch: str, *, assume: bool) -> Rows:
    """Tokens of the prompts of one branch: told apart by their text, else by order, the negative prompt second."""
    if branch == "":  # one branch only, as long as one text was encoded only
        return calls[0].tokens if len({prompt.tokens for prompt in calls}) == 1 else ()
    if branch not in (CONDITIONAL, UNCONDITIONAL):
        return ()
    roles = iter(roles_of([text for prompt in calls for text in prompt.text], call) if call else ())
    own = [[next(roles, "") for _ in prompt.text] for prompt in calls]
    if len(calls) == 1:  # maybe both in one batch
        pairs = list(zip(own[0], calls[0].tokens, strict=False))
        return tuple(row for role, row in pairs if role == branch) or (
            calls[0].tokens if branch == CONDITIONAL and assume else ()
        )
    by_text = {prompt.tokens for prompt, found in zip(calls, own, strict=True) if found and set(found) == {branch}}
    if len(by_text) == 1:
        return by_text.pop()
    return calls[branch == UNCONDITIONAL].tokens if assume and len(calls) == 2 and not by_text else ()


def proven_texts(prompts: Sequence[Prompt], batch: Batch, *, start: int, length: int, entries: int) -> tuple[Text, ...]:
    """The texts behind a run of text positions, as they were followed by value while recording.

    Args:
        prompts: What the encoders of the run were given.
        batch: What the denoiser's call was given.
        start: First position.
        length: Number of positions. Where the model makes more or fewer of the sequence it was given, encoders fill
            them in the only way there is.
        entries: Of the attention's batch; each of the sequence stands for as many in a row.
    """
    if not batch.texts or entries % len(batch.texts):
        return ()
    rows = {(prompt.encoder, prompt.call): prompt for prompt in prompts}
    spans: dict[tuple[str, int], list[tuple[str, ...]]] = {}
    for at, texts in enumerate(batch.texts):
        for text in texts:
            prompt = rows.get((text.encoder, text.call))
            if prompt is None or text.prompt >= len(prompt.tokens):
                continue
            own = spans.setdefault((text.encoder, text.start), [()] * len(batch.texts))
            own[at] = prompt.tokens[text.prompt][text.first : text.first + text.length]
    each = entries // len(batch.texts)
    found = [
        Text(encoder, offset, tuple(row for row in own for _ in range(each)))
        for (encoder, offset), own in sorted(spans.items())
    ]
    if length == batch.length:
        return tuple(Text(text.encoder, start + text.start, text.tokens) for text in found)
    return _elsewhere(found, start, length)


def _elsewhere(texts: Sequence[Text], start: int, length: int) -> tuple[Text, ...]:
    """Texts in a sequence of another length than the one they were given in."""
    sizes = {(text.encoder, text.start): text.size for text in texts}
    firsts = dict(sorted({offset: size for (_, offset), size in sizes.items()}.items()))
    ways = [
        chosen
        for count in range(1, len(firsts) + 1)
        for chosen in itertools.combinations(firsts, count)
        if sum(firsts[offset] for offset in chosen) == length
    ]
    if len(ways) != 1:
        return ()
    places = dict(zip(ways[0], itertools.accumulate((firsts[at] for at in ways[0]), initial=0), strict=False))
    return tuple(Text(text.encoder, start + places[text.start], text.tokens) for text in texts if text.start in places)
