"""Maps and shares of words over layers of different resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from diffusion_xray.pipelines.shapes.world import IMAGE_SIZE
from diffusion_xray.tracer import SiteNotFoundError, Trace, open_trace

from ...attending import SELF, Call, made_trace

RNG = np.random.default_rng(0)
CLIP = ["<|startoftext|>", "a</w>", "ot", "ter</w>", "in</w>", "a</w>", "hat</w>", *["<|endoftext|>"] * 3]
NEGATIVE = ["<|startoftext|>", "blurry</w>", *["<|endoftext|>"] * 8]
T5 = ["▁gold", "en", "▁ring", "</s>", "<pad>", "<pad>"]


def draw(*shape: int) -> NDArray[np.float32]:
    """Random queries or keys."""
    return 2 * RNG.standard_normal(shape, np.float32)


SMALL = Call("made.small", draw(2, 2, 3, 6, 4), draw(2, 2, 3, 10, 4), [("image", (2, 3))], [("text", (10,))])
LARGE = Call("made.large", draw(2, 2, 1, 24, 4), draw(2, 2, 1, 10, 4), [("image", (4, 6))], [("text", (10,))])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """Two layers of cross-attention, one of self-attention."""
    image = [("image", (2, 3))]
    own = Call("made.self", draw(2, 2, 1, 6, 4), draw(2, 2, 1, 6, 4), image, image)
    return made_trace(
        tmp_path_factory.mktemp("words") / "words.zarr",
        [SMALL, own, LARGE],
        prompts=[("text_encoder", "an otter", [CLIP]), ("text_encoder", "blurry", [NEGATIVE])],
        guidance={"made": {"batch": ["unconditional", "conditional"]}},
    )


def share(call: Call, step: int, entry: int, positions: list[int]) -> NDArray[np.float64]:
    """The definition: probabilities summed over positions, shape (head, query)."""
    query, key = call.query[step, entry].astype(np.float64), call.key[step, entry].astype(np.float64)
    scores = np.exp(query @ np.swapaxes(key, -1, -2) * 0.5)
    return np.asarray((scores / scores.sum(-1, keepdims=True))[..., positions].sum(-1))


def enlarged(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 3) to (4, 6), linear between centres, as torch interpolates without aligned corners."""
    import torch

    grid = torch.from_numpy(plane.reshape(1, 1, 2, 3))
    scaled = torch.nn.functional.interpolate(grid, size=(4, 6), mode="bilinear", align_corners=False)
    return np.asarray(scaled[0, 0].numpy())


@pytest.mark.parametrize(
    ("word", "positions"), [("otter", [2, 3]), ("a", [1, 5]), ("in a hat", [4, 5, 6]), ("<|endoftext|>", [7, 8, 9])]
)
def test_a_map_is_the_mean_over_layers_and_heads(made: Trace, word: str, positions: list[int]) -> None:
    """Pieces and places of a word add up, heads are averaged, small layers enlarged, layers averaged."""
    expected = enlarged(share(SMALL, 1, 1, positions).mean(0)) + share(LARGE, 1, 1, positions)[0].reshape(4, 6)
    seen = made.word_map(word, step=1)
    assert seen.dims == ("y", "x")
    assert float(seen["timestep"]) == 999
    assert seen.attrs["layers"] == ["made.small", "made.large"]
    np.testing.assert_allclose(seen.values, expected / 2, rtol=1e-5)


def test_what_can_be_chosen(made: Trace) -> None:
    """Steps, layers, heads, branch and occurrence choose what is averaged."""
    every = made.word_map("otter")
    assert every.dims == ("step", "y", "x")
    np.testing.assert_array_equal(every.sel(step=1).values, made.word_map("otter", step=1).values)
    assert made.word_map("otter", step=[1]).sizes["step"] == 1
    small = made.word_map("otter", step=0, layers="made.s*", heads=2)
    np.testing.assert_allclose(small.values.ravel(), share(SMALL, 0, 1, [2, 3])[2], rtol=1e-5)
    second = made.word_map("a", step=0, layers="made.large", occurrence=1)
    np.testing.assert_allclose(second.values.ravel(), share(LARGE, 0, 1, [5])[0], rtol=1e-5)
    negative = made.word_map("blurry", step=0, layers="made.large", branch="unconditional")
    np.testing.assert_allclose(negative.values.ravel(), share(LARGE, 0, 0, [1])[0], rtol=1e-5)
    both = made.word_map(["otter", "hat"], step=0)
    assert both.dims == ("word", "y", "x")
    np.testing.assert_allclose(both.sel(word="hat").values, made.word_map("hat", step=0).values, rtol=1e-6)


def test_shares_of_words(made: Trace) -> None:
    """The words of a text share all of the attention; the second of two equal words has a label of its own."""
    mass = made.word_mass(step=0)
    assert mass["word"].values.tolist() == ["<|startoftext|>", "a", "otter", "in", "a#1", "hat", "<|endoftext|>"]
    np.testing.assert_allclose(mass.sum("word").values, 1, rtol=1e-5)
    assert float(mass.sel(layer="made.small", word="otter")) == pytest.approx(share(SMALL, 0, 1, [2, 3]).mean())
    phrase = made.word_mass("in a hat")
    assert phrase.sizes == {"step": 2, "layer": 2, "word": 1}
    assert float(phrase[0, 1, 0]) == pytest.approx(share(LARGE, 0, 1, [4, 5, 6]).mean(), rel=1e-5)


def test_maps_of_heads(made: Trace) -> None:
    """Every head of every layer has its map, and heads that a layer has not are NaN."""
    heads = made.head_maps("otter", step=1)
    assert heads.dims == ("layer", "head", "y", "x")
    assert np.isnan(heads.sel(layer="made.large").values).all(axis=(1, 2)).tolist() == [False, True, True]
    small = enlarged(share(SMALL, 1, 1, [2, 3])[2])
    np.testing.assert_allclose(heads.sel(layer="made.small", head=2).values, small, rtol=1e-5)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda trace: trace.word_map("oter"), "no word 'oter' .*otter.*Did you mean otter"),
        (lambda trace: trace.word_map("otter", branch="unconditional"), "it has <|startoftext|>, blurry"),
        (lambda trace: trace.word_map("a", occurrence=2), "stands 2 times"),
        (lambda trace: trace.word_map("otter", step=2), "no step 2; the trace has 2"),
        (lambda trace: trace.word_map("otter", step=-1), "no step -1"),
        (lambda trace: trace.word_map("otter", layers="made.smal"), "matches no module that attends.*made.small"),
        (lambda trace: trace.word_map("otter", layers="made.self"), "no attention of an image to text"),
        (lambda trace: trace.word_map("otter", heads=7), "no head 7 .*0, 1, 2"),
        (lambda trace: trace.word_map("otter", branch="best"), "no guidance branch 'best'.*unconditional, conditional"),
        (lambda trace: trace.word_map("otter", image=1), "no image 1"),
        (lambda trace: trace.words(image=-1), "no image -1"),
    ],
)
def test_what_is_not_there_is_named(made: Trace, ask: Any, message: str) -> None:
    """What cannot be chosen is an error that says what can."""
    with pytest.raises(SiteNotFoundError, match=message):
        ask(made)


@pytest.mark.filterwarnings("ignore:nothing was recorded")
def test_without_a_known_text_there_are_no_words(tmp_path: Path) -> None:
    """Keys whose text is not known have no words, and the error says where they can be read all the same."""
    trace = made_trace(tmp_path / "unknown.zarr", [SMALL])
    with pytest.raises(SiteNotFoundError, match=r"which text .* is not known.*trace.attention\(module\)"):
        trace.words()
    with pytest.raises(SiteNotFoundError, match="no attention was recorded; trace with capture='attention'"):
        made_trace(tmp_path / "none.zarr", []).word_map("otter")


def test_joint_attention_counts_image_queries_only(tmp_path: Path) -> None:
    """Of a joint sequence only the image's rows are drawn; text positions are counted from the text's start."""
    parts = [("text", (16,)), ("image", (2, 2))]
    joint = Call("made.joint", draw(1, 1, 2, 20, 4), draw(1, 1, 2, 20, 4), parts, parts)
    trace = made_trace(
        tmp_path / "joint.zarr", [joint], prompts=[("text_encoder", "otter", [CLIP]), ("text_encoder_2", "ring", [T5])]
    )
    words = {word.text: word.positions for word in trace.words()}
    assert words["otter"] == (2, 3)
    assert words["golden"] == (10, 11)
    seen = trace.word_map("golden ring", step=0)
    np.testing.assert_allclose(seen.values.ravel(), share(joint, 0, 0, [10, 11, 12]).mean(0)[16:], rtol=1e-5)


def test_guidance_in_separate_calls(tmp_path: Path) -> None:
    """Where each branch is a call of its own, a map is made of the calls of its branch."""
    image, text = [("image", (2, 2))], [("text", (10,))]
    calls = [Call("made.attn", draw(1, 1, 1, 4, 4), draw(1, 1, 1, 10, 4), image, text) for _ in range(2)]
    given = [("text_encoder", "an otter", [CLIP]), ("text_encoder", "blurry", [NEGATIVE])]
    trace = made_trace(tmp_path / "calls.zarr", calls, prompts=given, branches=("conditional", "unconditional"))
    for word, branch, call, position in (("hat", "conditional", 0, 6), ("blurry", "unconditional", 1, 1)):
        seen = trace.word_map(word, step=0, branch=branch)
        np.testing.assert_allclose(seen.values.ravel(), share(calls[call], 0, 0, [position])[0], rtol=1e-5)
    assert trace.attention("made.attn", call=1)["branch"].values.tolist() == ["unconditional"]


def test_steps_that_were_not_captured_are_nan(tmp_path: Path) -> None:
    """A step without tensors has no map, and is no zero in an average."""
    given = [("text_encoder", "an otter", [CLIP])]
    trace = made_trace(tmp_path / "sparse.zarr", [LARGE], prompts=given, captured=[1])
    seen = trace.word_map("hat", image=1)
    assert np.isnan(seen.values).all(axis=(1, 2)).tolist() == [True, False]
    np.testing.assert_allclose(seen.mean("step").values.ravel(), share(LARGE, 1, 1, [6])[0], rtol=1e-5)


def test_videos_keep_their_frames(tmp_path: Path) -> None:
    """A video's map has a frame dimension."""
    call = Call("made.video", draw(1, 1, 1, 12, 4), draw(1, 1, 1, 10, 4), [("image", (2, 3, 2))], [("text", (10,))])
    trace = made_trace(tmp_path / "video.zarr", [call], prompts=[("text_encoder", "an otter", [CLIP])])
    assert trace.word_map("otter").sizes == {"step": 1, "frame": 2, "y": 3, "x": 2}


def test_the_embedded_model_looks_at_what_it_draws(embedded: Path) -> None:
    """The left object's words are seen left of the right one's, whose masks the picture shows."""
    trace = open_trace(embedded)
    columns = np.arange(8)

    def middle(word: str) -> float:
        across = trace.word_map(word, step=2).sum("y").values
        return float((across * columns).sum() / across.sum())

    assert middle("circle") < 3.5 < middle("square")
    assert trace.images is not None
    assert trace.images.shape[1] == IMAGE_SIZE
    with pytest.raises(SiteNotFoundError, match="no attention of an image to text"):
        trace.word_map("circle", layers=SELF)
