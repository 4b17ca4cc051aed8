"""`Trace.attention`: lazy indexing is indexing of the whole matrix, and the coordinates say what is what."""

from __future__ import annotations

import json
import pickle
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from xarray.core import indexing

from diffusion_xray.tracer import SiteNotFoundError, Trace, TraceFormatError, open_trace
from diffusion_xray.tracer.attention.info import AttentionInfo
from diffusion_xray.tracer.attention.lazy import AttentionArray
from diffusion_xray.tracer.info import SiteInfo

from ...attending import CROSS, PROMPT, SELF, Call, made_trace

RNG = np.random.default_rng(0)
TOKENS = ["<|startoftext|>", "red</w>", "ring</w>", "<|endoftext|>", "<|endoftext|>"]
EMPTY = ["<|startoftext|>", *["<|endoftext|>"] * 4]


def draw(*shape: int) -> NDArray[np.float32]:
    """Random queries or keys."""
    return RNG.standard_normal(shape, np.float32)


def softmax(query: NDArray[Any], key: NDArray[Any], scale: float = 0.5) -> NDArray[np.float64]:
    """The whole matrix in float64; heads of the queries share those of the keys."""
    key = np.repeat(key, query.shape[-3] // key.shape[-3], axis=-3)
    scores = np.exp(query.astype(np.float64) @ np.swapaxes(key, -1, -2).astype(np.float64) * scale)
    return np.asarray(scores / scores.sum(-1, keepdims=True))


GROUPED = Call("made.grouped", draw(3, 2, 4, 6, 3), draw(3, 2, 2, 5, 3), [("image", (2, 3))], [("text", (5,))])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """A trace with calls of every kind."""
    joint = [("image", (2, 3)), ("text", (5,))]
    calls = [
        GROUPED,
        Call("made.joint", draw(3, 2, 2, 11, 4), draw(3, 2, 2, 11, 4), joint, joint, heads=[1, 5]),
        Call("made.video", draw(3, 2, 1, 8, 4), draw(3, 2, 1, 8, 4), [("image", (2, 1, 4))], [("image", (2, 1, 4))]),
        Call("made.twice", draw(3, 2, 1, 4, 4), draw(3, 2, 1, 5, 4), [("image", (2, 2))], [("text", (5,))]),
        Call("made.twice", draw(3, 2, 1, 4, 4), draw(3, 2, 1, 3, 4), [("image", (2, 2))], [("other", (3,))], call=1),
        Call("made.once", draw(1, 2, 7, 4), draw(1, 2, 7, 4), [("other", (7,))], [("other", (7,))], causal=True),
    ]
    return made_trace(
        tmp_path_factory.mktemp("made") / "made.zarr",
        calls,
        prompts=[("text_encoder", "red ring", [TOKENS]), ("text_encoder", "", [EMPTY])],
        guidance={"made": {"batch": ["unconditional", "conditional"]}},
    )


def index(size: int) -> st.SearchStrategy[Any]:
    """A number, a slice, or a list of places with repetitions, of a dimension."""
    numbers = st.integers(-size, size - 1)
    return st.one_of(numbers, st.slices(size), st.lists(numbers, max_size=4).map(lambda at: np.array(at, np.intp)))


@settings(max_examples=150)
@given(st.data())
def test_lazy_indexing_is_numpy_indexing(made: Trace, data: st.DataObject) -> None:
    """Any selection along each dimension gives what the same selection of the whole matrix gives."""
    full = softmax(GROUPED.query, GROUPED.key)
    lazy = made.attention("made.grouped")
    keys = tuple(data.draw(index(size)) for size in full.shape)
    expected = full
    for axis, key in reversed(list(enumerate(keys))):
        expected = expected[(slice(None),) * axis + (key,)]
    seen = lazy[keys]
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen.values, expected, rtol=1e-5, atol=1e-6)


def test_it_computes_nothing_before_it_is_asked(made: Trace) -> None:
    """Selections stay lazy however they are chained, and are right when computed."""
    lazy = made.attention("made.grouped").isel(step=slice(1, None), head=[3, 1]).sel(key=["ring", "red"])
    assert not lazy.variable._in_memory
    np.testing.assert_allclose(lazy.values, softmax(GROUPED.query, GROUPED.key)[1:, :, [3, 1]][..., [2, 1]], rtol=1e-5)


class _Counting:
    """Stands in for what reads the store: counts the steps that are read."""

    def __init__(self, query: NDArray[Any], key: NDArray[Any]) -> None:
        self.query, self.key = query, key
        self.read: list[tuple[int, ...]] = []

    def of(self, step: int, entry: int, heads: list[int]) -> tuple[NDArray[Any], NDArray[Any], None]:
        """Heads of one step."""
        self.read.append((step, entry, *heads))
        return self.query[step, entry, heads], self.key[step, entry, heads], None


def _lazy(inputs: _Counting) -> indexing.LazilyIndexedArray:
    sites = [
        SiteInfo("m", port, 0, 0, 0, "", "float32", array.shape[1:], (), "", "m", True)
        for port, array in (("query", inputs.query), ("key", inputs.key))
    ]
    call = AttentionInfo("m", 0, "self", scale=0.5, query=sites[0], key=sites[1])
    made: Any = inputs
    return indexing.LazilyIndexedArray(AttentionArray(made, call, len(inputs.query)))


def test_only_what_is_asked_for_is_read() -> None:
    """Steps, batch entries and heads that are not selected are never read."""
    inputs = _Counting(draw(5, 2, 3, 4, 2), draw(5, 2, 3, 4, 2))
    key = (slice(1, 4, 2), 1, slice(0, 2), 3, slice(None))
    np.asarray(_lazy(inputs)[indexing.BasicIndexer(key)].get_duck_array())
    assert inputs.read == [(1, 1, 0, 1), (3, 1, 0, 1)]


def test_memory_is_that_of_the_answer() -> None:
    """One row, or one key of every row, of a map of 256 MB takes a small part of it."""
    inputs = _Counting(draw(1, 1, 4, 4096, 8), draw(1, 1, 4, 4096, 8))
    lazy = _lazy(inputs)
    tracemalloc.start()
    try:
        for key in ((0, 0, 1, 7, slice(None)), (0, 0, slice(None), slice(None), 3)):
            tracemalloc.reset_peak()
            np.asarray(lazy[indexing.BasicIndexer(key)].get_duck_array())
            assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


def test_coordinates_of_cross_attention(made: Trace) -> None:
    """Steps, branches, places and words are coordinates, and a token of the prompt selects its key."""
    lazy = made.attention("made.grouped")
    assert lazy.dims == ("step", "batch", "head", "query", "key")
    assert lazy["timestep"].values.tolist() == [1000, 999, 998]
    assert lazy["branch"].values.tolist() == ["unconditional", "conditional"]
    assert lazy["query_y"].values.tolist() == [0, 0, 0, 1, 1, 1]
    assert lazy["query_x"].values.tolist() == [0, 1, 2, 0, 1, 2]
    assert lazy["key"].values.tolist() == ["<|startoftext|>", "red", "ring", "<|endoftext|>", "<|endoftext|>#1"]
    assert lazy["key_position"].values.tolist() == [0, 1, 2, 3, 4]
    assert lazy["key_token"].isel(batch=0).values.tolist() == EMPTY
    assert set(lazy["key_part"].values) == {"text"}
    assert lazy.attrs["kind"] == "cross"
    assert float(lazy.isel(step=0, batch=1, head=0, query=0).sel(key="ring")) == pytest.approx(
        softmax(GROUPED.query, GROUPED.key)[0, 1, 0, 0, 2]
    )


def test_coordinates_of_joint_attention(made: Trace) -> None:
    """A joint sequence is split into image and text; heads that were not kept leave gaps in the numbers."""
    lazy = made.attention("made.joint")
    assert lazy.attrs["kind"] == "joint"
    assert lazy["head"].values.tolist() == [1, 5]
    assert lazy["key"].values.tolist() == list(range(11))
    assert lazy["key_part"].values.tolist() == ["image"] * 6 + ["text"] * 5
    assert lazy["key_y"].values.tolist() == [0, 0, 0, 1, 1, 1, -1, -1, -1, -1, -1]
    assert lazy["key_word"].isel(batch=1).values.tolist()[6:] == [
        "<|startoftext|>",
        "red",
        "ring",
        "<|endoftext|>",
        "<|endoftext|>",
    ]
    assert lazy.sel(head=5).isel(key=(lazy["key_word"].isel(batch=1) == "ring").values).shape == (3, 2, 11, 1)


def test_frames_calls_and_what_is_outside_of_the_loop(made: Trace) -> None:
    """Videos have frames, a second call is a map of its own, and outside of the loop there is no step."""
    assert made.attention("made.video")["key_frame"].values.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    second = made.attention("made.twice", call=1)
    assert second.sizes["key"] == 3
    assert "key_token" not in second.coords
    once = made.attention("made.once")
    assert once.dims == ("batch", "head", "query", "key")
    assert "branch" not in once.coords
    assert float(abs(np.triu(once.values[0, 0], 1)).max()) == 0
    assert {name: [call.kind for call in calls] for name, calls in made.attention_modules.items()} == {
        "made.grouped": ["cross"],
        "made.joint": ["joint"],
        "made.video": ["self"],
        "made.twice": ["cross", "cross"],
        "made.once": ["self"],
    }


def test_a_mask_is_read(tmp_path: Path) -> None:
    """A stored mask, cut to size 1 where it was broadcast, masks the keys."""
    mask = np.ones((1, 1, 1, 1, 4), bool)
    mask[..., 2:] = False
    call = Call("made.masked", draw(1, 2, 1, 3, 2), draw(1, 2, 1, 4, 2), [], [], mask=mask)
    seen = made_trace(tmp_path / "masked.zarr", [call]).attention("made.masked")
    assert (seen.values[..., 2:] == 0).all()
    np.testing.assert_allclose(seen.values[..., :2], softmax(call.query, call.key[..., :2, :]), rtol=1e-5)


def test_steps_that_were_not_captured_are_nan(tmp_path: Path) -> None:
    """A step of which no tensors were kept is NaN, masked or not, and never looks like attention to nothing."""
    mask = np.zeros((3, 1, 1, 1, 4), bool)
    call = Call("made.sparse", draw(3, 1, 1, 2, 2), draw(3, 1, 1, 4, 2), [], [], mask=mask)
    seen = made_trace(tmp_path / "sparse.zarr", [call], captured=[0, 2]).attention("made.sparse")
    assert np.isnan(seen.values).all(axis=(1, 2, 3, 4)).tolist() == [False, True, False]
    assert (seen.values[[0, 2]] == 0).all()


def test_masks_that_come_and_go(tmp_path: Path) -> None:
    """A step without a mask has none, one whose mask was lost is NaN, and a mask belongs to its own call."""
    hides = np.array([True, True, False]).reshape(1, 1, 1, 3)
    plain = Call("made.a", draw(3, 1, 1, 2, 2), draw(3, 1, 1, 3, 2), [], [])
    masked = Call("made.a", draw(3, 1, 1, 2, 2), draw(3, 1, 1, 3, 2), [], [], mask=[hides, None, hides], lost_masks=[2])
    trace = made_trace(tmp_path / "masks.zarr", [plain, masked])
    np.testing.assert_allclose(trace.attention("made.a").values, softmax(plain.query, plain.key), rtol=1e-5)
    seen = trace.attention("made.a", call=1).values
    assert (seen[0, ..., 2] == 0).all()
    np.testing.assert_allclose(seen[1], softmax(masked.query, masked.key)[1], rtol=1e-5)
    assert np.isnan(seen[2]).all()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(trace.attention("made.a", call=1))).values, seen)


def test_a_module_in_and_outside_of_the_loop(tmp_path: Path) -> None:
    """Calls of one number inside and outside are two entries; the one in the loop is shown."""
    once = Call("made.a", draw(1, 1, 4, 2), draw(1, 1, 4, 2), [], [], call=0, stepped=False)
    inside = Call("made.a", draw(2, 1, 1, 3, 2), draw(2, 1, 1, 5, 2), [], [], call=0, stepped=True)
    trace = made_trace(tmp_path / "both.zarr", [once, inside])
    assert [call.shape for call in trace.attention_modules["made.a"]] == [(1, 1, 4, 4), (1, 1, 3, 5)]
    np.testing.assert_allclose(trace.attention("made.a").values, softmax(inside.query, inside.key), rtol=1e-5)


def test_it_can_be_sent_to_another_process(made: Trace) -> None:
    """A pickled map is small, holds no data, and computes the same."""
    lazy = made.attention("made.grouped")
    lazy[0].load()
    packed = pickle.dumps(lazy)
    assert len(packed) < 20_000
    np.testing.assert_array_equal(pickle.loads(packed).values, lazy.values)


def test_the_embedded_model(embedded: Path) -> None:
    """A genuine pipeline's cross-attention has the words of both prompts, its rows sum to one."""
    trace = open_trace(embedded)
    lazy = trace.attention(CROSS)
    assert lazy.sizes == {"step": 3, "batch": 2, "head": 4, "query": 64, "key": 20}
    assert lazy["key"].values[1:11].tolist() == [*PROMPT.split()[:5], "a#1", *PROMPT.split()[6:]]
    assert lazy["key_word"].isel(batch=0).values[1] == "<|endoftext|>"
    np.testing.assert_allclose(lazy.sum("key").values, 1, rtol=1e-5)
    assert trace.attention(SELF)["key_x"].values.max() == 7
    encoder = trace.attention("text_encoder.encoder.layers.0.self_attn")
    assert encoder["query"].values[3] == "circle"
    assert encoder.sel(query="circle").dims == ("batch", "head", "key")
    assert [word.text for word in trace.words()][1:-1] == PROMPT.split()
    with pytest.raises(SiteNotFoundError, match=r"no attention of 'unet.conv_in'.*Capture\(attention='unet.conv_in'\)"):
        trace.attention("unet.conv_in")


# What is not there, and what is broken.


@pytest.mark.parametrize(
    ("module", "call", "message"),
    [
        ("made.group", 0, "no module 'made.group' .*Did you mean made.grouped"),
        ("made.twice", 2, "'made.twice' has no attention call 2 .*it has 0, 1"),
    ],
)
def test_what_is_not_there_says_why(made: Trace, module: str, call: int, message: str) -> None:
    """A map that cannot be read is an error that says what would have recorded it."""
    with pytest.raises(SiteNotFoundError, match=message):
        made.attention(module, call)


def test_linear_attention_has_no_map(tmp_path: Path) -> None:
    """A module without softmax says so, and its reason."""
    call = Call("made.linear", draw(1, 1, 1, 2, 2), draw(1, 1, 1, 2, 2), [], [], softmax=False, reason="linear\x1b[31m")
    trace = made_trace(tmp_path / "linear.zarr", [call])
    assert trace.attention_modules["made.linear"][0].kind == "none"
    with pytest.raises(SiteNotFoundError, match=r"no attention map .*: linear\\x1b"):
        trace.attention("made.linear")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"scale": None}, "scale is None, not a number"),
        ({"scale": "0.5"}, "not a number"),
        ({"scale": [1]}, "not a number"),
        ({"scale": True}, "not a number"),
        ({"softmax": 1}, "has none"),
    ],
    ids=repr,
)
def test_an_entry_that_cannot_be_believed(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    """Without a scale there is no map, and the error says so."""
    call = Call("made.broken", draw(1, 1, 1, 2, 2), draw(1, 1, 1, 2, 2), [], [], **entry)
    with pytest.raises((SiteNotFoundError, TraceFormatError), match=message):
        made_trace(tmp_path / "broken.zarr", [call]).attention("made.broken")


@pytest.mark.parametrize(
    "entry",
    [
        {"heads": [0, 1, 2]},
        {"heads": "all"},
        {"heads": [None]},
        {"door": ["x"]},
        {"causal": "yes"},
        {"kind": "self"},
    ],
    ids=repr,
)
def test_an_entry_with_odd_fields_is_defaulted(tmp_path: Path, entry: dict[str, Any]) -> None:
    """Fields that are not what they should be are left out; the map is there."""
    call = Call("made.odd", draw(1, 1, 1, 2, 2), draw(1, 1, 1, 2, 2), [], [], **entry)
    seen = made_trace(tmp_path / "odd.zarr", [call]).attention("made.odd")
    np.testing.assert_allclose(seen.values, softmax(call.query, call.key), rtol=1e-5)
    assert seen["head"].values.tolist() == [0]


@pytest.mark.parametrize("shape", [(1, 3, 1, 2, 2), (1, 1, 2, 2, 2), (1, 1, 1, 2, 5)])
def test_keys_that_do_not_fit(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Keys that cannot have met these queries are told as such."""
    call = Call("made.unfit", draw(1, 1, 1, 2, 2), draw(*shape), [], [])
    with pytest.raises(SiteNotFoundError, match="do not fit"):
        made_trace(tmp_path / "unfit.zarr", [call]).attention("made.unfit")


def test_a_batch_that_has_a_name(tmp_path: Path) -> None:
    """A call named as a whole ("cond_uncond") is of the branches that its batch is known to have."""
    calls = [Call("made.a", draw(1, 2, 1, 2, 2), draw(1, 2, 1, 2, 2), [], [])]
    both = {"made": {"calls": ["cond_uncond"], "batch": ["unconditional", "conditional"]}}
    trace = made_trace(tmp_path / "named.zarr", calls, guidance=both, branches=["cond_uncond"])
    assert trace.attention("made.a")["branch"].values.tolist() == ["unconditional", "conditional"]
    trace = made_trace(tmp_path / "other.zarr", calls, branches=["cond_uncond"])
    assert trace.attention("made.a")["branch"].values.tolist() == ["cond_uncond"] * 2


@pytest.mark.parametrize("shape", [[1, 1, 1 << 40, 2], [1, 1, -4, 2], [1, 1, 2], [1, 1, 3, 2], [1, 1, 1, 2]])
def test_a_site_that_lies_about_its_shape(tmp_path: Path, shape: list[int]) -> None:
    """A shape that no array has is an error of its own kind, before or when it is read."""
    path = tmp_path / "lying.zarr"
    made_trace(path, [Call("made.a", draw(1, 1, 1, 2, 2), draw(1, 1, 1, 2, 2), [], [])])
    document = json.loads((path / "zarr.json").read_text())
    for site in document["consolidated_metadata"]["metadata"]["statistics/made"]["attributes"]["sites"]:
        site["shape"] = shape
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises((SiteNotFoundError, TraceFormatError)):
        open_trace(path).attention("made.a").load()


def test_a_zip_file_is_read_too(embedded: Path, tmp_path: Path) -> None:
    """A store that is no folder gives the same numbers."""
    packed = shutil.make_archive(str(tmp_path / "embedded.zarr"), "zip", embedded)
    trace, expected = open_trace(packed), open_trace(embedded)
    np.testing.assert_array_equal(trace.attention(CROSS)[1].values, expected.attention(CROSS)[1].values)
    np.testing.assert_array_equal(trace.word_map("circle", step=0), expected.word_map("circle", step=0))


def test_a_torn_chunk_is_named(tmp_path: Path) -> None:
    """A chunk that lost its end is an error that names the array."""
    made_trace(tmp_path / "torn.zarr", [Call("made.a", draw(1, 1, 1, 2, 2), draw(1, 1, 1, 2, 2), [], [])])
    (file,) = (tmp_path / "torn.zarr" / "made" / "a" / "query").glob("c.*")
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(TraceFormatError, match=r"made/a/query .*torn"):
        open_trace(tmp_path / "torn.zarr").attention("made.a").load()


def test_a_second_look_sees_new_steps(tmp_path: Path) -> None:
    """A trace that is followed shows attention of the steps that came since."""
    made_trace(tmp_path / "grown.zarr", [Call("made.a", draw(1, 1, 1, 2, 2), draw(1, 1, 1, 2, 2), [], [])])
    trace = open_trace(tmp_path / "grown.zarr")
    assert trace.attention("made.a").sizes["step"] == 1
    shutil.rmtree(tmp_path / "grown.zarr")
    made_trace(tmp_path / "grown.zarr", [Call("made.b", draw(2, 1, 1, 2, 2), draw(2, 1, 1, 2, 2), [], [])])
    assert trace.refresh()
    assert trace.attention("made.b").sizes["step"] == 2
