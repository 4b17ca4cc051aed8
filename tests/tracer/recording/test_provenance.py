"""Texts are found again by their values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffusion_xray.tracer.recording.provenance import Origin, Placement, Provenance


def made(seed: int, *shape: int) -> Tensor:
    """Random embeddings."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def known(*calls: Tensor, encoder: str = "one", content: Tensor | None = None) -> Provenance:
    """What remembers the outputs of an encoder's calls."""
    found = Provenance()
    add(found, *calls, encoder=encoder, content=content)
    return found


def add(found: Provenance, *calls: Tensor, encoder: str, content: Tensor | None = None) -> None:
    """Remember further ones."""
    for call, tensor in enumerate(calls):
        found.note([tensor], [(Origin(encoder, call, row),) for row in range(len(tensor))], content=content)


def origins(rows: list[tuple[Placement, ...]]) -> list[list[tuple[str, int, int]]]:
    """Encoder, call and row of each text of each entry."""
    return [[(o.source, o.call, o.row) for placement in row for o in placement.origins] for row in rows]


def test_entries_are_found_whatever_their_order() -> None:
    """Rows that were repeated for each image and put together are told one by one."""
    first, second = made(0, 2, 7, 32), made(1, 1, 7, 32)
    found = known(first, second).find(torch.cat([first[1:].repeat(2, 1, 1), second, first[:1]]))
    assert origins(found) == [[("one", 0, 1)], [("one", 0, 1)], [("one", 1, 0)], [("one", 0, 0)]]
    assert found[0] == (Placement((Origin("one", 0, 1),), 0, 0, 7, tokens=True),)


def test_channels_side_by_side() -> None:
    """Two encoders' vectors in one, and padded channels behind them."""
    one, other = made(0, 1, 7, 32), made(1, 1, 7, 48)
    found = known(one)
    add(found, other, encoder="two")
    given = torch.cat([one, other, torch.zeros(1, 7, 20)], -1)
    assert sorted(origins(found.find(given))[0]) == [("one", 0, 0), ("two", 0, 0)]


def test_sequences_one_behind_the_other() -> None:
    """Each text has its place."""
    one, other = made(0, 1, 5, 32), made(1, 1, 8, 32)
    found = known(one)
    add(found, other, encoder="two")
    placements = found.find(torch.cat([one, other], 1))[0]
    assert [(p.origins[0].source, p.start, p.first, p.length) for p in placements] == [
        ("one", 0, 0, 5),
        ("two", 5, 0, 8),
    ]


def test_cut_shifted_and_padded_sequences() -> None:
    """The beginning that a template made is dropped, the end is cut, or blank tokens follow."""
    text = made(0, 1, 9, 32)
    found = known(text)
    (dropped,), (cut,) = found.find(text[:, 3:])[0], found.find(text[:, :4])[0]
    (padded,) = found.find(torch.cat([text, torch.zeros(1, 4, 32)], 1))[0]
    assert (dropped.start, dropped.first, dropped.length) == (0, 3, 6)
    assert (cut.first, cut.length) == (0, 4)
    assert (padded.start, padded.length) == (0, 9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_casts(dtype: torch.dtype) -> None:
    """Values are compared as they read after the cast."""
    text = made(0, 2, 7, 32)
    assert origins(known(text).find(text.to(dtype))) == [[("one", 0, 0)], [("one", 0, 1)]]


def test_blanked_padding() -> None:
    """Padding may have been zeroed or replaced where the encoder was told what is padding, and nothing else."""
    text, mask = made(0, 1, 7, 32), torch.tensor([[1, 1, 1, 1, 0, 0, 0]])
    replaced = text.clone()
    replaced[:, 4:] = made(5, 1, 3, 32)
    assert origins(known(text, content=mask).find(replaced)) == [[("one", 0, 0)]]
    assert origins(known(text).find(text * mask[..., None])) == [[("one", 0, 0)]]
    assert origins(known(text).find(replaced)) == [[]]


def test_a_shared_beginning_proves_nothing() -> None:
    """Texts of one encoder may begin alike: a mixture of two has their first vector, and is neither."""
    one, other = made(0, 1, 7, 32), made(1, 1, 7, 32)
    other[:, 0] = one[:, 0]
    found = known(one, other)
    mixed = (one + other) / 2
    mixed[:, 0] = one[:, 0]
    assert origins(found.find(torch.cat([mixed, other]))) == [[], [("one", 1, 0)]]


def test_a_text_that_begins_another() -> None:
    """With padding unread, the longest text that is all there wins."""
    long, mask = made(0, 1, 6, 32), torch.tensor([[1, 1, 1, 1, 1, 0]])
    short = torch.cat([long[:, :2], made(1, 1, 4, 32)], 1)
    found = known(long, content=mask)
    found.note([short], [(Origin("one", 1, 0),)], content=torch.tensor([[1, 1, 0, 0, 0, 0]]))
    assert origins(found.find(torch.cat([long, short]))) == [[("one", 0, 0)], [("one", 1, 0)]]


def test_equal_texts_are_all_named() -> None:
    """A negative prompt that equals the prompt cannot be told from it."""
    text = made(0, 1, 7, 32)
    assert origins(known(text, text.clone()).find(text)) == [[("one", 0, 0), ("one", 1, 0)]]


def test_what_a_projection_makes_is_followed() -> None:
    """The rows of its output are those of its input."""
    text, projected = made(0, 2, 7, 32), made(3, 2, 7, 16)
    found = known(text)
    found.derive([text.flip(0)], [projected])
    assert origins(found.find(projected)) == [[("one", 0, 1)], [("one", 0, 0)]]


def test_pooled_vectors() -> None:
    """One vector for a whole text tells it, too, and is no token."""
    pooled = made(0, 2, 32)
    found = known(pooled).find(pooled.flip(0))
    assert origins(found) == [[("one", 0, 1)], [("one", 0, 0)]]
    assert not found[0][0].tokens


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_vectors_of_one_value_prove_nothing(value: float) -> None:
    """Zeros and NaN are everywhere."""
    text = torch.full((1, 7, 32), value)
    assert origins(known(text).find(text)) == [[]]
