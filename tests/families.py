"""Tiny pipelines of the families that differ most: genuine classes, random weights, no downloads."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import functools
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    HeunDiscreteScheduler,
    IFPipeline,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

__all__ = ["FAMILIES", "PROMPT", "Family", "run"]

PROMPT = "a red circle on blue"
"""The prompt of every family; each of its words is one token of every tokenizer."""

_SIZE = 16  # height and width in pixels
_WIDTH = 32  # of text encoders and denoisers
_TOKENS = 12  # length to which prompts are padded


@dataclass(frozen=True, slots=True)
class Family:
    """A pipeline, the arguments of one call without the generator, and the output's field that holds the result."""

    name: str
    pipeline: Any
    call: dict[str, Any]
    images: str = "images"


FAMILIES: dict[str, Callable[[], Family]] = {}
"""Builders by name; every call builds anew, always with the same weights."""


def run(family: Family) -> np.ndarray[Any, Any]:
    """Call the pipeline with a fresh generator of seed 0 and return the raw output."""
    output = family.pipeline(**family.call, generator=torch.Generator().manual_seed(0))
    return np.asarray(getattr(output, family.images))


def _register(build: Callable[[], Family]) -> Callable[[], Family]:
    """Enter a builder in `FAMILIES`, with seeded weights, without dropout and without progress bars."""

    @functools.wraps(build)
    def seeded() -> Family:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            family = build()
        for component in family.pipeline.components.values():
            if isinstance(component, torch.nn.Module):
                component.eval()
        family.pipeline.set_progress_bar_config(disable=True)
        return family

    FAMILIES[build.__name__] = seeded
    return seeded


@_register
def sd() -> Family:
    """Stable Diffusion: 4-D latents, one doubled batch per step, DDIM."""
    pipeline = StableDiffusionPipeline(**_sd_parts(), scheduler=DDIMScheduler(clip_sample=False, steps_offset=1))
    return Family("sd", pipeline, _image_call(3))


@_register
def sd_img2img() -> Family:
    """Stable Diffusion from an image: `vae.encode` runs, and Heun calls the denoiser twice in most steps."""
    pipeline = StableDiffusionImg2ImgPipeline(**_sd_parts(), scheduler=HeunDiscreteScheduler(steps_offset=1))
    call = {"prompt": PROMPT, "image": _picture(), "strength": 0.75, "num_inference_steps": 4, "output_type": "np"}
    return Family("sd_img2img", pipeline, call)


@_register
def sd_controlnet() -> Family:
    """Stable Diffusion with ControlNet: two denoisers per step, UniPC."""
    parts = _sd_parts()
    controlnet = ControlNetModel.from_unet(parts["unet"], conditioning_embedding_out_channels=(8, 16))
    for layer in (controlnet.controlnet_cond_embedding.conv_out, controlnet.controlnet_down_blocks):
        for parameter in layer.parameters():  # the zeros these start from would leave the image unused
            torch.nn.init.normal_(parameter, std=0.1)
    scheduler = UniPCMultistepScheduler(steps_offset=1)
    pipeline = StableDiffusionControlNetPipeline(**parts, controlnet=controlnet, scheduler=scheduler)
    return Family("sd_controlnet", pipeline, _image_call(3) | {"image": _picture()})


@_register
def sdxl() -> Family:
    """Stable Diffusion XL: two text encoders, size conditioning, Euler."""
    tokenizer = _clip_tokenizer()
    pipeline = StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_clip_config(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config(tokenizer)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=_unet(
            cross_attention_dim=2 * _WIDTH,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + _WIDTH,
        ),
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    )
    return Family("sdxl", pipeline, _image_call(3))


@_register
def sd3() -> Family:
    """Stable Diffusion 3: joint attention over three text encoders, one doubled batch per step, flow matching."""
    tokenizer, t5_tokenizer = _clip_tokenizer(), _t5_tokenizer()
    pipeline = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=_SIZE // 2,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=2 * _WIDTH,
            caption_projection_dim=_WIDTH,
            pooled_projection_dim=2 * _WIDTH,
            pos_embed_max_size=_SIZE,
            qk_norm="rms_norm",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=CLIPTextModelWithProjection(_clip_config(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(_clip_config(tokenizer)),
        tokenizer_2=tokenizer,
        text_encoder_3=T5EncoderModel(T5Config(**_t5_config(t5_tokenizer, d_model=2 * _WIDTH))),
        tokenizer_3=t5_tokenizer,
    )
    return Family("sd3", pipeline, _image_call(3) | {"max_sequence_length": _TOKENS})


@_register
def flux() -> Family:
    """Flux: packed 3-D latents, guidance as an input and thus a single batch, a timestep divided by 1000."""
    tokenizer, t5_tokenizer = _clip_tokenizer(), _t5_tokenizer()
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_vae(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=CLIPTextModel(_clip_config(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(T5Config(**_t5_config(t5_tokenizer))),
        tokenizer_2=t5_tokenizer,
        transformer=FluxTransformer2DModel(
            in_channels=4 * 4,
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=_WIDTH,
            pooled_projection_dim=_WIDTH,
            guidance_embeds=True,
            axes_dims_rope=(4, 4, 8),
        ),
    )
    return Family("flux", pipeline, _image_call(3) | {"guidance_scale": 3.5, "max_sequence_length": _TOKENS})


@_register
def pixart() -> Family:
    """PixArt-alpha: a transformer that also predicts the variance, masked T5 prompts, DPM-Solver++."""
    tokenizer = _t5_tokenizer()
    pipeline = PixArtAlphaPipeline(
        tokenizer=tokenizer,
        text_encoder=T5EncoderModel(T5Config(**_t5_config(tokenizer))),
        vae=_vae(),
        transformer=PixArtTransformer2DModel(
            sample_size=_SIZE // 2,
            num_layers=2,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_channels=_WIDTH,
            cross_attention_dim=_WIDTH,
            in_channels=4,
            out_channels=8,
        ),
        scheduler=DPMSolverMultistepScheduler(),
    )
    call = _image_call(3) | {"use_resolution_binning": False, "clean_caption": False, "max_sequence_length": _TOKENS}
    return Family("pixart", pipeline, call)


@_register
def sana() -> Family:
    """Sana: linear attention in denoiser and decoder, a text encoder with grouped heads and capped scores."""
    tokenizer = _t5_tokenizer()
    ends = {"block_types": ("ResBlock", "EfficientViTBlock"), "block_out_channels": (8, 8)}
    ends |= {"layers_per_block": (1, 1), "qkv_multiscales": ((), (5,))}
    pipeline = SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=Gemma2Model(
            Gemma2Config(
                vocab_size=len(tokenizer),
                hidden_size=_WIDTH,
                intermediate_size=_WIDTH,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=8,
                attn_implementation="eager",
            )
        ),
        vae=AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            **{f"{end}_{name}": value for end in ("encoder", "decoder") for name, value in ends.items()},
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
        ),
        transformer=SanaTransformer2DModel(
            sample_size=_SIZE,
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            num_attention_heads=4,
            attention_head_dim=8,
            num_cross_attention_heads=4,
            cross_attention_head_dim=8,
            cross_attention_dim=_WIDTH,
            caption_channels=_WIDTH,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    call = _image_call(2) | {"height": 32, "width": 32, "use_resolution_binning": False, "clean_caption": False}
    return Family("sana", pipeline, call | {"complex_human_instruction": None, "max_sequence_length": _TOKENS})


@_register
def deepfloyd_if() -> Family:
    """DeepFloyd IF: denoises pixels without a VAE, keys and values of text added, learned variance, DDPM."""
    tokenizer = _t5_tokenizer()
    pipeline = IFPipeline(
        tokenizer=tokenizer,
        text_encoder=T5EncoderModel(T5Config(**_t5_config(tokenizer))),
        unet=_unet(
            sample_size=_SIZE,
            in_channels=3,
            out_channels=6,
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            attention_head_dim=8,
            encoder_hid_dim=_WIDTH,
            addition_embed_type="text",
            addition_embed_type_num_heads=2,
            cross_attention_norm="group_norm",
            resnet_time_scale_shift="scale_shift",
            act_fn="gelu",
        ),
        scheduler=DDPMScheduler(
            beta_schedule="squaredcos_cap_v2",
            variance_type="learned_range",
            thresholding=True,
            dynamic_thresholding_ratio=0.95,
        ),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    call = {"prompt": PROMPT, "num_inference_steps": 3, "clean_caption": False, "output_type": "np"}
    return Family("deepfloyd_if", pipeline, call)


@_register
def cogvideox() -> Family:
    """CogVideoX: 5-D latents with frames before channels, one doubled batch per step, v-prediction."""
    tokenizer = _t5_tokenizer()
    pipeline = CogVideoXPipeline(
        tokenizer=tokenizer,
        text_encoder=T5EncoderModel(T5Config(**_t5_config(tokenizer))),
        vae=AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 3,
            up_block_types=("CogVideoXUpBlock3D",) * 3,
            block_out_channels=(8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
        ),
        transformer=CogVideoXTransformer3DModel(
            num_attention_heads=4,
            attention_head_dim=8,
            in_channels=4,
            out_channels=4,
            time_embed_dim=8,
            text_embed_dim=_WIDTH,
            num_layers=2,
            sample_width=_SIZE // 4,
            sample_height=_SIZE // 4,
            sample_frames=9,
            max_text_seq_length=_TOKENS,
        ),
        scheduler=CogVideoXDDIMScheduler(
            prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
        ),
    )
    return Family("cogvideox", pipeline, _video_call(), "frames")


@_register
def wan() -> Family:
    """Wan: 5-D latents, guidance as separate calls in the cache contexts `cond` and `uncond`, UniPC on a flow."""
    tokenizer = _t5_tokenizer()
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(UMT5Config(**_t5_config(tokenizer))),
        vae=AutoencoderKLWan(
            base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        ),
        transformer=WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            text_dim=_WIDTH,
            freq_dim=32,
            ffn_dim=_WIDTH,
            num_layers=2,
            rope_max_seq_len=32,
        ),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
        ),
    )
    return Family("wan", pipeline, _video_call(), "frames")


def _image_call(steps: int) -> dict[str, Any]:
    """The arguments that most text-to-image pipelines share."""
    return {"prompt": PROMPT, "num_inference_steps": steps, "height": _SIZE, "width": _SIZE, "output_type": "np"}


def _video_call() -> dict[str, Any]:
    """The arguments of a video of nine frames, three latent frames at the usual compression of four."""
    return _image_call(2) | {"num_frames": 9, "max_sequence_length": _TOKENS}


def _picture() -> torch.Tensor:
    """An input image, random and always the same."""
    return torch.rand(1, 3, _SIZE, _SIZE, generator=torch.Generator().manual_seed(1))


def _sd_parts() -> dict[str, Any]:
    """The components of a Stable Diffusion pipeline except its scheduler."""
    tokenizer = _clip_tokenizer()
    return {
        "vae": _vae(),
        "text_encoder": CLIPTextModel(_clip_config(tokenizer)),
        "tokenizer": tokenizer,
        "unet": _unet(),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _vae(**options: Any) -> AutoencoderKL:
    """An autoencoder that halves the image once, to four channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=_SIZE,
        **options,
    )


def _unet(**options: Any) -> UNet2DConditionModel:
    """A UNet of two resolutions with attention in the lower one."""
    defaults: dict[str, Any] = {
        "sample_size": _SIZE // 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (16, _WIDTH),
        "layers_per_block": 1,
        "attention_head_dim": (2, 4),  # diffusers' name for the number of heads
        "cross_attention_dim": _WIDTH,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**defaults | options)


def _clip_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """A CLIP text encoder of two layers."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=_WIDTH,
        projection_dim=_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _t5_config(tokenizer: T5Tokenizer, d_model: int = _WIDTH) -> dict[str, Any]:
    """The arguments of a T5 or UMT5 configuration of two layers."""
    return {
        "vocab_size": len(tokenizer),
        "d_model": d_model,
        "d_kv": 8,
        "d_ff": _WIDTH,
        "num_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _clip_tokenizer() -> CLIPTokenizer:
    """A tokenizer that knows the letters and, merged from the left, the words of the prompt."""
    letters = string.ascii_lowercase
    words = [[*word[:-1], word[-1] + "</w>"] for word in PROMPT.split()]
    merges: Any = list(dict.fromkeys(("".join(w[:end]), w[end]) for w in words for end in range(1, len(w))))
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(left + right for left, right in merges)]
    vocabulary = {token: index for index, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=_TOKENS)


def _t5_tokenizer() -> T5Tokenizer:
    """A tokenizer that knows the letters and, more probable, the words of the prompt."""
    letters = string.ascii_lowercase
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [(f"▁{word}", -1.0) for word in dict.fromkeys(PROMPT.split())]
    vocabulary = [*special, *words, ("▁", -5.0), *((letter, -5.0) for letter in letters)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=_TOKENS)
