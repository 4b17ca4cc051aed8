"""Pipelines of videos and of sounds."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from diffusers import (
    AllegroPipeline,
    AllegroTransformer3DModel,
    AnimateDiffPipeline,
    AutoencoderKLAllegro,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderOobleck,
    DDIMScheduler,
    EDMDPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LattePipeline,
    LatteTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    MotionAdapter,
    StableAudioDiTModel,
    StableAudioPipeline,
)
from diffusers.pipelines.stable_audio import StableAudioProjectionModel
from transformers import T5Config, T5EncoderModel

from .family import Foreign, Sight, foreign
from .parts import SIZE, TOKENS, WIDTH, image_call, sd_parts, t5_config, t5_tokenizer, unet_sight, vae

_IN_TRANSFORMER = ("transformer",)


def _t5(**options: Any) -> dict[str, Any]:
    tokenizer = t5_tokenizer()
    return {"tokenizer": tokenizer, "text_encoder": T5EncoderModel(T5Config(**t5_config(tokenizer, **options)))}


@foreign(AnimateDiffPipeline)
def animate_diff() -> Foreign:
    """A UNet of pictures with layers over time between; its batch is that of the frames inside, not outside."""
    parts = {name: part for name, part in sd_parts().items() if name in ("vae", "text_encoder", "tokenizer", "unet")}
    motion = MotionAdapter(
        block_out_channels=(16, 32),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=8,
        use_motion_mid_block=False,
    )
    scheduler = DDIMScheduler(beta_schedule="linear", clip_sample=False, steps_offset=1)
    pipeline = AnimateDiffPipeline(**parts, motion_adapter=motion, scheduler=scheduler)
    return Foreign(pipeline, image_call(2, num_frames=3), result="frames", sight=unet_sight())


@foreign(LattePipeline)
def latte() -> Foreign:
    """Blocks over space and over time in turns; both texts are cut where the prompt ends."""
    pipeline = LattePipeline(
        **_t5(),
        vae=vae(),
        transformer=LatteTransformer3DModel(
            sample_size=SIZE // 2,
            num_layers=1,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_channels=WIDTH,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=WIDTH,
            attention_bias=True,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            video_length=2,
        ),
        scheduler=DDIMScheduler(clip_sample=False),
    )
    call = image_call(2, video_length=2, clean_caption=False, negative_prompt="on red")
    sight = Sight("transformer.transformer_blocks.0.attn2", (4, 4))
    return Foreign(pipeline, call, _IN_TRANSFORMER, result="frames", sight=sight)


@foreign(LTXPipeline)
def ltx() -> Foreign:
    """Packed latents of a video, (token, channel), and rotary frequencies of frames."""
    pipeline = LTXPipeline(
        **_t5(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
        ),
        transformer=LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=4,
            attention_head_dim=8,
            cross_attention_dim=WIDTH,
            num_layers=2,
            caption_channels=WIDTH,
        ),
    )
    call = image_call(2, height=64, width=64, num_frames=9, max_sequence_length=TOKENS)
    sight = Sight("transformer.transformer_blocks.0.attn2", (2, 2, 2))
    return Foreign(pipeline, call, _IN_TRANSFORMER, result="frames", sight=sight)


@foreign(MochiPipeline)
def mochi() -> Foreign:
    """Joint attention in which padding of the text is left out, frames in threes."""
    pipeline = MochiPipeline(
        **_t5(),
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=AutoencoderKLMochi(
            latent_channels=12,
            encoder_block_out_channels=(32, 32, 32, 32),
            decoder_block_out_channels=(32, 32, 32, 32),
            layers_per_block=(1, 1, 1, 1, 1),
            add_attention_block=(False,) * 5,
        ),
        transformer=MochiTransformer3DModel(
            patch_size=2,
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=2,
            pooled_projection_dim=16,
            in_channels=12,
            text_embed_dim=WIDTH,
            time_embed_dim=8,
            max_sequence_length=TOKENS,
        ),
    )
    call = image_call(2, height=32, width=32, num_frames=7, max_sequence_length=TOKENS)
    return Foreign(pipeline, call, _IN_TRANSFORMER, result="frames")


@foreign(AllegroPipeline)
def allegro() -> Foreign:
    """A video through cross-attention, with an ancestral scheduler of Euler."""
    pipeline = AllegroPipeline(
        **_t5(),
        vae=AutoencoderKLAllegro(
            block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2, sample_size=SIZE
        ),
        transformer=AllegroTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            cross_attention_dim=24,
            sample_width=8,
            sample_height=8,
            sample_frames=8,
            caption_channels=WIDTH,
        ),
        scheduler=EulerAncestralDiscreteScheduler(),
    )
    pipeline.vae.enable_tiling()
    call = image_call(2, height=32, width=32, num_frames=8, clean_caption=False, output_type="latent")
    call |= {"max_sequence_length": TOKENS}
    sight = Sight("transformer.transformer_blocks.0.attn2", (2, 2, 2))
    return Foreign(pipeline, call, _IN_TRANSFORMER, result="frames", sight=sight)


@foreign(StableAudioPipeline)
def stable_audio() -> Foreign:
    """Sound: latents (batch, channel, time), text and seconds in one cross-attention, EDM's solver."""
    pipeline = StableAudioPipeline(
        vae=AutoencoderOobleck(
            encoder_hidden_size=6,
            downsampling_ratios=[1, 2],
            decoder_channels=3,
            decoder_input_channels=3,
            audio_channels=2,
            channel_multiples=[2, 4],
            sampling_rate=4,
        ),
        **_t5(),
        projection_model=StableAudioProjectionModel(
            text_encoder_dim=WIDTH, conditioning_dim=WIDTH, min_value=0, max_value=32
        ),
        transformer=StableAudioDiTModel(
            sample_size=4,
            in_channels=3,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            num_key_value_attention_heads=2,
            out_channels=3,
            cross_attention_dim=WIDTH,
            time_proj_dim=8,
            global_states_input_dim=2 * WIDTH,
            cross_attention_input_dim=WIDTH,
        ),
        scheduler=EDMDPMSolverMultistepScheduler(
            solver_order=2, prediction_type="v_prediction", sigma_data=1.0, sigma_schedule="exponential"
        ),
    )
    call = image_call(2, height=None, width=None, audio_end_in_s=1.0, output_type="np")
    return Foreign(pipeline, call, _IN_TRANSFORMER, result="audios")
