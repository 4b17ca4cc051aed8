"""Numbers about attention, against the whole matrix."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from diffusion_xray.tracer import Trace, open_trace
from diffusion_xray.tracer.attention import measures

from ...attending import CROSS, SELF, Call, made_trace


@pytest.fixture(scope="module")
def trace(embedded: Path) -> Trace:
    """The embedded model's."""
    return open_trace(embedded)


def test_entropy_of_each_head(trace: Trace) -> None:
    """Entropy is that of the full rows, averaged over the queries, for each step, branch and head."""
    attention = trace.attention(SELF)
    full = attention.values.astype(np.float64)
    expected = -(full * np.log(np.where(full > 0, full, 1))).sum(-1).mean(-1)
    seen = measures.entropy(attention)
    assert seen.dims == ("step", "batch", "head")
    assert seen["timestep"].dims == ("step",)
    np.testing.assert_allclose(seen.values, expected, rtol=1e-4)


def test_entropy_has_known_ends(tmp_path: Path) -> None:
    """Looking everywhere alike is ln(keys), looking at one key is 0, and a step that was not captured is NaN."""
    query = np.zeros((3, 1, 2, 4, 1), np.float32)
    query[:, :, 1] = 1
    key = 1000 * np.arange(5, dtype=np.float32).reshape(1, 1, 1, 5, 1) * np.ones((3, 1, 2, 1, 1), np.float32)
    made = made_trace(tmp_path / "ends.zarr", [Call("made.a", query, key, [], [])], captured=[0, 2])
    seen = measures.entropy(made.attention("made.a")).values
    np.testing.assert_allclose(seen[0, 0], [np.log(5), 0], atol=1e-6)
    assert np.isnan(seen[1]).all()


def test_mass_of_each_word(trace: Trace) -> None:
    """Places of one word and the padding are added up, the same as `Trace.word_mass` has them."""
    attention = trace.attention(CROSS).sel(step=1).isel(batch=1)
    seen = measures.mass(attention)
    assert seen.dims == ("head", "word")
    np.testing.assert_allclose(seen.sum("word"), 1, rtol=1e-5)
    expected = trace.word_mass(step=1, layers=CROSS).isel(layer=0)
    np.testing.assert_allclose(seen.sel(word="circle").mean("head"), expected.sel(word="circle"), rtol=1e-5)
    both = expected.sel(word=["a", "a#1"]).sum()
    np.testing.assert_allclose(seen.sel(word="a").mean("head"), both, rtol=1e-5)


def test_mass_needs_words_of_one_text(trace: Trace) -> None:
    """Entries of the batch with words of their own have to be chosen from, and images have no words."""
    with pytest.raises(ValueError, match="select one"):
        measures.mass(trace.attention(CROSS))
    with pytest.raises(ValueError, match="no words"):
        measures.mass(trace.attention(SELF))


def test_top_keys_of_a_query(trace: Trace) -> None:
    """The keys a query looks at most come in falling order with their shares."""
    attention = trace.attention(SELF).isel(step=0, batch=1)
    seen = measures.top_keys(attention, 3)
    full = attention.values
    np.testing.assert_array_equal(seen["share"].values, -np.sort(-full, axis=-1)[..., :3])
    np.testing.assert_array_equal(np.take_along_axis(full, seen["key_index"].values, -1), seen["share"].values)
    assert seen["query_y"].dims == ("query",)
    assert measures.top_keys(attention.isel(key=slice(0, 2)), 9).sizes["rank"] == 2


def test_centre_of_attention(trace: Trace) -> None:
    """The middle of where a key is looked at from is the mean place of the queries, weighted by their attention."""
    attention = trace.attention(CROSS).isel(step=2, batch=1).sel(key=["circle", "square"])
    seen = measures.centre(attention)
    full = attention.values.reshape(4, 8, 8, 2)
    expected = (full * np.arange(8)[None, :, None, None]).sum((1, 2)) / full.sum((1, 2))
    np.testing.assert_allclose(seen["y"].values, expected, rtol=1e-4)
    left, right = seen["x"].mean("head").sel(key=["circle", "square"]).values
    assert left < right
    with pytest.raises(ValueError, match="no places of an image"):
        measures.centre(trace.attention("text_encoder.encoder.layers.0.self_attn"))


def test_text_queries_have_no_place(tmp_path: Path) -> None:
    """In a joint sequence only the image's queries count for a centre."""
    rng = np.random.default_rng(0)
    parts = [("text", (3,)), ("image", (2, 2))]
    query, key = rng.standard_normal((2, 1, 1, 1, 7, 2), np.float32)
    call = Call("made.joint", query, key, parts, parts)
    attention = made_trace(tmp_path / "joint.zarr", [call]).attention("made.joint").isel(step=0, batch=0, head=0)
    rows = attention.values[3:]
    np.testing.assert_allclose(measures.centre(attention)["x"], ([0, 1, 0, 1] @ rows) / rows.sum(0), rtol=1e-5)


def test_they_work_in_blocks(tmp_path: Path) -> None:
    """A map of 64 MB is measured in a small part of that."""
    rng = np.random.default_rng(0)
    query, key = rng.standard_normal((2, 1, 1, 1, 4096, 4), np.float32)
    call = Call("made.big", query, key, [("image", (64, 64))], [("image", (64, 64))])
    attention = made_trace(tmp_path / "big.zarr", [call]).attention("made.big")
    tracemalloc.start()
    try:
        for measure in (measures.entropy, measures.centre, measures.top_keys):
            tracemalloc.reset_peak()
            measure(attention)
            assert tracemalloc.get_traced_memory()[1] < 48e6
    finally:
        tracemalloc.stop()


def test_what_is_no_map_is_refused(trace: Trace) -> None:
    """A selection that has lost its queries cannot be measured."""
    with pytest.raises(ValueError, match="lacks query"):
        measures.entropy(trace.attention(SELF).isel(query=0))
