"""Attention whose shapes, scale, grid or mask change from step to step: each step has the map that the run used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_utils import AttentionInterface

from diffusion_xray.tracer import Capture, Trace, Tracer, open_trace
from diffusion_xray.tracer.attention.forms import Forms
from diffusion_xray.tracer.attention_check import check_attention
from diffusion_xray.tracer.errors import SiteNotFoundError
from diffusion_xray.tracer.info import SiteInfo
from diffusion_xray.tracer.layout import HAS_STATISTICS
from diffusion_xray.tracer.storage.store import StoreWriter

from ...families import FAMILIES, Family, run

Kernel = tuple[Tensor, Tensor, Tensor | None, float]
"""Query, key, mask and scale of one call."""


def exact(given: Kernel) -> NDArray[np.float64]:
    """The map in float64, by the definition."""
    query, key, mask, scale = given
    query, key = query.double(), key.double().repeat_interleave(query.shape[1] // key.shape[1], 1)
    scores = query @ key.mT * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype is torch.bool else scores + mask.double()
    return scores.softmax(-1).numpy()


class Kernels(nn.Module):
    """Attends as it is told to at each step, and remembers that."""

    def __init__(self, made: Callable[[int], Kernel]) -> None:
        super().__init__()
        self.made = made
        self.given: list[Kernel] = []

    def forward(self, step: int) -> Tensor:
        """Attend."""
        query, key, mask, scale = given = self.made(step)
        self.given.append(given)
        return F.scaled_dot_product_attention(query, key, key, mask, scale=scale, enable_gqa=True)


def draw(*shape: int) -> Tensor:
    """Random numbers."""
    return torch.randn(*shape)


CHANGES: dict[str, Callable[[int], Kernel]] = {
    "longer keys at the end": lambda step: (draw(2, 4, 6, 8), draw(2, 4, 5 + 3 * (step > 2), 8), None, 0.5),
    "a cache that grows": lambda step: (draw(1, 2, 1, 8), draw(1, 2, step + 1, 8), None, 0.5),
    "more queries, and back": lambda step: (draw(1, 2, 4 + 5 * (step % 2), 8), draw(1, 2, 5, 8), None, 0.5),
    "a larger batch": lambda step: (draw(1 + step // 3, 2, 4, 8), draw(1 + step // 3, 2, 4, 8), None, 0.5),
    "more heads": lambda step: (draw(1, 2 + 2 * (step > 3), 4, 8), draw(1, 2, 4, 8), None, 0.5),
    "another scale": lambda step: (draw(1, 2, 4, 8), draw(1, 2, 4, 8), None, 0.5 + (step in (1, 4))),
    "scale and length": lambda step: (draw(1, 2, 4, 8), draw(1, 2, 4 + step // 2, 8), None, 0.3 * (1 + step // 4)),
    "a mask of another shape": lambda step: (
        draw(1, 2, 4, 8),
        draw(1, 2, 5, 8),
        None if step == 2 else draw(1, 1, 1, 5) if step < 2 else draw(1, 2, 4, 5),
        0.5,
    ),
    "a mask of another kind": lambda step: (
        draw(1, 2, 4, 8),
        draw(1, 2, 5, 8),
        torch.arange(5).expand(1, 1, 4, 5) <= step if step < 3 else draw(1, 1, 4, 5),
        0.5,
    ),
    "heads in other groups": lambda step: (draw(1, 4, 4, 8), draw(1, (4, 2, 1)[step % 3], 5, 8), None, 0.5),
    "a mask, then other lengths without": lambda step: (
        draw(1, 2, 4, 8),
        draw(1, 2, 5 + 2 * (step > 1), 8),
        draw(1, 1, 4, 5) if step < 2 else None,
        0.5,
    ),
    "a mask of another length in between": lambda step: (
        draw(1, 2, 4, 8),
        draw(1, 2, 5 + 2 * (step in (2, 3)), 8),
        draw(1, 1, 4, 7) if step in (2, 3) else None,
        0.5,
    ),
    "a mask for each entry and head, then fewer without": lambda step: (
        draw(2 - step // 3, 4 - 2 * (step // 3), 4, 8),
        draw(2 - step // 3, 2, 5, 8),
        draw(2, 4, 4, 5) if step < 3 else None,
        0.5,
    ),
}


def record(made: Callable[[int], Kernel], path: Path, *, steps: int = 6) -> tuple[Trace, list[Kernel]]:
    """A trace of some steps, and what was attended in them."""
    torch.manual_seed(0)
    model = Kernels(made)
    with Tracer(model, path, capture=Capture(attention="model", attention_output=True)) as tracer:
        for step in range(steps):
            tracer.step(step)
            model(step)
    return tracer.trace, model.given


@pytest.mark.parametrize("change", list(CHANGES))
def test_every_step_has_its_own_map(change: str, tmp_path: Path) -> None:
    """Whatever changes, the array of a step is softmax(Q Kᵀ · scale + mask) of that step, and proven against V."""
    trace, given = record(CHANGES[change], tmp_path / "run.zarr")
    for step, kernel in enumerate(given):
        found = trace.attention("model", step=step)
        np.testing.assert_allclose(found.isel(step=step).values, exact(kernel), atol=2e-6)
    assert not trace.info.gaps
    (check,) = check_attention(trace)
    assert check.steps == 6
    assert check.passed


@pytest.mark.parametrize("change", list(CHANGES))
def test_other_steps_are_missing_and_not_another_map(change: str, tmp_path: Path) -> None:
    """An array holds the steps it lists, and reads as missing at all others, though it could be computed from them."""
    trace, given = record(CHANGES[change], tmp_path / "run.zarr")
    forms = trace.attentions.forms(trace.attentions.find("model"))
    covered: set[int] = set()
    for form in forms:
        own = form.steps if form.steps is not None else frozenset(range(6))
        assert not covered & own
        covered |= own
        found = trace.attention("model", step=min(own))
        there = [step for step in range(6) if not np.isnan(found.isel(step=step).values).all()]
        assert there == sorted(own)
        assert ("steps" in found.attrs) is (len(forms) > 1)
    assert covered == set(range(len(given)))


def test_one_description_makes_one_form(tmp_path: Path) -> None:
    """A call that is always alike has one form, whose array says nothing of steps."""
    trace, _ = record(lambda _: (draw(1, 2, 4, 8), draw(1, 2, 4, 8), None, 0.5), tmp_path / "run.zarr")
    call = trace.attentions.find("model")
    assert trace.attentions.forms(call) == (call,)
    assert call.steps is None
    assert "steps" not in trace.attention("model").attrs


def test_a_step_without_tensors_has_the_form_before(tmp_path: Path) -> None:
    """Where queries and keys were not kept nothing is shown, and it is no form of its own."""
    torch.manual_seed(0)
    model = Kernels(CHANGES["longer keys at the end"])
    capture = Capture(attention="model", steps=[0, 1, 4])
    with Tracer(model, tmp_path / "run.zarr", capture=capture) as tracer:
        for step in range(6):
            tracer.step(step)
            model(step)
    forms = tracer.trace.attentions.forms(tracer.trace.attentions.find("model"))
    kept = [sorted(form.steps or ()) for form in forms]
    assert sorted(step for own in kept for step in own) == list(range(6))
    found = tracer.trace.attention("model", step=4)
    np.testing.assert_allclose(found.isel(step=4).values, exact(model.given[4]), atol=2e-6)
    assert np.isnan(found.isel(step=5).values).all()


def test_a_step_that_has_no_map_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one step goes another way, that step has no map and the message names it; the others have theirs."""

    class Capped(nn.Module):
        def forward(self, x: Tensor, step: int) -> Tensor:
            further = {"softcap": 30.0} if step == 2 else {}
            found: Tensor = AttentionInterface._global_mapping["mine"](
                self, x, x, x, attention_mask=None, scaling=1.0, is_causal=False, **further
            )[0]
            return found

    monkeypatch.setitem(
        AttentionInterface._global_mapping,
        "mine",
        lambda _, query, key, value, **__: ((query @ key.mT).softmax(-1).matmul(value).transpose(1, 2), None),
    )
    model = Capped()
    with Tracer({"model": model}, tmp_path / "run.zarr", capture=Capture(attention="model")) as tracer:
        for step in range(4):
            tracer.step(step)
            model(draw(1, 2, 5, 8), step)
    trace = tracer.trace
    assert not np.isnan(trace.attention("model").isel(step=[0, 1, 3]).values).any()
    assert np.isnan(trace.attention("model").isel(step=2).values).all()
    with pytest.raises(SiteNotFoundError, match=r"at step 2.*softcap"):
        trace.attention("model", step=2)


def test_two_sizes_of_pictures_in_one_block(tmp_path: Path) -> None:
    """Two calls of a pipeline with pictures of different sizes give word maps that are right at every step."""
    family = FAMILIES["sd"]()
    with Tracer(family.pipeline, tmp_path / "both.zarr", capture="attention") as tracer:
        for size in (32, 48):
            run(Family("sd", family.pipeline, family.call | {"height": size, "width": size}))
    both = tracer.trace
    alone = []
    for size in (32, 48):
        with Tracer(family.pipeline, tmp_path / f"{size}.zarr", capture="attention") as tracer:
            run(Family("sd", family.pipeline, family.call | {"height": size, "width": size}))
        alone.append(tracer.trace)
    word = next(word.text for word in both.words() if not word.special)
    first, second = (trace.word_mass(word) for trace in alone)
    joined = both.word_mass(word)
    steps = first.sizes["step"]
    np.testing.assert_allclose(joined.values[:steps], first.values, rtol=1e-5)
    np.testing.assert_allclose(joined.values[steps:], second.values, rtol=1e-5)
    grid = both.word_map(word).shape[1:]
    assert grid == alone[1].word_map(word).shape[1:]


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_committed_step_has_its_map_while_the_run_goes_on(change: str, tmp_path: Path) -> None:
    """At each commit, also where only the scale is another, all steps that a reader sees have their own maps."""
    torch.manual_seed(0)
    model, path = Kernels(CHANGES[change]), tmp_path / "run.zarr"
    kept: list[Trace] = []
    seen: list[int] = []
    wrong: list[Exception] = []

    class Watched(StoreWriter):
        """A store that is read after each step that was committed, by a new reader and by one that refreshes."""

        def poke(self, path: str, position: int, value: float) -> None:
            """Set an element, and look."""
            super().poke(path, position, value)
            if path == "committed" and not wrong:
                try:
                    self.look()
                except Exception as error:  # noqa: BLE001 — raised by the test, not into the writer
                    wrong.append(error)

        def look(self) -> None:
            """Compare all maps that there are."""
            kept.append(open_trace(self.path)) if not kept else kept[0].refresh()
            for trace in (kept[0], open_trace(self.path)):
                for step in range(trace.n_steps):
                    found = trace.attention("model", step=step).isel(step=step).values
                    np.testing.assert_allclose(found, exact(model.given[step]), atol=2e-6)
                seen.append(trace.n_steps)

    with Tracer({"model": model}, path, capture=Capture(attention="model"), store=Watched) as tracer:
        for step in range(6):
            tracer.step(step)
            model(step)
    if wrong:
        raise wrong[0]
    assert seen == [steps for steps in range(1, 7) for _ in range(2)]


class Layer(nn.Module):
    """An attention layer of diffusers, as the blocks of a denoiser call it."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, image: Tensor, text: Tensor | None, mask: Tensor | None) -> Tensor:
        """Attend to a text, or to the image itself."""
        found: Tensor = self.attention(image, encoder_hidden_states=text, attention_mask=mask)
        return found


def by_hand(layer: Attention, image: Tensor, text: Tensor | None, mask: Tensor | None) -> NDArray[np.float64]:
    """The map of the layer from its weights, in float64: softmax(Q Kᵀ · scale + mask)."""

    def project(weight: nn.Linear, given: Tensor) -> Tensor:
        whole = given.double() @ weight.weight.double().T
        return whole.reshape(*whole.shape[:2], layer.heads, -1).transpose(1, 2)

    query, key = project(layer.to_q, image), project(layer.to_k, image if text is None else text)
    scores = query @ key.mT * layer.scale
    found: NDArray[np.float64] = (scores if mask is None else scores + mask.double()[:, None]).softmax(-1).numpy()
    return found


@pytest.mark.parametrize("processor", [AttnProcessor, AttnProcessor2_0])
def test_layers_of_diffusers(processor: type[AttnProcessor | AttnProcessor2_0], tmp_path: Path) -> None:
    """Size of the picture, batch, length of the text, mask and scale change, and each map is the run's."""
    torch.manual_seed(0)
    attention = Attention(16, cross_attention_dim=12, heads=2, dim_head=8, processor=processor())
    model, wanted = Layer(attention), []
    with (
        torch.no_grad(),
        Tracer(
            {"model": model}, tmp_path / "run.zarr", capture=Capture(attention="**", attention_output=True)
        ) as tracer,
    ):
        for step in range(8):
            batch, grid, length = 1 + step // 6, (2, 4)[step > 3], (5, 7, 5, 9)[step % 4]
            image, text = draw(batch, grid**2, 16), draw(batch, length, 12)
            mask = draw(batch, grid**2, length) if step in (1, 2, 7) else None
            attention.scale = 8**-0.5 * (2.0 if processor is AttnProcessor and step in (2, 5) else 1.0)
            tracer.step(step)
            # what processors of diffusers take has an entry for each head
            model(image, text, None if mask is None else mask.repeat_interleave(attention.heads, 0))
            wanted.append(by_hand(attention, image, text, mask))
    trace = tracer.trace
    for step, known in enumerate(wanted):
        found = trace.attention("model.attention", step=step)
        np.testing.assert_allclose(found.isel(step=step).values, known, atol=2e-6)
    assert not trace.info.gaps
    (check,) = check_attention(trace)
    assert (check.steps, check.passed) == (8, True)


def test_a_mask_whose_values_are_lost_is_no_mask_that_was_not_given(tmp_path: Path) -> None:
    """Where no step of a form kept its mask there is no map, though queries and keys would give one without it."""
    trace, _ = record(CHANGES["a mask, then other lengths without"], tmp_path / "run.zarr")
    call = trace.attentions.find("model")
    mask = trace.site("model", "mask")
    entries = trace._archive.group(call.group)["attention"]

    def forms(lost: list[int]) -> Forms:
        def captured(site: SiteInfo) -> NDArray[np.uint8]:
            found = trace.table("model").captured[:, site.row].copy()
            found[lost if site.port == mask.port else []] = HAS_STATISTICS
            return found

        return Forms(trace.modules["model"], 0, entries, call.group, captured)

    assert [form.reason for form in forms([]).all] == ["", ""]
    one_kept = forms([0])
    assert not one_kept.at(0).reason  # of a form that has another step's: Inputs has NaN there
    none_kept = forms([0, 1])
    assert none_kept.at(0).reason == none_kept.at(1).reason == "the values of its mask are lost"
    assert none_kept.at(4).reason == ""
    assert none_kept.at(4).mask is None
    shorter = forms([3])
    assert shorter.at(3).reason
    assert not shorter.at(2).reason
    assert shorter.at(4).form == shorter.at(2).form


def test_what_is_no_longer_so_is_described_anew(tmp_path: Path) -> None:
    """In what float32 is multiplied may change in a run, and back; each step has what held at it."""
    model = Kernels(lambda _: (draw(1, 2, 4, 8), draw(1, 2, 4, 8), None, 0.5))
    before = torch.get_float32_matmul_precision()
    try:
        with Tracer({"model": model}, tmp_path / "run.zarr", capture=Capture(attention="model")) as tracer:
            for step, precision in enumerate(("highest", "medium", "highest")):
                torch.set_float32_matmul_precision(precision)
                tracer.step(step)
                model(step)
    finally:
        torch.set_float32_matmul_precision(before)
    attentions = tracer.trace.attentions
    found = [attentions.at(attentions.find("model"), step).multiplied_in for step in range(3)]
    assert found == ["", "bfloat16", ""]


def test_one_variable_for_each_form(tmp_path: Path) -> None:
    """The backend of xarray has a variable for each form of a call."""
    record(CHANGES["longer keys at the end"], tmp_path / "run.zarr")
    tree: Any = xarray.open_datatree(tmp_path / "run.zarr", engine="diffusion-xray")
    (group,) = [node for node in tree.subtree if "attention" in node]
    assert group["attention"].shape == (6, 2, 4, 6, 5)
    assert group["attention_form1"].shape == (6, 2, 4, 6, 8)
