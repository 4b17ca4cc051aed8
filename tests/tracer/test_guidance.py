"""Which branch and which text each entry of a denoiser's batch belongs to, in pipelines and loops of all kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPAGPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import Tensor

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import Trace, Tracer, open_trace
from diffusion_xray.tracer.batches import Batch, batches_of
from diffusion_xray.tracer.errors import SiteNotFoundError

from ..families import FAMILIES, run

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

PROMPT = "a red circle left of a blue square on white"
OTHER = "a big green star on black"
U, C = "unconditional", "conditional"


def embedded() -> Any:
    """The embedded model."""
    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def traced(path: Path, pipe: Any, *arguments: dict[str, Any], capture: Any = "attention") -> Trace:
    """A trace of one or more calls of a pipeline."""
    with Tracer(pipe, path / "run.zarr", capture=capture) as tracer:
        for given in arguments:
            pipe(**{"num_inference_steps": 2, "generator": torch.Generator().manual_seed(0), **given})
    assert not tracer.trace.info.tap_failures
    return tracer.trace


def batch_of(trace: Trace, denoiser: str = "unet") -> list[Batch]:
    """What a denoiser was given."""
    return list(batches_of(trace.info.batches, denoiser) or ())


def said(trace: Trace, batch: Batch) -> list[list[str]]:
    """The texts of each entry."""
    texts = {(p.encoder, p.call, row): text for p in trace.prompts for row, text in enumerate(p.text)}
    return [[texts[text.encoder, text.call, text.prompt] for text in entry] for entry in batch.texts]


class Loop:
    """A loop of one's own around the parts of the embedded model."""

    def __init__(self) -> None:
        self.pipe = embedded()
        names = ("text_encoder", "tokenizer", "unet", "scheduler")
        self.parts = {name: getattr(self.pipe, name) for name in names}

    def encode(self, *texts: str) -> Tensor:
        """Embeddings of texts, in one call."""
        tokenizer = self.pipe.tokenizer
        ids = tokenizer(list(texts), padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
        found: Tensor = self.pipe.text_encoder(ids.input_ids).last_hidden_state
        return found

    def run(self, path: Path, texts: Callable[[Loop], Tensor], guide: Callable[[Tensor], Tensor], copies: int) -> Trace:
        """Two steps with `copies` entries for one picture."""
        with torch.no_grad(), Tracer(self.parts, path / "run.zarr", capture="attention") as tracer:
            given = texts(self)
            latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
            self.pipe.scheduler.set_timesteps(2)
            for t in self.pipe.scheduler.timesteps:
                out = self.pipe.unet(torch.cat([latents] * copies), t, encoder_hidden_states=given).sample
                latents = self.pipe.scheduler.step(guide(out), t, latents).prev_sample
        assert not tracer.trace.info.tap_failures
        return tracer.trace


def first_minus_second(out: Tensor) -> Tensor:
    """Guidance with the conditional half first."""
    c, u = out.chunk(2)
    return u + 3 * (c - u)


def second_minus_first(out: Tensor) -> Tensor:
    """Guidance with the unconditional half first."""
    u, c = out.chunk(2)
    return u + 3 * (c - u)


def test_the_conditional_half_may_come_first(tmp_path: Path) -> None:
    """By the texts themselves, whatever the order; each branch has the words it was given."""
    trace = Loop().run(tmp_path, lambda loop: loop.encode(PROMPT, ""), first_minus_second, 2)
    assert trace.info.guidance == {"unet": {"batch": [C, U], "evidence": "embeddings"}}
    assert "circle" in [word.text for word in trace.words()]
    assert "circle" not in [word.text for word in trace.words(branch=U)]


def test_two_texts_without_a_pipeline_are_told_by_the_result(tmp_path: Path) -> None:
    """Neither text is empty, so guidance itself tells which it moves towards."""
    trace = Loop().run(tmp_path, lambda loop: loop.encode(PROMPT, OTHER), first_minus_second, 2)
    assert trace.info.guidance == {"unet": {"batch": [C, U], "evidence": "output"}}
    assert "star" in [word.text for word in trace.words(branch=U)]
    trace = Loop().run(tmp_path / "b", lambda loop: loop.encode(PROMPT, OTHER), second_minus_first, 2)
    assert trace.info.guidance["unet"]["batch"] == [U, C]
    assert "star" in [word.text for word in trace.words()]


def test_what_is_not_proven_is_numbered(tmp_path: Path) -> None:
    """A mean of two texts' predictions has no unconditional half; the words of each part are known all the same."""
    trace = Loop().run(
        tmp_path, lambda loop: loop.encode(PROMPT, OTHER), lambda out: out.chunk(2)[0] / 2 + out.chunk(2)[1] / 2, 2
    )
    assert trace.info.guidance == {"unet": {"batch": ["part 0", "part 1"], "evidence": ""}}
    assert "star" in [word.text for word in trace.words(branch="part 1")]
    with pytest.raises(SiteNotFoundError, match=r"no guidance branch 'conditional'.*part 0, part 1"):
        trace.words()


def test_texts_that_cannot_be_followed_have_no_words(tmp_path: Path) -> None:
    """Embeddings that were changed on their way are of no text that is known, though their branch is."""
    trace = Loop().run(tmp_path, lambda loop: 1.1 * loop.encode(OTHER, PROMPT), first_minus_second, 2)
    assert trace.info.guidance == {"unet": {"batch": [C, U], "evidence": "output"}}
    with pytest.raises(SiteNotFoundError, match="which text"):
        trace.words()


class Pixels(DiffusionPipeline):  # type: ignore[misc]
    """A pipeline without texts that guides by other inputs."""

    def __init__(self, unet: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(self, guide: Callable[[Any, Tensor, Tensor], Tensor]) -> Tensor:
        """Two steps."""
        x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        self.scheduler.set_timesteps(2)
        for t in self.scheduler.timesteps:
            x = self.scheduler.step(guide(self.unet, x, t), t, x).prev_sample
        return x


def pixels() -> Pixels:
    """The smallest one."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = UNet2DModel(sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, **blocks)
    return Pixels(unet, DDIMScheduler())


def together(unet: Any, x: Tensor, t: Tensor) -> Tensor:
    """Both in a batch, the conditional one first."""
    c, u = unet(torch.cat([x + 1, x]), t).sample.chunk(2)
    found: Tensor = u + 3 * (c - u)
    return found


def apart(unet: Any, x: Tensor, t: Tensor) -> Tensor:
    """One call each, the conditional one first, joined in place."""
    c: Tensor = unet(x + 1, t).sample
    u: Tensor = unet(x, t).sample
    return u.mul_(-2).add_(3 * c)


def rescaled(unet: Any, x: Tensor, t: Tensor) -> Tensor:
    """Guidance whose spread is made that of the conditional part."""
    c, u = unet(torch.cat([x + 1, x]), t).sample.chunk(2)
    guided: Tensor = u + 3 * (c - u)
    scaled: Tensor = 0.7 * guided * c.std() / guided.std() + 0.3 * guided
    return scaled


@pytest.mark.parametrize(
    ("guide", "known"),
    [
        (together, {"batch": [C, U], "evidence": "output"}),
        (rescaled, {"batch": [C, U], "evidence": "output"}),
        (apart, {"calls": [C, U], "evidence": "output"}),
    ],
)
def test_guidance_without_texts(guide: Any, known: dict[str, Any], tmp_path: Path) -> None:
    """The result of guidance tells the branches where nothing else does."""
    with Tracer(pipe := pixels(), tmp_path / "run.zarr") as tracer:
        pipe(guide)
    assert tracer.trace.info.guidance == {"unet": known}


def test_no_guidance(tmp_path: Path) -> None:
    """A batch of pictures is no guidance, and its texts are known."""
    trace = traced(tmp_path, embedded(), {"prompt": [PROMPT, OTHER], "guidance_scale": 1.0})
    assert trace.info.guidance == {}
    assert "star" in [word.text for word in trace.words(image=1)]


def test_a_negative_prompt_that_equals_the_prompt(tmp_path: Path) -> None:
    """Both halves are alike in everything, so neither is the conditional one; their words are known."""
    trace = traced(tmp_path, embedded(), {"prompt": PROMPT, "negative_prompt": PROMPT})
    assert trace.info.guidance == {"unet": {"batch": ["part 0", "part 1"], "evidence": ""}}
    assert "circle" in [word.text for word in trace.words(branch="part 0")]


def test_two_prompts_with_two_images_each(tmp_path: Path) -> None:
    """Every entry has its own text, and a word of another one says which image has it."""
    given = {"prompt": [PROMPT, OTHER], "negative_prompt": ["a yellow ring on gray", ""], "num_images_per_prompt": 2}
    trace = traced(tmp_path, embedded(), given)
    (batch,) = batch_of(trace)
    negative = [["a yellow ring on gray"]] * 2 + [[""]] * 2
    assert said(trace, batch) == [*negative, [PROMPT], [PROMPT], [OTHER], [OTHER]]
    assert batch.parts == (U, C)
    with pytest.raises(SiteNotFoundError, match="The prompt of image 2 has 'star'"):
        trace.word_map("star")


def test_embeddings_given_by_the_user(tmp_path: Path) -> None:
    """Without any text the arguments tell the branches."""
    pipe = embedded()
    with torch.no_grad():
        positive, negative = pipe.encode_prompt(PROMPT, "cpu", 1, True, OTHER)
    trace = traced(tmp_path, pipe, {"prompt_embeds": positive, "negative_prompt_embeds": negative})
    assert trace.info.guidance == {"unet": {"batch": [U, C], "evidence": "arguments"}}
    assert not trace.prompts


def test_image_and_text_guidance(tmp_path: Path) -> None:
    """Of three parts one has the prompt; the other two have one text, so that they are numbered."""
    parts = embedded().components
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config({**parts["unet"].config, "in_channels": 8})
    kept = {name: part for name, part in parts.items() if name != "image_encoder"} | {"unet": unet}
    pipe = StableDiffusionInstructPix2PixPipeline(**kept, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    trace = traced(tmp_path, pipe, {"prompt": PROMPT, "image": torch.rand(1, 3, 64, 64)})
    assert trace.info.guidance == {"unet": {"batch": [C, "part 1", "part 2"], "evidence": "embeddings"}}
    assert [said(trace, batch) for batch in batch_of(trace)] == [[[PROMPT], [""], [""]]]


@pytest.mark.parametrize(("scale", "known"), [(5.0, [U, C, "part 2"]), (1.0, [C, "part 1"])])
def test_perturbed_attention(scale: float, known: list[str], tmp_path: Path) -> None:
    """Two parts have the prompt: the one that guidance moves towards is conditional, and the other is not named so."""
    parts = embedded().components
    pipe = StableDiffusionPAGPipeline(**parts, requires_safety_checker=False, pag_applied_layers=["mid"])
    pipe.set_progress_bar_config(disable=True)
    trace = traced(tmp_path, pipe, {"prompt": PROMPT, "guidance_scale": scale, "pag_scale": 3.0})
    assert trace.info.guidance == {"unet": {"batch": known, "evidence": "embeddings"}}


def test_each_pipeline_call_has_its_own_words(tmp_path: Path) -> None:
    """Two prompts in one block, the second without guidance: steps and words belong to the call they were made in."""
    trace = traced(tmp_path, embedded(), {"prompt": PROMPT}, {"prompt": OTHER, "guidance_scale": 1.0})
    assert [run["step"] for run in trace.info.runs] == [0, 2]
    assert [run["call"]["prompt"] for run in trace.info.runs] == [PROMPT, OTHER]
    assert "circle" in [word.text for word in trace.words(step=1)]
    assert "star" in [word.text for word in trace.words(step=2)]
    assert np.isnan(trace.word_map("star").values[:2]).all()
    with pytest.raises(SiteNotFoundError, match="no word 'star'"):
        trace.word_map("star", step=0)


def test_prompts_of_one_length_in_one_block(tmp_path: Path) -> None:
    """Calls of the same layout differ in their texts alone."""
    trace = traced(tmp_path, embedded(), {"prompt": PROMPT}, {"prompt": OTHER})
    assert [said(trace, batch) for batch in batch_of(trace)] == [[[""], [PROMPT]], [[""], [OTHER]]]
    own = trace.word_map("star", step=[2, 3])
    alone = traced(tmp_path / "alone", embedded(), {"prompt": OTHER}).word_map("star")
    assert np.array_equal(own.values, alone.values)


def test_texts_that_change_within_a_loop(tmp_path: Path) -> None:
    """A prompt that is exchanged half way is followed."""
    loop = Loop()
    with torch.no_grad(), Tracer(loop.parts, tmp_path / "run.zarr", capture="attention"):
        texts = [loop.encode("", PROMPT), loop.encode("", OTHER)]
        latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        loop.pipe.scheduler.set_timesteps(4)
        for at, t in enumerate(loop.pipe.scheduler.timesteps):
            out = loop.pipe.unet(torch.cat([latents] * 2), t, encoder_hidden_states=texts[at // 2]).sample
            latents = loop.pipe.scheduler.step(second_minus_first(out), t, latents).prev_sample
    trace = open_trace(tmp_path / "run.zarr")
    assert [(batch.step, said(trace, batch)[1]) for batch in batch_of(trace)] == [(0, [PROMPT]), (2, [OTHER])]
    assert "star" in [word.text for word in trace.words(step=3)]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "flux"])
def test_families(name: str, tmp_path: Path) -> None:
    """Changing the negative prompt alone changes the entries that are called unconditional, and no others."""
    seen: list[list[Tensor]] = []
    for negative in ("a circle", "on blue"):
        family = FAMILIES[name]()
        given: list[Tensor] = []
        denoiser = getattr(family.pipeline, "transformer", None) or family.pipeline.unet
        denoiser.register_forward_pre_hook(
            lambda _, args, kwargs, given=given: given.append(_text(kwargs)), with_kwargs=True
        )
        family.call["negative_prompt"] = negative
        with Tracer(family.pipeline, tmp_path / f"{negative}.zarr", capture="statistics") as tracer:
            run(family)
        seen.append(given)
    trace, component = tracer.trace, "transformer" if hasattr(family.pipeline, "transformer") else "unet"
    calls = 2 if name == "wan" else 1
    changed = [
        not torch.equal(one[entry], other[entry])
        for one, other in list(zip(*seen, strict=True))[:calls]
        for entry in range(len(one))
    ]
    labels = [part for batch in batch_of(trace, component)[:calls] for part in batch.parts]
    assert labels == [U if differs else C for differs in changed]
    told = [text for batch in batch_of(trace, component)[:calls] for entry in said(trace, batch) for text in set(entry)]
    assert told == ["on blue" if differs else "a red circle on blue" for differs in changed]


def _text(kwargs: dict[str, Any]) -> Tensor:
    given: Tensor = kwargs["encoder_hidden_states"]
    return given.clone()


def test_a_call_that_joins_later_is_not_the_branch_of_another(tmp_path: Path) -> None:
    """A third call from the second step on, of the prompt again, is numbered; the first stays the conditional one."""
    loop = Loop()
    unet, scheduler = loop.pipe.unet, loop.pipe.scheduler
    with torch.no_grad(), Tracer(loop.parts, tmp_path / "run.zarr", capture="attention") as tracer:
        c, u = loop.encode(PROMPT), loop.encode("")
        latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        scheduler.set_timesteps(3)
        for step, t in enumerate(scheduler.timesteps):
            texts = (c, u, c) if step else (c, u)
            out = [unet(latents, t, encoder_hidden_states=text).sample for text in texts]
            latents = scheduler.step(out[1] + 3 * (out[0] - out[1]), t, latents).prev_sample
    trace = tracer.trace
    assert trace.info.guidance["unet"]["calls"] == [C, U, "call 2"]
    branches = {site.call: site.branch for site in trace.modules["unet"].sites if site.port == "output"}
    assert (branches[0], branches[1]) == (C, U) and branches[2] != C


def diffusion_transformer() -> DiTPipeline:
    """A small DiT of ten classes."""
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=1000,
    ).eval()
    torch.nn.init.normal_(transformer.proj_out_2.weight, std=0.5)  # made as zeros, by which no class would matter
    for block in transformer.transformer_blocks:
        torch.nn.init.normal_(block.norm1.linear.weight, std=0.2)
    pipe = DiTPipeline(transformer, FAMILIES["sd"]().pipeline.vae, DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_loop_that_steps_with_both_halves(tmp_path: Path) -> None:
    """DiT repeats the result of guidance for both halves; which is the conditional one is told by the result."""
    pipe = diffusion_transformer()
    seen: list[Tensor] = []
    pipe.transformer.register_forward_hook(lambda _, __, output: seen.append(output[0].clone()))
    for label in (1, 2):
        pipe([label, 3], num_inference_steps=1, generator=torch.Generator().manual_seed(0), output_type="latent")
    ours, other = (output.chunk(2) for output in seen)
    changed = [not torch.equal(one, two) for one, two in zip(ours, other, strict=True)]
    assert changed == [True, False]
    with Tracer(pipe, tmp_path / "run.zarr", capture="attention") as tracer:
        pipe([1, 3], num_inference_steps=3, generator=torch.Generator().manual_seed(0))
    assert tracer.trace.info.guidance == {"transformer": {"batch": [C, U], "evidence": "output"}}
    (batch,) = batch_of(tracer.trace, "transformer")
    assert batch.parts == (C, U)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_a_batch_without_guidance_has_no_branches(scale: float, tmp_path: Path) -> None:
    """Two pictures of one seed in a batch are no branches, though all they begin with is alike."""
    pipe = diffusion_transformer()
    torch.manual_seed(0)
    latents = torch.randn(1, 4, 8, 8).repeat(2, 1, 1, 1)
    scheduler, transformer = pipe.scheduler, pipe.transformer
    with torch.no_grad(), Tracer(pipe, tmp_path / "run.zarr") as tracer:
        scheduler.set_timesteps(2)
        for t in scheduler.timesteps:
            labels = torch.tensor([1, 2])
            noise = transformer(latents, timestep=t.expand(2), class_labels=labels).sample[:, :4]
            latents = scheduler.step(noise * scale, t, latents).prev_sample
    assert tracer.trace.info.guidance == {}
