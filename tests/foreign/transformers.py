"""Pipelines whose denoiser is a transformer on the latents of pictures."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import dataclasses
from typing import Any

from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    ChromaPipeline,
    ChromaTransformer2DModel,
    CogVideoXDDIMScheduler,
    CogView3PlusPipeline,
    CogView3PlusTransformer2DModel,
    DDIMScheduler,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxFillPipeline,
    FluxImg2ImgPipeline,
    FluxKontextPipeline,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtSigmaPipeline,
    SanaSprintPipeline,
    SCMScheduler,
    StableDiffusion3PAGPipeline,
)
from transformers import BertConfig, BertModel, BertTokenizer, T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

from ..families import PROMPT
from .family import NEGATIVE, Foreign, Sight, foreign
from .parts import SIZE, TOKENS, WIDTH, another, image_call, mask, parts_of, picture, t5_config, t5_tokenizer, vae

_GRID = (SIZE // 4, SIZE // 4)
_IN_TRANSFORMER = ("transformer",)


def _t5(**options: Any) -> dict[str, Any]:
    tokenizer = t5_tokenizer()
    return {"tokenizer": tokenizer, "text_encoder": T5EncoderModel(T5Config(**t5_config(tokenizer, **options)))}


@foreign(DiTPipeline)
def dit() -> Foreign:
    """Classes and no text; both halves of the latents are stepped, the conditional one first."""
    network = DiTTransformer2DModel(
        sample_size=SIZE // 2,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=4,
        in_channels=4,
        out_channels=8,
        num_embeds_ada_norm=1000,  # the class after them stands for none
    )
    pipeline = DiTPipeline(transformer=network, vae=vae(), scheduler=DDIMScheduler(clip_sample=False))
    call = {"class_labels": [3], "num_inference_steps": 2, "output_type": "np"}
    return Foreign(pipeline, call, _IN_TRANSFORMER, condition={"class_labels": [4]}, parts=2)


@foreign(HunyuanDiTPipeline)
def hunyuan_dit() -> Foreign:
    """BERT and T5 one after the other in one cross-attention; half of what is predicted is dropped."""
    tokenizer, t5 = bert_tokenizer(), t5_tokenizer()
    bert = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
        )
    )
    network = HunyuanDiT2DModel(
        sample_size=SIZE // 2,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=4,
        hidden_size=WIDTH,
        in_channels=4,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=16,
        text_len=77,
        text_len_t5=256,
        activation_fn="gelu-approximate",
        use_style_cond_and_image_meta_size=False,
    )
    pipeline = HunyuanDiTPipeline(
        vae=vae(),
        text_encoder=bert,
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(T5Config(**t5_config(t5))),
        tokenizer_2=t5,
        transformer=network,
        scheduler=DDPMScheduler(prediction_type="v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    sight = Sight("transformer.blocks.0.attn2", _GRID, encoder="text_encoder", also={"text_encoder_2": 77})
    return Foreign(pipeline, image_call(2, use_resolution_binning=False), _IN_TRANSFORMER, sight=sight)


def bert_tokenizer() -> BertTokenizer:
    """A tokenizer that knows words."""
    words = dict.fromkeys(f"{PROMPT} {NEGATIVE}".split())
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    return BertTokenizer(vocab={token: at for at, token in enumerate(tokens)}, model_max_length=77)


@foreign(Lumina2Pipeline)
def lumina2() -> Foreign:
    """A language model whose last layer but one is the prompt's embedding, after a system prompt; two calls a step."""
    parts = parts_of("sana")
    pipeline = Lumina2Pipeline(
        transformer=Lumina2Transformer2DModel(
            sample_size=SIZE // 2,
            patch_size=2,
            in_channels=4,
            hidden_size=WIDTH,
            num_layers=2,
            num_refiner_layers=1,
            num_attention_heads=4,
            num_kv_heads=2,
            multiple_of=16,
            axes_dim_rope=(4, 2, 2),
            axes_lens=(64, 32, 32),
            cap_feat_dim=WIDTH,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift_factor=0.06),
        text_encoder=parts["text_encoder"],
        tokenizer=parts["tokenizer"],
    )
    return Foreign(pipeline, image_call(2, max_sequence_length=40, system_prompt="a"), _IN_TRANSFORMER)


@foreign(AuraFlowPipeline)
def aura_flow() -> Foreign:
    """Register tokens before the text; time runs from 1 to 0 for the denoiser."""
    tokenizer = t5_tokenizer()
    pipeline = AuraFlowPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(UMT5Config(**t5_config(tokenizer))),
        vae=vae(),
        transformer=AuraFlowTransformer2DModel(
            sample_size=SIZE // 2,
            patch_size=2,
            in_channels=4,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=WIDTH,
            joint_attention_dim=WIDTH,
            pos_embed_max_size=64,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
    call = image_call(2, max_sequence_length=TOKENS)
    sight = Sight("transformer.joint_transformer_blocks.0.attn", _GRID, image_at=TOKENS + 8, text_at=8)
    return Foreign(pipeline, call, _IN_TRANSFORMER, sight=sight)


@foreign(CogView3PlusPipeline)
def cogview3() -> Foreign:
    """Text before image in one sequence, conditions on sizes, DDIM of CogVideoX."""
    pipeline = CogView3PlusPipeline(
        **_t5(),
        vae=vae(),
        transformer=CogView3PlusTransformer2DModel(
            patch_size=2,
            in_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            out_channels=4,
            text_embed_dim=WIDTH,
            time_embed_dim=8,
            condition_dim=2,
            pos_embed_max_size=8,
            sample_size=8,
        ),
        scheduler=CogVideoXDDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing"),
    )
    sight = Sight("transformer.transformer_blocks.0.attn1", _GRID, image_at=TOKENS)
    return Foreign(pipeline, image_call(2, max_sequence_length=TOKENS), _IN_TRANSFORMER, sight=sight)


@foreign(PixArtSigmaPipeline)
def pixart_sigma() -> Foreign:
    """T5 with a mask, several images of one prompt."""
    parts = parts_of("pixart")
    pipeline = PixArtSigmaPipeline(**parts | {"scheduler": DPMSolverMultistepScheduler(final_sigmas_type="zero")})
    call = image_call(2, use_resolution_binning=False, clean_caption=False, max_sequence_length=TOKENS)
    sight = Sight("transformer.transformer_blocks.1.attn2", _GRID)
    return Foreign(pipeline, call | {"num_images_per_prompt": 2}, _IN_TRANSFORMER, sight=sight)


@foreign(SanaSprintPipeline)
def sana_sprint() -> Foreign:
    """Guidance as an input; angles for timesteps; the scheduler works on scaled latents."""
    parts = parts_of("sana")
    network = another(parts["transformer"], guidance_embeds=True, qk_norm="rms_norm_across_heads")
    pipeline = SanaSprintPipeline(**parts | {"scheduler": SCMScheduler(), "transformer": network})
    call = image_call(2, height=32, width=32, use_resolution_binning=False, clean_caption=False, negative_prompt=None)
    call |= {"complex_human_instruction": None, "max_sequence_length": TOKENS}
    return Foreign(pipeline, call, _IN_TRANSFORMER, sight=Sight("transformer.transformer_blocks.0.attn2", (16, 16)))


@foreign(StableDiffusion3PAGPipeline)
def sd3_pag() -> Foreign:
    """Three parts of joint attention, the third perturbed."""
    pipeline = StableDiffusion3PAGPipeline(**parts_of("sd3"), pag_applied_layers=["blocks.1"])
    call = image_call(2, pag_scale=2.0, max_sequence_length=TOKENS)
    sight = Sight(
        "transformer.transformer_blocks.0.attn", _GRID, text_at=16, encoder="text_encoder", also={"text_encoder_3": 28}
    )
    return Foreign(pipeline, call, _IN_TRANSFORMER, sight=sight, provable=False)


def _flux(**options: Any) -> dict[str, Any]:
    """The parts of Flux with another transformer."""
    parts = parts_of("flux")
    parts["transformer"] = another(parts["transformer"], **options)
    return parts


_FLUX_SIGHT = Sight("transformer.transformer_blocks.0.attn", _GRID, image_at=TOKENS, encoder="text_encoder_2")


@foreign(FluxFillPipeline)
def flux_fill() -> Foreign:
    """Latents, the picture's and its mask side by side in the channels of each token."""
    pipeline = FluxFillPipeline(**_flux(in_channels=4 * 4 * 2 + 16, out_channels=16))
    call = image_call(2, image=picture(), mask_image=mask(), max_sequence_length=TOKENS, negative_prompt=None)
    return Foreign(pipeline, call, _IN_TRANSFORMER, sight=_FLUX_SIGHT)


@foreign(FluxKontextPipeline)
def flux_kontext() -> Foreign:
    """The picture's tokens after those of the latents, dropped after each call; guidance in two calls."""
    pipeline = FluxKontextPipeline(**_flux())
    call = image_call(2, image=picture(), max_sequence_length=TOKENS, true_cfg_scale=2.0, max_area=SIZE**2)
    return Foreign(pipeline, call | {"_auto_resize": False}, _IN_TRANSFORMER, sight=_FLUX_SIGHT)


@foreign(FluxImg2ImgPipeline)
def flux_img2img() -> Foreign:
    """The last part of the schedule of a flow, two calls a step."""
    pipeline = FluxImg2ImgPipeline(**_flux())
    call = image_call(4, image=picture(), strength=0.5, max_sequence_length=TOKENS, true_cfg_scale=2.0)
    return Foreign(pipeline, call, _IN_TRANSFORMER, sight=_FLUX_SIGHT)


@foreign(ChromaPipeline)
def chroma() -> Foreign:
    """T5 alone with its padding masked, two calls a step."""
    pipeline = ChromaPipeline(
        **_t5(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(shift_factor=0.06),
        transformer=ChromaTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            approximator_num_channels=8,
            approximator_hidden_dim=16,
            approximator_layers=1,
        ),
    )
    sight = dataclasses.replace(_FLUX_SIGHT, encoder="text_encoder")
    return Foreign(pipeline, image_call(2, max_sequence_length=TOKENS), _IN_TRANSFORMER, sight=sight)
