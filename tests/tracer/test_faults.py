"""What is first wrong in a run, in the order in which things were made, and where it was born."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion_xray.tracer import Capture, Trace, Tracer, open_trace
from diffusion_xray.tracer.capture import Level
from diffusion_xray.tracer.description import describe, describe_in_lines
from diffusion_xray.tracer.faults import Born, Fault, born_text, find_faults
from diffusion_xray.tracer.layout import MEASURED, NOT_CAPTURED, SEQUENCE
from diffusion_xray.tracer.moments import Moments
from diffusion_xray.tracer.statistics_table import StatisticsTable

pytestmark = pytest.mark.filterwarnings("ignore:a value is not finite")  # what these runs are made for

GOLDEN = Path(__file__).parents[1] / "data" / "golden-v1.zarr"


class Layer(nn.Module):
    """Halves what it is given; at chosen calls it makes NaN of it."""

    def __init__(self, *bad: int) -> None:
        super().__init__()
        self.bad, self.calls = bad, 0

    def forward(self, x: Tensor) -> Tensor:
        """NaN at the calls chosen."""
        self.calls += 1
        return x * (float("nan") if self.calls - 1 in self.bad else 0.5)


class Denoiser(nn.Module):
    """Layers one after the other; what the layer `side` makes is thrown away."""

    def __init__(self, *layers: nn.Module, side: nn.Module | None = None) -> None:
        super().__init__()
        self.layers, self.side = nn.ModuleList(layers), side

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """What the last layer makes."""
        if self.side is not None:
            self.side(x)
        for layer in self.layers:
            x = layer(x)
        return x


class Encoder(nn.Module):
    """A text encoder of two layers."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, input_ids: Tensor) -> Tensor:
        """An embedding for every token."""
        embedding: Tensor = self.layers(input_ids[..., None] / 10)
        return embedding


class Tokenizer:
    """Numbers for words."""

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """A word for each number."""
        return [f"word{number}" for number in ids]

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        """All words."""
        return " ".join(self.convert_ids_to_tokens(ids))


class Scheduler:
    """Subtracts a part of the model output; at one step it divides by zero."""

    def __init__(self, steps: int = 4, bad: int = -1) -> None:
        self.timesteps, self.bad, self.calls = torch.arange(steps, 0, -1) * 100, bad, 0
        self.num_inference_steps = steps

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> tuple[Tensor]:
        """The next latents."""
        self.calls += 1
        return ((sample - 0.1 * model_output) / (0.0 if self.calls - 1 == self.bad else 1.0),)


def as_it_is(_: int, tensor: Tensor) -> Tensor:
    """Changes nothing."""
    return tensor


def denoise(
    path: Path,
    *denoisers: Denoiser,
    scheduler: Scheduler | None = None,
    start: float = 1.0,
    guide: Callable[[int, Tensor], Tensor] = as_it_is,
    change: Callable[[int, Tensor], Tensor] = as_it_is,
    capture: Level | Capture = "statistics",
) -> Trace:
    """A loop that passes latents through all denoisers in turn, guides, steps, and may change the latents after it."""
    scheduler = scheduler or Scheduler()
    parts: dict[str, object] = {f"unet_{at}" if at else "unet": part for at, part in enumerate(denoisers)}
    latents = torch.ones(1, 2, 3, 3) * start
    with torch.no_grad(), Tracer({**parts, "scheduler": scheduler}, path, capture=capture):
        for step, timestep in enumerate(scheduler.timesteps):
            output = latents
            for denoiser in denoisers:
                output = denoiser(output, timestep)
            latents = change(step, scheduler.step(guide(step, output), timestep, latents)[0])
    return open_trace(path)


def first(trace: Trace) -> tuple[str, int | None, Born]:
    """The first fault."""
    fault = trace.first_fault()
    assert fault is not None
    assert fault == find_faults(tuple(trace.tables()))[0]
    return fault.site.key, fault.step, fault.born


def spoil(at: int) -> Callable[[int, Tensor], Tensor]:
    """Makes infinity of a tensor in one step."""
    return lambda step, tensor: tensor / (0.0 if step == at else 1.0)


def test_a_layer_goes_before_the_latents_made_of_it(tmp_path: Path) -> None:
    """The layer is named, not the module around it, nor the model output that the scheduler was given."""
    trace = denoise(tmp_path / "a.zarr", Denoiser(Layer(), Layer(2), Layer()))
    assert first(trace) == ("unet.layers.1:output", 2, Born.MODULE_OR_WAY)
    fault = trace.first_fault()
    assert fault is not None and fault.after is not None
    assert (fault.after.site.key, fault.after.step) == ("unet.layers.0:output", 2)


def test_with_inputs_the_module_itself_is_proven(tmp_path: Path) -> None:
    """Only where what went into a module was recorded is the fault said to be born in it."""
    trace = denoise(tmp_path / "a.zarr", Denoiser(Layer(), Layer(2)), capture=Capture(modules="**", inputs=True))
    assert first(trace) == ("unet.layers.1:output", 2, Born.MODULE)


def test_code_between_two_modules(tmp_path: Path) -> None:
    """An input that is bad while all before it is finite says that no module made it."""

    class Between(Denoiser):
        def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
            between = self.layers[0](x) / (timestep - 300)  # 0 at step 1
            return super().forward(between, timestep)

    trace = denoise(tmp_path / "a.zarr", Between(Layer(), Layer()), capture=Capture(modules="**", inputs=True))
    assert first(trace) == ("unet.layers.0:input_call1", 1, Born.WAY)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"scheduler": Scheduler(bad=1)}, ("latents:next_latents", 1, Born.SCHEDULER)),
        ({"guide": spoil(2)}, ("latents:model_output", 2, Born.GUIDANCE)),
        ({"change": spoil(0)}, ("latents:latents", 1, Born.BETWEEN_STEPS)),
        ({"start": float("inf")}, ("latents:latents", 0, Born.WAY)),
    ],
    ids=["scheduler", "guidance", "between steps", "start"],
)
def test_faults_that_no_module_made(tmp_path: Path, wrong: dict[str, object], expected: tuple[str, int, Born]) -> None:
    """What the scheduler, guidance, a callback or the caller made is said to be theirs, not the first layer's."""
    trace = denoise(tmp_path / "a.zarr", Denoiser(Layer(), Layer()), **wrong)  # type: ignore[arg-type]
    assert first(trace) == expected


def test_guidance_is_not_blamed_where_no_denoiser_was_recorded(tmp_path: Path) -> None:
    """Of a model output whose denoiser is not traced nobody can say who made it."""
    scheduler, other = Scheduler(), nn.Linear(2, 2)
    with torch.no_grad(), Tracer({"other": other, "scheduler": scheduler}, tmp_path / "a.zarr"):
        for timestep in scheduler.timesteps:
            other(torch.ones(1, 2))
            scheduler.step(torch.full((1, 2, 3, 3), torch.inf), timestep, torch.ones(1, 2, 3, 3))
    assert first(open_trace(tmp_path / "a.zarr")) == ("latents:model_output", 0, Born.UNKNOWN)


def test_a_loop_of_ones_own(tmp_path: Path) -> None:
    """Latents that are handed over at the end of a step count as what it began with."""
    network = Denoiser(Layer())
    with torch.no_grad(), Tracer({"unet": network}, tmp_path / "a.zarr") as tracer:
        latents = torch.ones(1, 2, 3, 3)
        for step in range(3):
            tracer.step(step, timestep=3 - step)
            output = network(latents, torch.tensor(3 - step))
            after = latents - output
            tracer.record_latents(latents, model_output=output, next_latents=after)
            latents = after / (step - 1)
    assert first(open_trace(tmp_path / "a.zarr")) == ("latents:latents", 2, Born.BETWEEN_STEPS)


def test_two_text_encoders(tmp_path: Path) -> None:
    """A layer of the second encoder goes before its embedding, and before all that the denoiser makes of it."""
    parts = {"text_encoder": Encoder(Layer(), Layer()), "text_encoder_2": Encoder(Layer(), Layer(0))}
    tokenizers = {"tokenizer": Tokenizer(), "tokenizer_2": Tokenizer()}
    network, ids = Denoiser(Layer()), torch.arange(4)[None]
    with torch.no_grad(), Tracer({**parts, **tokenizers, "unet": network}, tmp_path / "a.zarr"):
        embedding = parts["text_encoder"](ids) + parts["text_encoder_2"](ids)
        network(embedding, torch.tensor(1))
    trace = open_trace(tmp_path / "a.zarr")
    assert first(trace) == ("text_encoder_2.layers.1:output", None, Born.MODULE_OR_WAY)
    order = [fault.site.key for fault in find_faults(tuple(trace.tables()))]
    assert order.index("text_encoder_2:output") < order.index("prompts.text_encoder_2:embedding")
    assert order.index("prompts.text_encoder_2:embedding") < order.index("unet.layers.0:output")


def switch(path: Path, one: Denoiser, other: Denoiser) -> Trace:
    """A loop of four steps, which calls a second denoiser before the first from step 2 on."""
    with torch.no_grad(), Tracer({"one": one, "other": other}, path) as tracer:
        x = torch.ones(1, 2, 3, 3)
        for step in range(4):
            tracer.step(step)
            x = other(x, torch.tensor(step)) if step >= 2 else x
            one(x, torch.tensor(step))
    return open_trace(path)


def test_a_denoiser_that_is_called_late_may_be_first(tmp_path: Path) -> None:
    """Of two denoisers the one first called at step 2 goes first in the steps in which it is called first."""
    trace = switch(tmp_path / "a.zarr", Denoiser(Layer()), Denoiser(Layer(0)))
    assert first(trace) == ("other.layers.0:output", 2, Born.MODULE_OR_WAY)
    assert [fault.site.key for fault in find_faults(tuple(trace.tables()))] == [
        "other.layers.0:output",
        "other:output",
        "one.layers.0:output",
        "one:output",
    ]


def test_a_loss_that_was_recorded(tmp_path: Path) -> None:
    """Of a training that diverges the layer is named, not the loss; where only the loss is wrong, the loss."""
    network = Denoiser(Layer(), Layer(2))
    with torch.no_grad(), Tracer({"unet": network}, tmp_path / "a.zarr") as tracer:
        for step in range(4):
            tracer.step(step)
            tracer.record("loss", network(torch.ones(1, 2, 3, 3), torch.tensor(step)).mean())
    assert first(open_trace(tmp_path / "a.zarr")) == ("unet.layers.1:output", 2, Born.MODULE_OR_WAY)
    with torch.no_grad(), Tracer({"unet": network}, tmp_path / "b.zarr") as tracer:
        for step in range(3):
            tracer.step(step)
            tracer.record("loss", network(torch.ones(1, 2, 3, 3), torch.tensor(step)).mean() / (step - 1))
    assert first(open_trace(tmp_path / "b.zarr")) == ("records.loss:output", 1, Born.WAY)


def test_a_decoder_after_the_loop(tmp_path: Path) -> None:
    """What went wrong after the loop comes after all of it, though the same module ran well before the loop."""
    network, vae, scheduler = Denoiser(Layer(), side=Layer(3)), nn.Sequential(Layer(), Layer(1)), Scheduler()
    for bad_loop in (False, True):
        path = tmp_path / f"{bad_loop}.zarr"
        vae[1].calls, network.side.calls = 0, 0 if bad_loop else 9  # type: ignore[union-attr, assignment]
        with torch.no_grad(), Tracer({"unet": network, "vae": vae, "scheduler": scheduler}, path):
            latents = vae(torch.ones(1, 2, 3, 3))
            for timestep in scheduler.timesteps:
                latents = scheduler.step(network(latents, timestep), timestep, latents)[0]
            vae(latents)
        expected = ("unet.side:output", 3) if bad_loop else ("vae.1:output_call1", None)
        assert first(open_trace(path))[:2] == expected


def test_a_fault_that_comes_and_goes(tmp_path: Path) -> None:
    """A layer that recovers stays the first; a layer before it that fails later comes second."""
    trace = denoise(tmp_path / "a.zarr", Denoiser(Layer(3), side=Layer(1)))
    assert first(trace) == ("unet.side:output", 1, Born.MODULE_OR_WAY)
    faults = find_faults(tuple(trace.tables()))
    assert [(fault.site.key, fault.step) for fault in faults[:2]] == [
        ("unet.side:output", 1),
        ("unet.layers.0:output", 3),
    ]
    assert all((fault.born, fault.after) == (Born.UNKNOWN, None) for fault in faults[1:])


class Masked(nn.Module):
    """Makes an additive mask, with what a test puts in the place of −∞, and attends under it."""

    def __init__(self, hidden: float, bias: float = 0.0) -> None:
        super().__init__()
        self.hidden, self.bias, self.make = hidden, bias, nn.Identity()

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Each token sees those up to itself."""
        mask = torch.full((x.shape[1],) * 2, self.hidden).triu(1) + self.bias
        mask = self.make(mask)
        return nn.functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], attn_mask=mask)[:, 0]


@pytest.mark.parametrize(
    ("hidden", "bias", "faults"),
    [
        (-np.inf, 0.0, []),
        (-np.inf, 0.5, ["net.make:output"]),
        (np.nan, 0.0, ["net.make:output", "net:mask", "net:output"]),
    ],
)
def test_masks(tmp_path: Path, hidden: float, bias: float, faults: list[str]) -> None:
    """−∞ in what attention was given as a mask is none, nor in what holds but −∞ and 0; NaN in a mask is."""
    net = Masked(hidden, bias)
    with torch.no_grad(), Tracer({"net": net}, tmp_path / "a.zarr", capture=Capture(attention="net")):
        net(torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(1))
    trace = open_trace(tmp_path / "a.zarr")
    assert [fault.site.key for fault in find_faults(tuple(trace.tables()))] == faults


def test_nothing_but_minus_infinity_is_a_fault(tmp_path: Path) -> None:
    """A tensor that is −∞ throughout is no mask."""
    network = nn.Sequential(Layer(), nn.Identity())
    with torch.no_grad(), Tracer(network, tmp_path / "a.zarr"):
        network(torch.full((2, 3), -np.inf))
    assert first(open_trace(tmp_path / "a.zarr")) == ("model.0:output", 0, Born.MODULE_OR_WAY)


def test_what_is_said_of_it(tmp_path: Path) -> None:
    """`info` names the first fault and where it was born, for people and for programs."""
    trace = denoise(tmp_path / "a.zarr", Denoiser(Layer(), Layer(2)))
    lines = dict(describe_in_lines(trace))
    assert lines["first fault"] == "unet.layers.1:output at step 2"
    told = "in unet.layers.1 or on the way to it; the last finite tensor before it: unet.layers.0:output at step 2"
    assert lines["  born"] == told
    facts = describe(trace)["first_fault"]
    assert facts["born"] == "module or way" and facts["last_finite_before"] == {
        "site": "unet.layers.0:output",
        "step": 2,
    }
    sound = denoise(tmp_path / "b.zarr", Denoiser(Layer()))
    assert dict(describe_in_lines(sound))["first fault"] == "none, every value is finite"
    assert "  born" not in dict(describe_in_lines(sound))


def test_every_birth_has_its_words(tmp_path: Path) -> None:
    """There is something to say of every kind."""
    fault = denoise(tmp_path / "a.zarr", Denoiser(Layer(0))).first_fault()
    assert fault is not None
    assert len({born_text(fault._replace(born=born)) for born in Born}) == len(Born)


class Tree(nn.Module):
    """A module of random children, some called twice, which may spoil what it makes at one step."""

    def __init__(self, chance: random.Random, depth: int) -> None:
        super().__init__()
        self.bad = chance.choice([0, 1, 2, 3, 9, 9, 9, 9])
        self.adds, self.step = chance.random() < 0.5, 0
        self.parts = nn.ModuleList(Tree(chance, depth - 1) for _ in range(chance.randint(0, 3) if depth else 0))
        self.plan = [at for at in range(len(self.parts)) for _ in range(chance.choice([1, 1, 2]))]

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Its parts one after the other; what is spoiled is kept to itself where it adds nothing."""
        out = x
        for at in self.plan:
            out = self.parts[at](out, timestep)
        if self.plan and not self.adds:  # the very tensor its last part made
            return out
        return out + (float("inf") if int(timestep) == self.bad else 0.0)


@pytest.mark.parametrize("seed", range(8))
def test_random_networks_against_independent_hooks(tmp_path: Path, seed: int) -> None:
    """Sequence and faults of two networks called in changing order are those that hooks of our own saw."""
    chance = random.Random(seed)
    networks = {name: Tree(chance, 3) for name in ("one", "other")}
    seen: list[tuple[str, int, bool]] = []
    step = 0
    for component, network in networks.items():
        for path, module in network.named_modules():
            name = f"{component}.{path}" if path else component

            def hook(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
                seen.append((name, step, bool(output.isfinite().all())))

            module.register_forward_hook(hook)
    with torch.no_grad(), Tracer(networks, tmp_path / "a.zarr", capture="statistics") as tracer:
        for step in range(4):
            tracer.step(step)
            for name in chance.choice([["one"], ["other"], ["one", "other"], ["other", "one"]]):
                networks[name](torch.ones(2, 3), torch.tensor(step))
    tables = tuple(open_trace(tmp_path / "a.zarr").tables())
    assert made(tables) == [(name, step) for name, step, _ in seen]
    calls: dict[tuple[str, int], int] = {}
    expected: dict[tuple[str, int], int] = {}
    for name, step, fine in seen:
        call = calls[name, step] = calls.get((name, step), -1) + 1
        if not fine:
            expected.setdefault((name, call), step)
    found = [((fault.site.name, fault.site.call), fault.step) for fault in find_faults(tables)]
    assert found == list(expected.items())


def made(tables: tuple[StatisticsTable, ...]) -> list[tuple[str, int]]:
    """Everything recorded in the loop, in the order of the numbers stored."""
    found = [
        (float(table.column(SEQUENCE)[step, row]), table.sites[row].name, step)
        for table in tables
        for step, row in np.argwhere(table.captured != NOT_CAPTURED).tolist()
    ]
    assert len({number for number, *_ in found}) == len(found)
    return [(name, step) for _, name, step in sorted(found)]


def test_numbers_are_where_something_was_recorded(tmp_path: Path) -> None:
    """Every tensor that is captured has a number of its own, the same object under another name too; the rest NaN."""
    network = nn.Sequential(nn.Identity(), nn.Sequential(nn.Identity(), Layer()))
    with torch.no_grad(), Tracer({"unet": network}, tmp_path / "a.zarr", capture="all") as tracer:
        for step in range(4):
            tracer.step(step)
            if step != 2:
                network(torch.ones(2, 3))
    (table,) = open_trace(tmp_path / "a.zarr").tables()
    numbers = table.column(SEQUENCE)
    assert (np.isfinite(numbers) == (table.captured != NOT_CAPTURED)).all()
    assert np.isnan(numbers[2]).all() and (np.diff(numbers[np.isfinite(numbers)]) > 0).all()


def without_numbers(trace: Trace) -> Iterator[StatisticsTable]:
    """The tables of a trace as format 1 has them."""
    for table in trace.tables():
        yield replace(table, values=table.values[:, :, : len(MEASURED)])


def test_traces_without_numbers(tmp_path: Path) -> None:
    """Where the run did not count, the order is that of steps, components and rows, and no birth is claimed."""
    trace = denoise(tmp_path / "a.zarr", Denoiser(Layer(), Layer(2)))
    tables = tuple(without_numbers(trace))
    assert not Moments.of(tables).exact and Moments.of(tuple(trace.tables())).exact
    assert find_faults(tables)[0] == Fault(trace.site("unet.layers.1"), 2)
    changed = denoise(tmp_path / "b.zarr", Denoiser(Layer()), change=spoil(0))
    assert find_faults(tuple(without_numbers(changed)))[0].site.key == "latents:latents"


def test_the_golden_trace_of_format_1() -> None:
    """It is read as before: it has no numbers, and its statistics are those that were measured."""
    trace = open_trace(GOLDEN)
    fault = trace.first_fault()
    assert fault is not None and (fault.site.key, fault.step, fault.born) == ("records.odd:output", 0, Born.UNKNOWN)
    assert trace.statistics("model")["statistic"].values.tolist() == list(MEASURED)
    assert np.isnan(trace.table("model").column(SEQUENCE)).all()
