"""The parts of a denoiser's batch are named as far as they are proven."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from diffusion_xray.tracer.recording.batches import DenoiserCall, named
from diffusion_xray.tracer.recording.provenance import Origin, Placement

U, C = "unconditional", "conditional"


def call(parts: int, roles: Sequence[str] = (), number: int = 0, context: str = "") -> DenoiserCall:
    """A call whose texts have these roles."""
    return DenoiserCall(number, parts, tuple(roles), context=context, evidence="embeddings" if any(roles) else "")


@pytest.mark.parametrize(
    ("parts", "roles", "chosen", "labels", "evidence"),
    [
        (2, [C, U], None, (C, U), "embeddings"),
        (2, [U, U, C, C], None, (U, C), "embeddings"),
        (2, [U, C, U, C], None, (U, C, U, C), "embeddings"),
        (2, ["", ""], 0, (C, U), "output"),
        (2, ["", ""], None, ("part 0", "part 1"), ""),
        (2, [], 1, (U, C), "output"),
        (2, [C, U], 1, (C, U), "embeddings"),
        (2, [C, ""], 1, (C, "part 1"), "embeddings"),
        (2, [C, C], 1, ("part 0", C), "embeddings"),
        (2, [C, C], None, ("part 0", "part 1"), ""),
        (3, [C, U, U], 0, (C, "part 1", "part 2"), "embeddings"),
        (3, [U, C, C], 1, (U, C, "part 2"), "embeddings"),
        (3, [U, C, C], None, (U, "part 1", "part 2"), "embeddings"),
    ],
)
def test_parts_of_a_batch(
    parts: int, roles: list[str], chosen: int | None, labels: tuple[str, ...], evidence: str
) -> None:
    """Texts tell first, then the result; of two parts with one text neither is named by it."""
    (found,) = named([call(parts, roles)], (), chosen)
    assert (found.labels, found.evidence) == (labels, evidence)


def test_a_single_part_has_no_name() -> None:
    """Without guidance there are no branches, unless the pipeline names its call."""
    assert named([call(1, [C])])[0].labels == ()
    assert named([call(1, [C], context="cond")])[0].labels == ("cond",)


def test_a_call_beside_those_of_guidance() -> None:
    """A step may call the denoiser once more with one branch, as self-attention guidance does."""
    calls = [call(2, [U, C]), call(1, [U], 1), call(1, [], 2)]
    assert [found.labels for found in named(calls)] == [(U, C), (U,), ("call 2",)]


def test_calls_of_their_own() -> None:
    """Guidance in separate calls: by texts, by the result, by the pipeline's own names, or by number."""

    def labels(*calls: DenoiserCall, twins: Sequence[int] = (), chosen: int | None = None) -> list[str]:
        return [found.labels[0] for found in named(calls, twins, chosen)]

    assert labels(call(1, [C]), call(1, [U], 1)) == [C, U]
    assert labels(call(1), call(1, (), 1), chosen=1) == [U, C]
    assert labels(call(1), call(1, (), 1)) == ["call 0", "call 1"]
    assert labels(call(1, context="pred_cond"), call(1, (), 1, "pred_cond_skip")) == ["pred_cond", "pred_cond_skip"]


def test_one_text_in_several_calls() -> None:
    """Of calls with the same latents one is perturbed, which is not known; those of other latents are tiles."""
    calls = [call(1, [C]), call(1, [C], 1)]
    assert [found.labels for found in named(calls, twins=[0, 1])] == [("call 0",), ("call 1",)]
    assert [found.labels for found in named(calls, twins=[0])] == [(C,), (C,)]


def test_texts_of_several_arguments_follow_one_another() -> None:
    """A denoiser that is given two sequences joins them in their order; of a length that differs nothing is said."""
    first, second = (Placement((Origin(name, 0, 0),), 0, 0, size, tokens=True) for name, size in (("a", 5), ("b", 7)))
    call = DenoiserCall(0, 1).with_texts([(first,)], 5)
    joined = call.with_texts([(second,)], 7)
    assert [(own.origins[0].source, own.start) for own in joined.texts[0]] == [("a", 0), ("b", 5)]
    assert joined.length == 12
    assert call.with_texts([(second,)], 0) == call
