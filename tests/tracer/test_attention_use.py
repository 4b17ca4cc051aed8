"""Maps of attention that a processor edited after the softmax are told from those that the run used."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor
from torch import Tensor, nn

from diffusion_xray.tracer import Capture, Trace, Tracer, open_trace
from diffusion_xray.tracer.attention.rounding import product_error
from diffusion_xray.tracer.attention.use import Use, doubt_of, read_use
from diffusion_xray.tracer.recording.attention_calls import AttentionCall
from diffusion_xray.tracer.recording.edits import deviation, rows_of
from diffusion_xray.tracer.taps.usage import Usages

Edit = Callable[[Tensor, int], Tensor]
"""What a processor makes of the shares (batch · head, query, key) at a step."""


class Editing:
    """A processor in the classic way that edits the shares, and what else it is told to."""

    def __init__(self, edit: Edit, values: Callable[[Tensor], Tensor] = lambda values: values, calls: int = 1) -> None:
        """`values` edits those; of several calls the results are added."""
        self.edit, self.values, self.calls, self.step = edit, values, calls, 0

    def __call__(self, attn: Any, x: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        """Attend."""
        context = x if encoder_hidden_states is None else encoder_hidden_states
        query, key = (attn.head_to_batch_dim(tensor) for tensor in (attn.to_q(x), attn.to_k(context)))
        value = self.values(attn.head_to_batch_dim(attn.to_v(context)))
        made = [
            torch.bmm(self.edit(attn.get_attention_scores(query, key), self.step), value) for _ in range(self.calls)
        ]
        self.step += 1
        result: Tensor = attn.to_out[0](attn.batch_to_head_dim(torch.stack(made).sum(0)))
        return result


class Layer(nn.Module):
    """Four heads that look at twenty keys."""

    def __init__(self, processor: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attn = Attention(32, cross_attention_dim=24, heads=4, dim_head=8)
        self.attn.set_processor(processor)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Attend."""
        result: Tensor = self.attn(x, encoder_hidden_states=context)
        return result


def traced(
    path: Path,
    layer: nn.Module,
    *,
    steps: int = 5,
    before: Callable[[int], Any] = lambda step: None,
    dtype: torch.dtype = torch.float32,
    keys: int = 20,
    **capture: Any,
) -> Trace:
    """Trace some steps, a batch of two; what comes out must be what comes out without a tracer."""
    generator = torch.Generator().manual_seed(1)
    given = [
        (torch.randn(2, 64, 32, generator=generator).to(dtype), torch.randn(2, keys, 24, generator=generator).to(dtype))
        for _ in range(steps)
    ]
    layer = layer.to(dtype)
    with torch.no_grad(), Tracer(layer, path / "run.zarr", capture=Capture(attention="**", **capture)) as tracer:
        for step, tensors in enumerate(given):
            tracer.step(step)
            before(step)
            layer(*tensors)
    assert not tracer.trace.info.tap_failures
    return tracer.trace


def use_of(trace: Trace) -> Use:
    """What is known of the only call."""
    (call,) = trace.attention_modules["model.attn"]
    return call.use


def verdicts(trace: Trace) -> list[str]:
    """At each step."""
    return [use_of(trace).at(step) for step in range(trace.n_steps)]


def as_it_is(shares: Tensor, _: int) -> Tensor:
    """Leave the shares alone."""
    return shares


def one_token(shares: Tensor, _: int) -> Tensor:
    """Nobody looks at one key, in a tensor of its own."""
    shares = shares.clone()
    shares[..., 3] = 0
    return shares


def in_place(shares: Tensor, _: int) -> Tensor:
    """The same in the tensor that was handed out."""
    shares[..., 3] = 0
    return shares


def one_head(shares: Tensor, _: int) -> Tensor:
    """The last head of the second entry of the batch looks everywhere alike."""
    shares[7] = 1 / shares.shape[-1]
    return shares


def at_first(shares: Tensor, step: int) -> Tensor:
    """What prompt-to-prompt does: the conditional half gets other shares in the first part of the run."""
    if step < 2:
        shares[4:] = shares[4:].roll(1, dims=-1)
    return shares


@pytest.mark.parametrize(
    "processor",
    [AttnProcessor(), SlicedAttnProcessor(3), Editing(as_it_is)],
    ids=lambda processor: type(processor).__name__,
)
def test_shares_that_are_used_are_proven_and_nothing_is_said(processor: Any, tmp_path: Path) -> None:
    """Classic processors, whole and in slices, are proven at every step, with maps and without results stored."""
    trace = traced(tmp_path, Layer(processor))
    assert verdicts(trace) == ["proven"] * 5
    assert "doubt" not in trace.attention("model.attn").attrs
    assert not any(site.port in ("value", "attended") for site in trace.modules["model.attn"].sites)


@pytest.mark.parametrize("edit", [one_token, in_place, one_head])
def test_edited_shares_are_found(edit: Edit, tmp_path: Path) -> None:
    """In place or not, of one key, or of one head of one entry: the map says that it was edited, and how far."""
    trace = traced(tmp_path, Layer(Editing(edit)))
    assert verdicts(trace) == ["edited"] * 5
    assert 0.01 < use_of(trace).deviation < 2
    said = trace.attention("model.attn").attrs["doubt"]
    assert said.startswith("edited after the softmax: the result is not these shares times the values, off by ")


def test_an_edit_of_some_steps_is_told_of_those(tmp_path: Path) -> None:
    """Steps before and after the edit are proven, and the doubt names the others."""
    trace = traced(tmp_path, Layer(Editing(at_first)))
    assert verdicts(trace) == ["edited", "edited", "proven", "proven", "proven"]
    (call,) = trace.attention_modules["model.attn"]
    assert " at steps 0–1:" in trace.attention("model.attn").attrs["doubt"]
    assert trace.attentions.doubt([call], [3]) == ""
    assert trace.attentions.doubt([call], [0]).startswith("edited after the softmax:")


def test_edited_values_are_not_passed_off_as_proven(tmp_path: Path) -> None:
    """What is compared is the result: values that were replaced are found too."""
    trace = traced(tmp_path, Layer(Editing(as_it_is, values=lambda values: values * 1.02)))
    assert verdicts(trace) == ["edited"] * 5
    assert use_of(trace).deviation == pytest.approx(0.02, rel=1e-3)


def test_several_calls_that_are_added_cannot_be_told(tmp_path: Path) -> None:
    """Only the sum of their results is to be had: not proven, though nothing was edited, and it is said why."""
    trace = traced(tmp_path, Layer(Editing(as_it_is, calls=2)))
    first, second = trace.attention_modules["model.attn"]
    assert first.use.at(0) == second.use.at(0) == "unknown"
    said = trace.attention("model.attn", call=1).attrs["doubt"]
    assert said == "not proven to be what the run used: it adds up the results of several calls"


@pytest.mark.filterwarnings("ignore:a value is not finite")
@pytest.mark.parametrize("factor", [0.0, math.nan, math.inf])
def test_a_result_that_shows_nothing_proves_nothing(factor: float, tmp_path: Path) -> None:
    """Values of zero give the same result whatever the shares, and NaN equals nothing: unknown, though edited."""
    layer = Layer(Editing(one_token))
    with torch.no_grad():
        layer.attn.to_v.weight.mul_(factor).nan_to_num_(0.0 if factor == 0 else factor)
    assert verdicts(traced(tmp_path, layer)) == ["unknown"] * 5


def test_kernels_and_processors_in_turn(tmp_path: Path) -> None:
    """A processor that is changed while running: steps of the kernel are proven, whichever came first."""
    for order in (0, 1):
        layer = Layer(AttnProcessor2_0())
        turn = [AttnProcessor2_0(), Editing(one_token)]
        folder = tmp_path / str(order)
        trace = traced(folder, layer, before=lambda step, turn=turn: layer.attn.set_processor(turn[(step + order) % 2]))  # type: ignore[misc] # noqa: B023
        expected = ["proven", "edited"] * 3
        assert verdicts(trace) == expected[order : order + 5]


def test_a_kernel_is_proven_by_construction(tmp_path: Path) -> None:
    """Softmax and product in one function leave no room for an edit, and nothing is written about it."""
    trace = traced(tmp_path, Layer(AttnProcessor2_0()))
    assert use_of(trace).by_kernel
    assert "used" not in trace._archive.group("model/attn/_io")["attention"][0]


def test_heads_that_were_not_kept_do_not_count(tmp_path: Path) -> None:
    """Where the edited head is not among those kept, their maps are the run's."""
    assert verdicts(traced(tmp_path / "others", Layer(Editing(one_head)), attention_heads=[0, 2])) == ["proven"] * 5
    assert verdicts(traced(tmp_path / "own", Layer(Editing(one_head)), attention_heads=[1, 3])) == ["edited"] * 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("keys", [20, 1500])
def test_rounding_is_no_edit(dtype: torch.dtype, keys: int, tmp_path: Path) -> None:
    """Half precision with few and with many keys is proven."""
    assert verdicts(traced(tmp_path, Layer(AttnProcessor()), dtype=dtype, keys=keys, steps=2)) == ["proven"] * 2


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("autocast", [False, True])
def test_coarse_arithmetic_is_no_edit(precision: str, autocast: bool, tmp_path: Path) -> None:
    """Under autocast, and where float32 is multiplied more coarsely, shares that were used are proven."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            assert verdicts(traced(tmp_path, Layer(AttnProcessor()), steps=2)) == ["proven"] * 2
    finally:
        torch.set_float32_matmul_precision(before)


def eager_attention_forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, Tensor]:
    """Named as the functions of transformers are, and doing something else."""
    shares = (query @ key.mT).softmax(-1).roll(1, dims=-1)
    return (shares @ value).transpose(1, 2), shares


class OwnAttention(nn.Module):
    """A layer that attends by a function of its own."""

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Attend."""
        tokens = x.unflatten(-1, (4, 8)).transpose(1, 2)
        return eager_attention_forward(self, tokens, tokens, tokens, None)[0].flatten(2)


class Outer(nn.Module):
    """Holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = OwnAttention()

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Attend."""
        result: Tensor = self.attn(x, context)
        return result


def test_a_function_of_ones_own_is_not_taken_at_its_name(tmp_path: Path) -> None:
    """What a function of no known library does with the shares is not known."""
    trace = traced(tmp_path, Outer())
    assert verdicts(trace) == ["unknown"] * 5
    assert "eager_attention_forward computed it" in trace.attention("model.attn").attrs["doubt"]


def test_traces_from_before_are_not_taken_for_proven(tmp_path: Path) -> None:
    """Where nothing was compared, the one door that hands shares out is unknown, a kernel is not."""
    assert read_use({"door": "get_attention_scores"}).at(0) == "unknown"
    assert read_use({"door": "scaled_dot_product_attention"}).at(0) == "proven"


@pytest.mark.parametrize(
    "used",
    [
        7,
        [],
        "proven",
        {"proven": "all"},
        {"proven": [[0]]},
        {"proven": [[0, "9"]]},
        {"proven": [[True, 9]]},
        {"why": 3},
    ],
)
def test_nonsense_proves_nothing(used: Any, tmp_path: Path) -> None:
    """A trace is untrusted: what does not fit is unknown, and text of it reaches nobody unescaped."""
    trace = traced(tmp_path, Layer(AttnProcessor()), steps=1)
    head = Path(trace.path) / "zarr.json"
    document = json.loads(head.read_text())
    group = document["consolidated_metadata"]["metadata"]["model/attn/_io"]
    group["attributes"]["attention"][0]["used"] = used
    head.write_text(json.dumps(document))
    assert verdicts(open_trace(trace.path)) == ["unknown"]


def test_control_characters_in_a_reason_are_escaped() -> None:
    """The reason is text of the trace."""
    assert "\x1b" not in doubt_of([read_use({"used": {"why": "\x1b[2J"}})], [0])


def test_doubts_of_several_layers_are_one_sentence_each() -> None:
    """How many layers at which steps were edited, by how much at most; then what is not known."""
    edited = Use(by_kernel=False, proven=((2, 4),), edited=((0, 1),), deviation=0.123)
    unknown = Use(by_kernel=False, proven=((0, 3),), reason="its values and result could not be followed")
    assert doubt_of([Use(), Use()], range(5)) == ""
    assert doubt_of([edited, unknown, Use()], range(5)) == (
        "edited after the softmax in 1 of 3 layers at steps 0–1: the result is not these shares times the values, "
        "off by 12 %; not proven to be what the run used in 1 of 3 layers at step 4: its values and result could not "
        "be followed"
    )


@pytest.mark.parametrize("queries", [1, 5, 8, 64, 77, 1024, 4096])
def test_rows_are_spread_and_move(queries: int) -> None:
    """Every turn has some rows in range, few of many; over the turns of a run they reach all parts of a picture."""
    chosen = [set(range(queries)[rows_of(queries, turn)]) for turn in range(30)]
    assert all(1 <= len(rows) <= 9 for rows in chosen)
    side = math.isqrt(queries)
    if side * side == queries and side >= 8:
        quarters = {(row // side * 4 // side, row % side * 4 // side) for rows in chosen for row in rows}
        assert len(quarters) == 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("keys", [2, 77, 4096])
def test_the_error_allowed_is_above_that_of_every_order_of_addition(dtype: torch.dtype, keys: int) -> None:
    """Products added up in float32 in another order, and rounded to the dtype, stay well within it."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.randn(2, 4, 8, keys, generator=generator).softmax(-1).to(dtype)
    values = torch.randn(2, 4, keys, 16, generator=generator).to(dtype)
    one_by_one = torch.zeros(2, 4, 8, 16)
    for key in range(keys):
        one_by_one += shares[..., key, None].float() * values[..., None, key, :].float()
    name = str(dtype).removeprefix("torch.")
    assert float(deviation(shares, values, one_by_one.to(dtype))) < product_error(name, keys) / 2
    assert float(deviation(shares, values, 1.03 * one_by_one)) > product_error(name, keys)


class Elsewhere(Tensor):
    """A tensor that says it is on an accelerator."""

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        """It says no."""
        return False


def test_on_an_accelerator_nobody_waits_before_the_end() -> None:
    """What was compared there is looked at when the run is over, and told then."""
    told: list[dict[str, Any]] = []
    usages = Usages(lambda name, place, facts: told.append(facts))
    shares = torch.randn(1, 2, 64, 6).softmax(-1)
    values = torch.randn(1, 2, 6, 4)
    for step in range(3):
        sample = shares[:, :, rows_of(64, step)].as_subclass(Elsewhere)
        call = AttentionCall("get_attention_scores", torch.zeros(1, 2, 64, 4), values, 1.0, shares=sample)
        usages.called("attn", (True, 0), step, call, first=step == 0)
        usages.compare("attn", (True, 0), step, call, values, shares @ values * (1 if step else 2))
    assert told == []
    usages.finish()
    assert told == [{"proven": [[1, 2]], "edited": [[0, 0]], "deviation": pytest.approx(1)}]
