"""Attention of real pipelines: every call is recorded as its kernel received it, and nothing else changes."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0, IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import Capture, Trace, Tracer, TracerWarning
from diffusion_xray.tracer.attention_check import check_attention
from diffusion_xray.tracer.layout import module_group
from diffusion_xray.tracer.recording.patches import replace_attribute

from ..families import FAMILIES, Family, run
from .networks import Denoiser

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

EVERYTHING = Capture(attention="**", attention_output=True)
ATTN2 = "unet.mid_block.attentions.0.transformer_blocks.0.attn2"


def doors() -> dict[tuple[str, str], object]:
    """Every object that a tracer may replace to see attention."""
    dispatch = sys.modules["diffusers.models.attention_dispatch"]
    modeling = sys.modules["transformers.modeling_utils"]
    found: dict[tuple[str, str], object] = {("torch", "kernel"): F.scaled_dot_product_attention}
    found |= {("backend", name): value for name, value in dispatch._AttentionBackendRegistry._backends.items()}
    found |= {("interface", name): value for name, value in modeling.AttentionInterface._global_mapping.items()}
    found["diffusers", "scores"] = vars(Attention)["get_attention_scores"]
    for name, module in list(sys.modules.items()):
        if name.startswith("transformers.models.") and "eager_attention_forward" in vars(module):
            found["eager", name] = vars(module)["eager_attention_forward"]
    return found


def same(before: dict[tuple[str, str], object], after: dict[tuple[str, str], object]) -> bool:
    """Whether the same objects are in the same places."""
    return before.keys() == after.keys() and all(before[key] is after[key] for key in before)


def entries(trace: Trace) -> dict[str, list[dict[str, Any]]]:
    """What the trace says of attention calls, by module."""
    found = {}
    for name in trace.modules:
        for group in (module_group(name, has_children=False), module_group(name, has_children=True)):
            if "attention" in trace._archive.group(group):
                found[name] = trace._archive.group(group)["attention"]
    return found


def parts(entry: dict[str, Any], side: str) -> list[tuple[str, int, list[int]]]:
    """The parts of the queries or keys of a call."""
    return [(part["kind"], part["start"], part["shape"]) for part in entry[f"{side}_parts"]]


@contextmanager
def counted_kernel() -> Iterator[Counter[str]]:
    """Count the calls of the kernel itself."""
    calls: Counter[str] = Counter()

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def kernel(*args: Any, **kwargs: Any) -> Any:
            calls["kernel"] += 1
            return original(*args, **kwargs)

        return kernel

    undo = replace_attribute(vars(F), "scaled_dot_product_attention", wrap)
    try:
        yield calls
    finally:
        undo()


def recorded_calls(trace: Trace) -> int:
    """How many attention calls, each at each step, have their queries stored."""
    return sum(
        int((trace.table(module.component, stepped=site.stepped).captured[:, site.row] == 2).sum())
        for module in trace.modules.values()
        for site in module.sites
        if site.port in ("query", "query_step", "query_once")
    )


def traced(family: Family, path: Path, capture: Any = EVERYTHING) -> Trace:
    """Trace one call; the output must be the same to the bit, and every door as it was."""
    plain, before = run(family), doors()
    with Tracer(family.pipeline, path / "run.zarr", capture=capture) as tracer:
        assert np.array_equal(run(family), plain, equal_nan=True)
    assert same(before, doors())
    trace = tracer.trace
    assert not trace.info.tap_failures
    assert not trace.info.gaps
    return trace


def assert_proven(trace: Trace) -> int:
    """Every call with a map is proven by its result; returns how many."""
    checks = list(check_attention(trace))
    assert [check for check in checks if not check.passed] == []
    described = sum(
        bool(entry["softmax"]) and "step" not in entry for calls in entries(trace).values() for entry in calls
    )
    assert len(checks) == described
    return described


@pytest.mark.parametrize("name", FAMILIES)
def test_every_call_of_a_family_is_proven(name: str, tmp_path: Path) -> None:
    """Each kernel call of a run is recorded once, and softmax(QKᵀ·scale + mask)·V is what the kernel returned."""
    family = FAMILIES[name]()
    with counted_kernel() as calls:
        run(family)
    trace = traced(family, tmp_path)
    assert recorded_calls(trace) == calls["kernel"] > 0
    assert assert_proven(trace) > 0


def test_the_embedded_pipeline_is_proven(tmp_path: Path) -> None:
    """The same holds for the trained model, whose text encoder masks causally."""
    pipeline = load_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    call = {"prompt": "a red circle on white", "num_inference_steps": 2, "output_type": "np"}
    trace = traced(Family("shapes", pipeline, call), tmp_path)
    assert assert_proven(trace) > 10
    assert parts(entries(trace)[ATTN2][0], "key") == [("text", 0, [pipeline.tokenizer.model_max_length])]


@pytest.mark.filterwarnings("ignore:There are modules in")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["sd", "flux", "pixart"])
def test_half_precision_is_proven_within_its_rounding(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """What kernels compute in bfloat16 or float16 agrees to the rounding of that type."""
    family = FAMILIES[name]()
    family.pipeline.to(dtype)
    trace = traced(family, tmp_path)
    assert assert_proven(trace) > 0
    assert {check.dtype for check in check_attention(trace)} == {str(dtype).removeprefix("torch.")}


def test_what_is_stored_is_what_the_kernel_was_given(tmp_path: Path) -> None:
    """Queries and keys are those of the kernel's own arguments, after rotary embedding and norm, bit for bit."""
    family = FAMILIES["flux"]()
    given: list[tuple[Tensor, Tensor]] = []

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def kernel(*args: Any, **kwargs: Any) -> Any:
            if "query" in kwargs:  # the denoiser's; the text encoders give them by position
                given.append((kwargs["query"].clone(), kwargs["key"].clone()))
            return original(*args, **kwargs)

        return kernel

    undo = replace_attribute(vars(F), "scaled_dot_product_attention", wrap)
    try:
        with Tracer(family.pipeline, tmp_path / "run.zarr", capture=Capture(attention="transformer.**")) as tracer:
            run(family)
    finally:
        undo()
    trace = tracer.trace
    modules = [name for name in trace.modules if name.endswith(".attn") and name.startswith("transformer.")]
    assert len(given) == len(modules) * trace.n_steps
    for step in range(trace.n_steps):
        for index, name in enumerate(modules):
            query, key = given[step * len(modules) + index]
            assert np.array_equal(trace.tensor(trace.site(name, "query"), step), query.numpy())
            assert np.array_equal(trace.tensor(trace.site(name, "key"), step), key.numpy())


@pytest.mark.parametrize(
    ("name", "size", "module", "query", "key"),
    [
        ("sd", (16, 32), ATTN2, [("image", 0, [4, 8])], [("text", 0, [12])]),
        ("sd", (32, 16), ATTN2.replace("attn2", "attn1"), [("image", 0, [8, 4])], [("image", 0, [8, 4])]),
        ("sd", (16, 32), "vae.decoder.mid_block.attentions.0", [("image", 0, [8, 16])], [("image", 0, [8, 16])]),
        ("sd", (16, 16), "text_encoder.encoder.layers.0.self_attn", [("text", 0, [12])], [("text", 0, [12])]),
        ("sd3", (16, 32), "transformer.transformer_blocks.0.attn", *2 * [[("image", 0, [4, 8]), ("text", 32, [24])]]),
        ("flux", (16, 32), "transformer.transformer_blocks.0.attn", *2 * [[("text", 0, [12]), ("image", 12, [4, 8])]]),
        (
            "flux",
            (32, 16),
            "transformer.single_transformer_blocks.1.attn",
            *2 * [[("text", 0, [12]), ("image", 12, [8, 4])]],
        ),
        ("pixart", (32, 16), "transformer.transformer_blocks.0.attn2", [("image", 0, [8, 4])], [("text", 0, [12])]),
        (
            "cogvideox",
            (16, 32),
            "transformer.transformer_blocks.0.attn1",
            *2 * [[("text", 0, [12]), ("image", 12, [3, 2, 4])]],
        ),
        ("wan", (16, 32), "transformer.blocks.0.attn2", [("image", 0, [3, 1, 2])], [("text", 0, [12])]),
        ("sana", (32, 64), "transformer.transformer_blocks.0.attn2", [("image", 0, [16, 32])], [("text", 0, [12])]),
    ],
)
def test_grids_and_text_are_told_apart(
    name: str, size: tuple[int, int], module: str, query: Any, key: Any, tmp_path: Path
) -> None:
    """Image tokens have their grid, upright or lying, with frames or packed; text has its place in joint sequences."""
    family = FAMILIES[name]()
    height, width = size
    call = Family(name, family.pipeline, family.call | {"height": height, "width": width}, family.images)
    entry = entries(traced(call, tmp_path, Capture(attention=module)))[module][0]
    assert parts(entry, "query") == query
    assert parts(entry, "key") == key


def test_linear_attention_has_no_map_and_says_so(tmp_path: Path) -> None:
    """Modules of linear attention, and scores that are capped, have a reason instead of queries and keys."""
    trace = traced(FAMILIES["sana"](), tmp_path)
    found = entries(trace)
    linear = found["transformer.transformer_blocks.0.attn1"]
    assert [entry["softmax"] for entry in linear] == [False]
    assert "SanaLinearAttnProcessor2_0" in linear[0]["reason"]
    assert {site.port for site in trace.modules["transformer.transformer_blocks.0.attn1"].sites} == {"output"}
    decoder = next(calls for name, calls in found.items() if name.startswith("vae.decoder"))
    assert "SanaMultiscaleAttnProcessor2_0" in decoder[0]["reason"]
    text = found["text_encoder.layers.0.self_attn"][0]
    assert text["door"] == "eager_attention_forward"
    assert text["softmax"] is False
    assert "softcap" in text["reason"]


def with_image_prompts(family: Family) -> Family:
    """Stable Diffusion with an IP-Adapter of four tokens, as many as the prompt has in the second variant."""
    unet = family.pipeline.unet
    processors: dict[str, nn.Module] = {}
    for name in unet.attn_processors:
        attention = unet.get_submodule(name.removesuffix(".processor"))
        sizes = attention.to_q.in_features, attention.to_k.in_features
        crosses = "attn2" in name
        processors[name] = IPAdapterAttnProcessor2_0(*sizes, num_tokens=(4,)) if crosses else AttnProcessor2_0()
    unet.set_attn_processor(processors)
    projection = ImageProjection(cross_attention_dim=32, image_embed_dim=32, num_image_text_embeds=4)
    unet.encoder_hid_proj = MultiIPAdapterImageProjection([projection])
    unet.config.encoder_hid_dim_type = "ip_image_proj"
    image = torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(3))
    return Family("ip", family.pipeline, family.call | {"ip_adapter_image_embeds": [image]})


def test_image_prompts_are_a_call_of_their_own(tmp_path: Path) -> None:
    """The second attention of an IP-Adapter is call 1 of the same module, and its keys are not text."""
    trace = traced(with_image_prompts(FAMILIES["sd"]()), tmp_path)
    first, second = entries(trace)[ATTN2]
    assert (first["call"], second["call"]) == (0, 1)
    assert parts(first, "key") == [("text", 0, [12])]
    assert parts(second, "key") == [("other", 0, [4])]
    assert parts(second, "query") == [("image", 0, [4, 4])]
    assert trace.site(ATTN2, "key", call=1).shape[2] == 4
    assert_proven(trace)


@pytest.mark.parametrize("slices", ["whole", 1, 3, "auto"])
def test_classic_and_sliced_processors_are_proven(slices: str | int, tmp_path: Path) -> None:
    """Scores computed whole or in slices across heads and samples are one call, with value and result around it."""
    family = FAMILIES["sd"]()
    if slices == "whole":
        family.pipeline.unet.set_attn_processor(AttnProcessor())
        family.pipeline.vae.set_attn_processor(AttnProcessor())
    else:
        family.pipeline.enable_attention_slicing(slices)
    trace = traced(family, tmp_path)
    entry = entries(trace)[ATTN2]
    assert [call["door"] for call in entry] == ["get_attention_scores"]
    assert trace.site(ATTN2, "query").shape == (2, 4, 16, 8)
    assert_proven(trace)


def test_processors_may_change_during_the_call(tmp_path: Path) -> None:
    """Whatever processor a module has at a step, the call is recorded."""
    family = FAMILIES["sd"]()

    def swap(pipeline: Any, step: int, *rest: Any) -> dict[str, Any]:
        pipeline.unet.set_attn_processor(AttnProcessor() if step % 2 == 0 else AttnProcessor2_0())
        return {}

    family.pipeline.unet.set_attn_processor(AttnProcessor2_0())
    call = Family("sd", family.pipeline, family.call | {"callback_on_step_end": swap})
    run(call)
    family.pipeline.unet.set_attn_processor(AttnProcessor2_0())
    with Tracer(family.pipeline, tmp_path / "run.zarr", capture=EVERYTHING) as tracer:
        run(call)
    trace = tracer.trace
    assert trace.table("unet").captured[:, trace.site(ATTN2, "attended").row].tolist() == [2, 2, 2]
    assert_proven(trace)


@pytest.mark.parametrize("name", ["sd", "pixart", "sd3"])
def test_eager_text_encoders_are_proven(name: str, tmp_path: Path) -> None:
    """CLIP and T5 without any kernel: causal masks, padding and relative bias are in the mask."""
    family = FAMILIES[name]()
    for component, module in family.pipeline.components.items():
        if component.startswith("text_encoder"):
            module.set_attn_implementation("eager")
    trace = traced(family, tmp_path, Capture(attention="text_encoder*.**", attention_output=True))
    assert {entry["door"] for calls in entries(trace).values() for entry in calls} == {"eager_attention_forward"}
    assert assert_proven(trace) > 0
    assert any(site.port.startswith("mask") for module in trace.modules.values() for site in module.sites)


def test_masks_are_kept_as_given_without_repetition(tmp_path: Path) -> None:
    """T5's bias per head and PixArt's padding are stored; what was only repeated is cut to one entry."""
    trace = traced(FAMILIES["pixart"](), tmp_path)
    bias = trace.site("text_encoder.encoder.block.0.layer.0.SelfAttention", "mask")
    assert bias.shape == (1, 4, 12, 12)
    padding = trace.site("transformer.transformer_blocks.0.attn2", "mask")
    assert padding.shape == (2, 4, 1, 12)
    assert padding.dims == ("batch", "head", "mask_query_token", "key_token")


def chunks(trace: Trace, array: str) -> int:
    """How many different places the steps of an array have in its shard."""
    index = np.frombuffer(next(Path(trace.path, array).glob("c.*")).read_bytes()[: 16 * 128], "<u8").reshape(128, 2)
    return len({tuple(entry) for entry in index[: trace.n_steps].tolist()})


def test_keys_of_a_prompt_are_stored_once(tmp_path: Path) -> None:
    """Keys of cross-attention are the same at every step and take one chunk on the disk; queries change."""
    trace = traced(FAMILIES["sd"](), tmp_path, "attention")
    assert trace.n_steps == 3
    assert chunks(trace, trace.site(ATTN2, "key").array) == 1
    assert chunks(trace, trace.site(ATTN2, "query").array) == 3


def test_the_level_keeps_blocks_and_attention(tmp_path: Path) -> None:
    """Level "attention" is "blocks" with queries and keys of every call, and without values and results."""
    trace = traced(FAMILIES["sd"](), tmp_path, "attention")
    assert trace.info.capture["level"] == "attention"
    assert trace.modules["unet.mid_block"].stored
    assert {site.port for site in trace.modules[ATTN2].sites if site.array} == {"query", "key"}
    assert all(site.array == f"{ATTN2.replace('.', '/')}/_io/{site.port}" for site in trace.modules[ATTN2].sites[:2])
    assert list(check_attention(trace)) == []


def test_heads_and_steps_are_chosen(tmp_path: Path) -> None:
    """Only the wanted heads at the wanted steps are kept; the trace says which, and they prove themselves."""
    capture = Capture(attention=ATTN2, attention_heads=[1, 3], attention_output=True, steps=[0, 2])
    whole = traced(FAMILIES["sd"](), tmp_path, Capture(attention=ATTN2))
    trace = traced(FAMILIES["sd"](), tmp_path / "some", capture)
    assert entries(trace)[ATTN2][0]["heads"] == [1, 3]
    assert trace.table("unet").captured[:, trace.site(ATTN2, "query").row].tolist() == [2, 1, 2]
    for port in ("query", "key"):
        some, every = trace.tensor(trace.site(ATTN2, port), 2), whole.tensor(whole.site(ATTN2, port), 2)
        assert np.array_equal(some, every[:, [1, 3]])
    assert [check.steps for check in check_attention(trace)] == [2]
    assert_proven(trace)
    assert set(entries(trace)) == {ATTN2}


def test_nothing_is_replaced_unless_asked(tmp_path: Path) -> None:
    """Without a word on attention the doors stay what they are during the run."""
    family, before = FAMILIES["sd"](), doors()

    def look(_: Any, __: int, *rest: Any) -> dict[str, Any]:
        assert same(before, doors())
        return {}

    call = Family("sd", family.pipeline, family.call | {"callback_on_step_end": look})
    with Tracer(family.pipeline, tmp_path / "run.zarr", capture="blocks") as tracer:
        run(call)
    assert not any("query" in site.port for module in tracer.trace.modules.values() for site in module.sites)


def test_an_error_in_the_run_leaves_nothing_behind(tmp_path: Path) -> None:
    """When the run raises within attention, its exception comes through and every door is what it was."""
    family, before = FAMILIES["sd"](), doors()
    attention = family.pipeline.unet.get_submodule(ATTN2.removeprefix("unet."))
    out = attention.to_out[0]
    out.forward = lambda _: 1 / 0
    with pytest.raises(ZeroDivisionError), Tracer(family.pipeline, tmp_path / "run.zarr", capture=EVERYTHING) as tracer:
        run(family)
    assert same(before, doors())
    assert tracer.trace.info.error["module"] == f"{ATTN2}.to_out.0"


def test_an_error_of_ours_never_reaches_the_run(tmp_path: Path) -> None:
    """When the tap fails, the picture is the same, one warning tells, and every door is what it was."""
    family = FAMILIES["sd"]()
    plain, before = run(family), doors()
    capture = Capture(attention="**")
    pictures: list[Any] = []

    def sabotaged() -> Trace:
        with Tracer(family.pipeline, tmp_path / "run.zarr", capture=capture) as tracer:
            object.__setattr__(capture, "attention_heads", 7)  # no sequence
            pictures.append(run(family))
        return tracer.trace

    with pytest.warns(TracerWarning, match="tap 'attention' failed"):
        trace = sabotaged()
    assert np.array_equal(pictures[0], plain)
    assert same(before, doors())
    assert [failure["tap"] for failure in trace.info.tap_failures] == ["attention"]
    assert "TypeError" in trace.info.tap_failures[0]["error"]


def test_calls_of_another_pipeline_are_not_recorded(tmp_path: Path) -> None:
    """What a pipeline that is not traced does in the block leaves no call, also after a failed call of the traced."""
    family, other = FAMILIES["sd"](), FAMILIES["sdxl"]()
    unet = family.pipeline.unet
    with Tracer(family.pipeline, tmp_path / "run.zarr", capture=EVERYTHING) as tracer:
        run(family)
        handle = unet.get_submodule(f"{ATTN2.removeprefix('unet.')}.to_k").register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(family)
        handle.remove()
        run(other)
    assert {call["call"] for call in entries(tracer.trace)[ATTN2]} == {0}


@pytest.mark.parametrize("order", ["nested", "crossed"])
def test_tracers_may_end_in_any_order(order: str, tmp_path: Path) -> None:
    """Two tracers at once each record their own pipeline; whichever ends first, the doors come back as they were."""
    first, second = FAMILIES["sd"](), FAMILIES["flux"]()
    before = doors()
    one = Tracer(first.pipeline, tmp_path / "one.zarr", capture=EVERYTHING)
    two = Tracer(second.pipeline, tmp_path / "two.zarr", capture=EVERYTHING)
    one.__enter__()
    two.__enter__()
    run(first)
    run(second)
    for tracer in (one, two) if order == "crossed" else (two, one):
        tracer.__exit__(None, None, None)
    assert same(before, doors())
    assert assert_proven(one.trace) == 13
    assert assert_proven(two.trace) == 8


class Mixer(Denoiser):
    """A hand-written model: attention in a leaf by the kernel, and torch's own module."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fused = nn.MultiheadAttention(8, 2, batch_first=True)
        self.bare = Bare()

    def forward(self, sample: Tensor, timestep: Tensor | float) -> Any:
        """Attend among the pixels."""
        tokens = self.get_submodule("conv_in")(sample).flatten(2).transpose(1, 2)
        tokens = self.bare(tokens)
        mask = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
        return self.attention(tokens, tokens, tokens, need_weights=False, attn_mask=mask)[0]


class Bare(nn.Module):
    """No layers, three dimensions, the same tensor thrice."""

    def forward(self, x: Tensor) -> Tensor:
        """Self-attention without projections."""
        first = F.scaled_dot_product_attention(x, x, x, scale=0.3)
        return F.scaled_dot_product_attention(
            first, x, x, attn_mask=torch.zeros(1, 1, len(x[0])).expand(1, 4, -1)[:, :1]
        )


def test_models_of_your_own_are_recorded(tmp_path: Path) -> None:
    """Three dimensions get a head of one, the same tensor in two roles is stored in both, call numbers fit masks."""
    model = Mixer()
    sample = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = model(sample, 5.0)
    with Tracer(model, tmp_path / "run.zarr", capture=EVERYTHING) as tracer:
        result = model(sample, 5.0)
    assert torch.equal(plain, result)
    trace = tracer.trace
    names = [site.array_name for site in trace.modules["model.bare"].sites if site.port != "output"]
    assert sorted(names) == sorted(
        ["query", "key", "value", "attended", "query_call1", "key_call1", "mask_call1", "value_call1", "attended_call1"]
    )
    assert trace.site("model.bare", "query").shape == (2, 1, 64, 8)
    first, second = entries(trace)["model.bare"]
    assert (first["scale"], second["scale"]) == (0.3, pytest.approx(8**-0.5))
    assert trace.site("model.attention", "query").shape == (2, 2, 64, 4)
    assert assert_proven(trace) == 3


def test_fused_attention_says_that_it_has_no_map(tmp_path: Path) -> None:
    """Torch's own module in one fused kernel, or with weights, shows neither queries nor keys, and that is said."""
    model = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(1, 5, 8)
    with torch.no_grad(), Tracer(model, tmp_path / "run.zarr", capture="attention") as tracer:
        model(x, x, x)
    (entry,) = entries(tracer.trace)["model"]
    assert entry["softmax"] is False
    assert "MultiheadAttention" in entry["reason"]


def test_another_picture_with_as_many_tokens_is_not_mistaken(tmp_path: Path) -> None:
    """Where a second call has another grid of the same length, its steps have a description of their own."""
    family = FAMILIES["flux"]()
    name = "transformer.transformer_blocks.0.attn"
    with Tracer(family.pipeline, tmp_path / "run.zarr", capture=Capture(attention=name)) as tracer:
        for height, width in ((16, 32), (32, 16), (16, 32)):
            run(Family("flux", family.pipeline, family.call | {"height": height, "width": width}))
    trace = tracer.trace
    assert parts(entries(trace)[name][0], "query") == [("text", 0, [12]), ("image", 12, [4, 8])]
    assert [entry.get("step") for entry in entries(trace)[name]] == [None, 3, 6]
    assert trace.table("transformer").captured[:, trace.site(name, "query").row].tolist() == [2] * 9
    call = trace.attentions.find(name)
    grids = [trace.attentions.at(call, step).query_parts[1].shape for step in range(9)]
    assert grids == [(4, 8)] * 3 + [(8, 4)] * 3 + [(4, 8)] * 3
    assert not trace.info.gaps


class Sometimes(nn.Module):
    """Attention with a mask at odd steps only, another scale at the last, and fewer key heads."""

    def forward(self, x: Tensor, step: int) -> Tensor:
        """Attend."""
        mask = torch.linspace(-3, 3, 7).expand(7, 7) if step % 2 else None
        scale = 0.9 if step == 4 else 0.5
        return F.scaled_dot_product_attention(x, x[:, :2], x[:, :2], mask, scale=scale, enable_gqa=True)


@pytest.mark.parametrize("heads", [None, [1, 2, 3]])
def test_calls_may_differ_from_step_to_step(heads: list[int] | None, tmp_path: Path) -> None:
    """A mask that is not always there is stored where it was; a call with another scale is described anew."""
    capture = Capture(attention="model", attention_output=True, attention_heads=heads)
    with Tracer(Sometimes(), tmp_path / "run.zarr", capture=capture) as tracer:
        for step in range(5):
            tracer.step(step)
            tracer._target.components["model"](torch.randn(2, 4, 7, 8), step)
    trace = tracer.trace
    captured = trace.table("model").captured
    assert captured[:, trace.site("model", "query").row].tolist() == [2] * 5
    assert captured[:, trace.site("model", "mask").row].tolist() == [0, 2, 0, 2, 0]
    assert trace.site("model", "key").shape[1] == (2 if heads is None else 3)
    assert [check.steps for check in check_attention(trace)] == [5]
    assert not trace.info.gaps
    assert_proven(trace)


class Doubling(nn.Module):
    """Attention of a batch that doubles at the end."""

    def forward(self, step: int) -> Tensor:
        """Attend."""
        x = torch.randn(2 if step == 3 else 1, 2, 5, 8)
        return F.scaled_dot_product_attention(x, x, x)


def test_a_batch_that_changes_has_a_map_of_its_own(tmp_path: Path) -> None:
    """Queries and keys of another batch are kept, and the map of the first one is never filled from them."""
    model = Doubling()
    with Tracer(model, tmp_path / "run.zarr", capture=Capture(attention="model")) as tracer:
        for step in range(4):
            tracer.step(step)
            model(step)
    trace = tracer.trace
    query = trace.site("model", "query")
    assert trace.tensor(query, 3).shape == (2, 2, 5, 8)
    shares = trace.attention("model")
    assert shares.shape == (4, 1, 2, 5, 5)
    assert np.isfinite(shares[:3].values).all() and np.isnan(shares[3].values).all()
    assert trace.attention("model", step=3).shape == (4, 2, 2, 5, 5)


def test_compiled_modules_are_seen_through(tmp_path: Path) -> None:
    """A compiled denoiser runs eagerly, and its joint sequences have their parts."""
    family = FAMILIES["flux"]()
    family.pipeline.transformer = torch.compile(family.pipeline.transformer, backend="eager")
    with Tracer(family.pipeline, tmp_path / "run.zarr", capture=Capture(attention="transformer.**")) as tracer:
        run(family)
    found = entries(tracer.trace)["transformer.transformer_blocks.0.attn"]
    assert parts(found[0], "query") == [("text", 0, [12]), ("image", 12, [4, 4])]


def test_stored_tensors_are_variables_of_xarray(tmp_path: Path) -> None:
    """Queries and keys open as data along named dimensions, none of which has an array's own name."""
    trace = traced(FAMILIES["sd"](), tmp_path)
    dataset = trace[ATTN2]
    assert {"query", "key", "value", "attended"} <= set(dataset.data_vars)
    assert dataset["query"].dims == ("step", "batch", "head", "query_token", "head_dim")
    group = trace.tree[f"{ATTN2.replace('.', '/')}/_io"]
    assert {"query", "key", "value", "attended"} == set(group.data_vars)


def test_prompt_kind_is_not_invented(tmp_path: Path) -> None:
    """A denoiser traced alone has embeddings of nobody knows what."""
    unet = FAMILIES["sd"]().pipeline.unet
    with torch.no_grad(), Tracer({"unet": unet}, tmp_path / "run.zarr", capture=Capture(attention=ATTN2)) as tracer:
        unet(torch.randn(1, 4, 8, 8), 3, encoder_hidden_states=torch.randn(1, 12, 32))
    assert parts(entries(tracer.trace)[ATTN2][0], "key") == [("other", 0, [12])]
