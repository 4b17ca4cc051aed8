"""What the tokens of an attention call are: told by what the enclosing modules were called with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffusion_xray.tracer.recording.sequence import Part, Received, sequence_parts

Kinds = list[tuple[str, tuple[int, ...]]]


def received(kind: str, patch: tuple[int, ...] = (), name: str = "model", **arguments: Any) -> Received:
    """A running module; tuples of numbers stand for tensors of that shape."""
    tensors = {
        key: torch.zeros(value) if isinstance(value, tuple) and all(isinstance(n, int) for n in value) else value
        for key, value in arguments.items()
    }
    return Received(name, kind, tensors, patch)


def told(
    *enclosing: Received, queries: int, keys: int, batch: int = 2, nth: int = 0, prompted: bool = True
) -> tuple[Kinds, Kinds]:
    """Kinds and shapes of the parts of queries and keys."""
    sides = sequence_parts(enclosing, batch=batch, queries=queries, keys=keys, nth=nth, prompted=prompted)
    assert [sum(part.tokens for part in side) for side in sides] == [queries, keys]
    first, second = ([(str(part.kind), part.shape) for part in side] for side in sides)
    return first, second


def ids(*grids: tuple[int, int, int]) -> torch.Tensor:
    """Positions of packed latents: (picture, height, width) of each."""
    return torch.tensor([[picture, y, x] for picture, h, w in grids for y in range(h) for x in range(w)]).float()


def test_parts_count_their_tokens() -> None:
    """A grid has as many tokens as it has places."""
    assert Part("image", (3, 4, 5)).tokens == 60


UNET = received("UNet2DConditionModel", sample=(2, 4, 16, 24), encoder_hidden_states=(2, 77, 32))
LAYER = received("Transformer2DModel", hidden_states=(2, 8, 4, 6), encoder_hidden_states=(2, 77, 32))
SELF = received("Attention", hidden_states=(2, 24, 8), encoder_hidden_states=None)
CROSS = received("Attention", hidden_states=(2, 24, 8), encoder_hidden_states=(2, 77, 32))


def test_the_nearest_picture_counts() -> None:
    """A level of a UNet has its own grid, and not that of the whole in patches of the same number."""
    assert told(UNET, LAYER, SELF, queries=24, keys=24) == ([("image", (4, 6))], [("image", (4, 6))])
    assert told(UNET, LAYER, CROSS, queries=24, keys=77) == ([("image", (4, 6))], [("text", (77,))])


def test_embeddings_without_text_encoders_are_not_text() -> None:
    """Nothing says that they are of a prompt."""
    assert told(UNET, LAYER, CROSS, queries=24, keys=77, prompted=False)[1] == [("other", (77,))]


def test_as_many_words_as_pixels() -> None:
    """Where numbers agree by chance, what the module was given to look at decides."""
    layer = received("Transformer2DModel", hidden_states=(2, 8, 7, 11))
    look = received("Attention", hidden_states=(2, 77, 8), encoder_hidden_states=(2, 77, 32))
    own = received("Attention", hidden_states=(2, 77, 8), encoder_hidden_states=None)
    assert told(UNET, layer, look, queries=77, keys=77) == ([("image", (7, 11))], [("text", (77,))])
    assert told(UNET, layer, own, queries=77, keys=77) == ([("image", (7, 11))], [("image", (7, 11))])


@pytest.mark.parametrize("tokens", [4, 77])
def test_image_prompts_are_other(tokens: int) -> None:
    """Keys of a later call beside image prompts are not text, even when there are as many."""
    pair = (torch.zeros(2, 77, 32), [torch.zeros(2, 1, tokens, 32)])
    attention = received("Attention", hidden_states=(2, 24, 8), encoder_hidden_states=pair)
    assert told(UNET, LAYER, attention, queries=24, keys=77)[1] == [("text", (77,))]
    assert told(UNET, LAYER, attention, queries=24, keys=tokens, nth=1)[1] == [("other", (tokens,))]


def test_frames_of_one_place_are_no_picture() -> None:
    """Attention along time is "other", even with as many frames as the picture has pixels."""
    motion = received("AnimateDiffTransformer3D", hidden_states=(48, 8, 4, 6))
    block = received("Attention", hidden_states=(48, 24, 8))
    assert told(UNET, LAYER, motion, block, queries=24, keys=24, batch=48)[0] == [("other", (24,))]
    assert told(UNET, LAYER, SELF, queries=24, keys=24, batch=48)[0] == [("other", (24,))], "another batch"


@pytest.mark.parametrize(
    ("root", "queries", "batch", "shape"),
    [
        (received("WanTransformer3DModel", (1, 2, 2), hidden_states=(2, 16, 3, 8, 12)), 72, 2, (3, 4, 6)),
        (received("CogVideoXTransformer3DModel", (2, 2), hidden_states=(2, 3, 16, 8, 12)), 72, 2, (3, 4, 6)),
        (received("MochiTransformer3DModel", (2, 2), hidden_states=(2, 16, 3, 8, 12)), 72, 2, (3, 4, 6)),
        (received("CogVideoXTransformer3DModel", (2, 2, 2), hidden_states=(2, 4, 16, 8, 12)), 48, 2, (2, 4, 6)),
        (received("LatteTransformer3DModel", (2, 2), hidden_states=(2, 16, 3, 8, 12)), 24, 6, (4, 6)),
        (
            received("LTXVideoTransformer3DModel", hidden_states=(2, 72, 8), num_frames=3, height=4, width=6),
            72,
            2,
            (3, 4, 6),
        ),
        (received("QwenImageTransformer2DModel", hidden_states=(2, 24, 8), img_shapes=[[(1, 4, 6)]]), 24, 2, (4, 6)),
        (received("PixArtTransformer2DModel", (2, 2), hidden_states=(2, 4, 8, 12)), 24, 2, (4, 6)),
        (received("Decoder", x=(2, 4, 7, 5)), 35, 2, (7, 5)),
        (received("Decoder", x=(2, 4, 7, 5)), 8, 2, None),
        (received("Anything", hidden_states=(2, 24, 8)), 24, 2, None),
        (received("Anything", attention_mask=(2, 1, 4, 6)), 24, 2, None),
    ],
)
def test_videos_patches_and_packed_latents(root: Received, queries: int, batch: int, shape: Any) -> None:
    """Grids follow from the denoiser's input in patches, with frames first or second, or from sizes given with it."""
    expected = [("other", (queries,))] if shape is None else [("image", shape)]
    assert told(root, received("Attention"), queries=queries, keys=queries, batch=batch) == (expected, expected)


def flux(**arguments: Any) -> Received:
    """A denoiser of packed latents."""
    return received("FluxTransformer2DModel", encoder_hidden_states=(1, 5, 8), **arguments)


def test_joint_sequences_have_text_and_image_in_their_order() -> None:
    """The order is that of the denoiser's class; of an unknown one nothing is said."""
    attention = received("Attention", hidden_states=(1, 6, 8), encoder_hidden_states=(1, 5, 8))
    text, image = ("text", (5,)), ("image", (2, 3))
    assert told(flux(img_ids=ids((0, 2, 3))), attention, queries=11, keys=11, batch=1)[0] == [text, image]
    for kind, expected in (("SD3Transformer2DModel", [image, text]), ("Unheard", [("other", (11,))])):
        root = received(kind, (2, 2), hidden_states=(1, 4, 4, 6), encoder_hidden_states=(1, 5, 8))
        assert told(root, attention, queries=11, keys=11, batch=1)[0] == expected
    unprompted = told(flux(img_ids=ids((0, 2, 3))), attention, queries=11, keys=11, batch=1, prompted=False)
    assert unprompted[0] == [("other", (11,))]


def test_learnt_tokens_before_the_text_are_no_text() -> None:
    """What is left of AuraFlow's sequence beside text and image stands first; with nothing left nothing is said."""
    attention = received("Attention", hidden_states=(1, 6, 8), encoder_hidden_states=(1, 13, 8))
    root = received("AuraFlowTransformer2DModel", (2, 2), hidden_states=(1, 4, 4, 6), encoder_hidden_states=(1, 5, 8))
    known = [("other", (8,)), ("text", (5,)), ("image", (2, 3))]
    assert told(root, attention, queries=19, keys=19, batch=1) == (known, known)
    assert told(root, attention, queries=11, keys=11, batch=1)[0] == [("other", (11,))]


def test_text_may_have_a_dimension_more() -> None:
    """Allegro gives its one text per prompt in a dimension of its own."""
    root = received(
        "AllegroTransformer3DModel", (1, 2, 2), hidden_states=(2, 4, 2, 4, 4), encoder_hidden_states=(2, 1, 5, 8)
    )
    attention = received("Attention", hidden_states=(2, 8, 8), encoder_hidden_states=(2, 5, 8))
    assert told(root, attention, queries=8, keys=5) == ([("image", (2, 2, 2))], [("text", (5,))])


def test_reference_pictures_are_parts_of_their_own() -> None:
    """Packed latents of several pictures are told apart; positions that are no grid are none."""
    single = received("FluxAttention", hidden_states=(1, 17, 8))
    root = flux(img_ids=ids((0, 2, 3), (1, 3, 2)))
    assert told(root, single, queries=17, keys=17, batch=1)[0] == [
        ("text", (5,)),
        ("image", (2, 3)),
        ("image", (3, 2)),
    ]
    shuffled = flux(img_ids=ids((0, 2, 3)).flip(0))
    assert told(shuffled, single, queries=11, keys=11, batch=1)[0] == [("other", (11,))]


def test_several_encoders_one_after_the_other() -> None:
    """Text of two encoders that the denoiser joins is one part."""
    root = received(
        "HunyuanDiT2DModel", (2, 2), hidden_states=(2, 4, 8, 12), encoder_hidden_states=(2, 7, 8),
        encoder_hidden_states_t5=(2, 9, 8), text_embedding_mask=(2, 7),
    )  # fmt: skip
    attention = received("Attention", hidden_states=(2, 24, 8), encoder_hidden_states=(2, 16, 8))
    assert told(root, attention, queries=24, keys=16)[1] == [("text", (16,))]


def test_refiners_of_text_work_on_text() -> None:
    """Where a picture has as many tokens as the prompt, a module that is named after the text works on that."""
    root = received("SanaTransformer2DModel", (2, 2), hidden_states=(2, 4, 8, 8), encoder_hidden_states=(2, 16, 8))
    refiner = received("Attention", name="transformer.context_refiner.0.attn", hidden_states=(2, 16, 8))
    block = received("Attention", name="transformer.blocks.0.attn", hidden_states=(2, 16, 8))
    assert told(root, refiner, queries=16, keys=16)[0] == [("text", (16,))]
    assert told(root, block, queries=16, keys=16)[0] == [("image", (4, 4))]


def test_text_encoders_attend_to_their_tokens() -> None:
    """Whoever is given token ids works on text."""
    root = Received("text_encoder", "CLIPTextModel", {"input_ids": torch.zeros(1, 9, dtype=torch.int64)})
    assert told(root, received("CLIPAttention"), queries=9, keys=9, batch=1, prompted=False)[0] == [("text", (9,))]


def test_pictures_given_beside_the_text_are_other() -> None:
    """Embeddings of an image, such as Wan's first frame, are no text, and doubtful lengths are neither."""
    root = received(
        "WanTransformer3DModel", (1, 2, 2), hidden_states=(1, 16, 1, 8, 12), encoder_hidden_states=(1, 5, 8),
        encoder_hidden_states_image=(1, 9, 8),
    )  # fmt: skip
    attention = received("WanAttention", hidden_states=(1, 24, 8), encoder_hidden_states=(1, 14, 8))
    assert told(root, attention, queries=24, keys=9, batch=1)[1] == [("other", (9,))]
    assert told(root, attention, queries=24, keys=5, batch=1, nth=1)[1] == [("text", (5,))]
