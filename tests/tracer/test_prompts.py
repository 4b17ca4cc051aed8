"""What the text encoders of a run were given, however they were called, and what was cut off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import Trace, Tracer
from diffusion_xray.tracer.batches import batches_of
from diffusion_xray.tracer.description import describe_in_lines
from diffusion_xray.tracer.errors import SiteNotFoundError

LONG = "a red circle left of a blue square on white and a big green star above a small yellow ring on black"
SHORT = "a red circle on white"


def ids(pipe: Any, *texts: str) -> Tensor:
    """Token ids, padded."""
    length = pipe.tokenizer.model_max_length
    found: Tensor = pipe.tokenizer(list(texts), padding="max_length", max_length=length, return_tensors="pt").input_ids
    return found


def recorded(path: Path, prompt: Any, **options: Any) -> Trace:
    """A trace of the embedded model."""
    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    with Tracer(pipe, path / "run.zarr", capture="attention") as tracer:
        pipe(prompt, num_inference_steps=1, generator=torch.Generator().manual_seed(0), **options)
    assert not tracer.trace.info.tap_failures
    return tracer.trace


def test_a_prompt_that_was_cut(tmp_path: Path) -> None:
    """What the encoder did not read is said, and that a word is in it."""
    trace = recorded(tmp_path, LONG)
    prompt, negative = trace.prompts
    assert prompt.cut == ("a small yellow ring on black",)
    assert negative.cut == ()
    (line,) = [text for label, text in describe_in_lines(trace) if label == "prompt" and "cut off" in text]
    assert line.endswith("above', cut off: 'a small yellow ring on black'")
    with pytest.raises(SiteNotFoundError, match="'ring' was cut off: the prompt is longer than text_encoder reads"):
        trace.word_map("ring")


@pytest.mark.parametrize(
    ("prompt", "negative", "cut"),
    [
        (SHORT, LONG, [(), ("a small yellow ring on black",)]),
        ([SHORT, LONG], None, [("", "a small yellow ring on black"), ()]),
        (f"{SHORT} and a ring", SHORT, [(), ()]),
    ],
    ids=["negative", "second of two", "one begins the other"],
)
def test_whose_text_was_cut(prompt: Any, negative: str | None, cut: list[tuple[str, ...]], tmp_path: Path) -> None:
    """Each text is compared with itself: one that merely begins another is whole."""
    assert [found.cut for found in recorded(tmp_path, prompt, negative_prompt=negative).prompts] == cut


def through_the_root(encoder: Any, given: Tensor) -> Tensor:
    """As pipelines do."""
    out: Tensor = encoder(given).last_hidden_state
    return out


def through_a_part(encoder: Any, given: Tensor) -> Tensor:
    """Around the module that is the component."""
    out: Tensor = (
        getattr(encoder, "text_model", encoder)
        .encoder(inputs_embeds=getattr(encoder, "text_model", encoder).embeddings(input_ids=given))
        .last_hidden_state
    )
    norm: nn.Module = getattr(encoder, "text_model", encoder).final_layer_norm
    found: Tensor = norm(out)
    return found


def by_an_earlier_layer(encoder: Any, given: Tensor) -> Tensor:
    """Skipping the last layers, and the final norm by itself."""
    hidden = encoder(given, output_hidden_states=True).hidden_states[-2]
    out: Tensor = getattr(encoder, "text_model", encoder).final_layer_norm(hidden)
    return out


@pytest.mark.parametrize("encode", [through_the_root, through_a_part, by_an_earlier_layer])
@pytest.mark.parametrize("names", [("text_encoder", "tokenizer"), ("conditioner", "processor")])
def test_encoders_and_tokenizers_of_all_kinds(
    encode: Callable[[Any, Tensor], Tensor], names: tuple[str, str], tmp_path: Path
) -> None:
    """A tokenizer inside a processor, components of other names, and encoders called through their parts."""
    pipe, (encoder, tokenizer) = load_pipeline(), names
    held = pipe.tokenizer if tokenizer == "tokenizer" else SimpleNamespace(tokenizer=pipe.tokenizer)
    parts = {encoder: pipe.text_encoder, tokenizer: held, "unet": pipe.unet, "scheduler": pipe.scheduler}
    with torch.no_grad(), Tracer(parts, tmp_path / "run.zarr", capture="attention") as tracer:
        text = encode(pipe.text_encoder, ids(pipe, "", SHORT))
        latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        pipe.scheduler.set_timesteps(1)
        for t in pipe.scheduler.timesteps:
            u, c = pipe.unet(torch.cat([latents] * 2), t, encoder_hidden_states=text).sample.chunk(2)
            latents = pipe.scheduler.step(u + 3 * (c - u), t, latents).prev_sample
    trace = tracer.trace
    assert not trace.info.tap_failures
    assert [(prompt.encoder, prompt.text) for prompt in trace.prompts] == [(encoder, ("", SHORT))]
    (batch,) = batches_of(trace.info.batches, "unet") or ()
    assert batch.parts == ("unconditional", "conditional")
    assert [word.text for word in trace.words() if not word.special] == SHORT.split()


def test_generated_text_is_no_prompt(tmp_path: Path) -> None:
    """A language model that writes a text token by token is given one prompt."""
    pipe = load_pipeline()
    parts = {"text_encoder": pipe.text_encoder, "tokenizer": pipe.tokenizer}
    with torch.no_grad(), Tracer(parts, tmp_path / "run.zarr") as tracer:
        pipe.text_encoder(ids(pipe, SHORT))
        for token in range(3):
            pipe.text_encoder(torch.tensor([[token]]))
    assert [prompt.text for prompt in tracer.trace.prompts] == [(SHORT,)]


def test_an_encoder_that_changes_within_the_block(tmp_path: Path) -> None:
    """Prompts go on being recorded when an encoder's embedding is replaced, as by a textual inversion, or all of it."""
    pipe, other = load_pipeline(), load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    with Tracer(pipe, tmp_path / "run.zarr", capture="statistics") as tracer:
        pipe("a red circle on white", num_inference_steps=1)
        pipe.text_encoder.resize_token_embeddings(pipe.text_encoder.config.vocab_size + 1, mean_resizing=False)
        pipe("a blue square on white", num_inference_steps=1)
        pipe.text_encoder = other.text_encoder
        pipe("a green star on white", num_inference_steps=1)
    assert not tracer.trace.info.tap_failures
    texts = [text for prompt in tracer.trace.prompts for text in prompt.text if text]
    assert texts == ["a red circle on white", "a blue square on white", "a green star on white"]
