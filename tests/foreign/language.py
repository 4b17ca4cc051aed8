"""Pipelines whose prompts are read by a language model, within a template."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import string

from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
)

from ..families import PROMPT
from .family import Foreign, Sight, foreign
from .parts import WIDTH, image_call, vae


def _tokenizer() -> Qwen2Tokenizer:
    """A byte-level tokenizer that knows the letters and, merged from the left, the words of the prompt."""
    letters = [*string.ascii_lowercase, "Ġ", "<", ">"]
    words = [[*(["Ġ"] if at else []), *word] for at, word in enumerate(PROMPT.split())]
    merges = list(dict.fromkeys(("".join(w[:end]), w[end]) for w in words for end in range(1, len(w))))
    tokens = [*letters, *(left + right for left, right in merges), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: at for at, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=64)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


@foreign(QwenImagePipeline)
def qwen_image() -> Foreign:
    """The template's beginning is dropped from the embedding; two calls a step, named by cache contexts."""
    tokenizer = _tokenizer()
    size = {"hidden_size": WIDTH, "intermediate_size": WIDTH}
    ids = {f"vision_{name}token_id": at for at, name in enumerate(("end_", "start_", ""))}
    text = {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
    }
    vision = {"depth": 1, "num_heads": 2, "out_hidden_size": WIDTH}
    config = Qwen2_5_VLConfig(text_config=size | text, vision_config=size | vision, **ids)
    pipeline = QwenImagePipeline(
        tokenizer=tokenizer,
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        transformer=QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(8, 4, 4),
        ),
    )
    pipeline.prompt_template_encode = "<|im_start|>draw<|im_end|><|im_start|>{}<|im_end|>"
    pipeline.prompt_template_encode_start_idx = 6
    sight = Sight("transformer.transformer_blocks.0.attn", (4, 4), image_at=7, text_at=-6)
    return Foreign(pipeline, image_call(2, true_cfg_scale=3.0), ("transformer",), sight=sight)


@foreign(ZImagePipeline)
def z_image() -> Foreign:
    """A list of pictures and of texts in place of a batch, the conditional ones first."""
    tokenizer = _tokenizer()
    tokenizer.chat_template = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
    pipeline = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift_factor=0.06),
        text_encoder=Qwen3Model(
            Qwen3Config(
                vocab_size=len(tokenizer),
                hidden_size=WIDTH,
                intermediate_size=WIDTH,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=8,
            )
        ),
        tokenizer=tokenizer,
        transformer=ZImageTransformer2DModel(
            in_channels=4,
            dim=WIDTH,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=WIDTH,
            axes_dims=[8, 4, 4],
            axes_lens=[256, 32, 32],
        ),
    )
    call = image_call(2, max_sequence_length=24, guidance_scale=3.0)
    return Foreign(pipeline, call, ("transformer",), listed=True, provable=False)
