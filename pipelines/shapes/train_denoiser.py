"""Train the UNet and the text encoder of the embedded model, together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTextModel

from .architecture import make_scheduler, make_text_encoder, make_unet
from .loop import Schedule, generator_for, train
from .tokenizer import MAX_TOKENS, make_tokenizer
from .train_vae import to_tensor
from .world import Scene, is_held_out, render, sample_scene

__all__ = ["BATCH", "train_denoiser"]

BATCH = 16

_SEED = 2
_ATTENTION_SIZE = 8
_CAPTION_DROPOUT = 0.1
_GROUNDING_WEIGHT = 0.1
_NAMING_WEIGHT = 0.1
_BY_DIRECTION_FROM = 13_500
_DIRECTION_WEIGHT, _SHARPNESS = 0.05, 8.0


def train_denoiser(
    vae: AutoencoderKL, folder: Path, *, samples: Sequence[int], scenes: int
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Train on draws from a pool of `scenes` pictures; `samples` is their number, one entry a cycle.

    The target is v (Salimans & Ho 2022, eq. 10). A grounding loss, (1 - attention mass inside the object's mask)²
    weighted by √ᾱ, supervises the cross-attention of colour, size and shape words; every other word is free.
    A third loss has a linear layer, dropped afterwards, name each word from the text encoder's output. Without it the
    encoder blots out the difference between words that the UNet has no use for yet ("circle" and "square", "above" and
    "below"), and what is no longer told apart is never learned.
    """
    torch.manual_seed(_SEED)
    unet, text_encoder = make_unet(), make_text_encoder(make_tokenizer())
    namer = nn.Linear(text_encoder.config.hidden_size, text_encoder.config.vocab_size)
    model = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder, "namer": namer})
    nn.init.normal_(text_encoder.get_input_embeddings().weight, std=0.5)
    nn.init.normal_(text_encoder.embeddings.position_embedding.weight, std=0.15)
    attention = _record_cross_attention(unet)
    alphas = make_scheduler().alphas_cumprod
    pool = _pool(vae, folder / "pool.pt", scenes)

    def loss(step: int) -> Tensor:
        random = generator_for(_SEED, step)
        chosen = torch.randint(len(pool.tokens), (BATCH,), generator=random)
        clean = pool.latents[chosen].float()
        tokens = pool.tokens[chosen, torch.randint(2, (BATCH,), generator=random)].long()
        kept = torch.rand(BATCH, generator=random) >= _CAPTION_DROPOUT
        tokens = torch.where(kept[:, None], tokens, pool.no_caption.long())
        timestep = _timesteps(random)
        alpha = alphas[timestep].view(-1, 1, 1, 1)
        noise = torch.randn(clean.shape, generator=random)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        attention.clear()
        words = text_encoder(tokens).last_hidden_state
        predicted = unet(noisy, timestep, words).sample
        owner = pool.owner(tokens)
        grounding = sum(_grounding(maps, pool.masks[chosen].float(), owner, alpha.sqrt()) for maps in attention)
        naming = _naming(namer, words, tokens, by_direction=step >= _BY_DIRECTION_FROM)
        total: Tensor = F.mse_loss(predicted, velocity) + naming
        return total + _GROUNDING_WEIGHT * grounding / len(attention)

    first, *further = (cycle // BATCH for cycle in samples)
    schedule = Schedule(first, peak=2e-3, warmup=0.15, decay=0.85, average=0.995, further=tuple(further))
    rates = {"text_encoder": 0.5}
    train(model, loss, schedule, folder / "denoiser.pt", title="denoiser", rates=rates)
    unet.set_attn_processor(AttnProcessor2_0())
    return unet, text_encoder


@dataclass(frozen=True, slots=True)
class _Pool:
    latents: Tensor  # (scenes, 4, 16, 16) float16, unit variance
    tokens: Tensor  # (scenes, 2 wordings, token) int16
    masks: Tensor  # (scenes, 2 objects, 8, 8) float16, the share of each attention cell that the object covers
    no_caption: Tensor  # (token,) int16
    object_words: Tensor  # token ids of colours, sizes and shapes
    shape_words: Tensor  # token ids of shapes, the last word of an object

    def owner(self, tokens: Tensor) -> Tensor:
        """Which object each token (batch, token) describes: 0, 1, or -1 for the other words."""
        is_shape = torch.isin(tokens, self.shape_words)
        finished = is_shape.cumsum(1) - is_shape.long()
        return torch.where(torch.isin(tokens, self.object_words), finished.clamp(max=1), -1)


def _pool(vae: AutoencoderKL, file: Path, scenes: int) -> _Pool:
    """Pictures of captions that are not held out, encoded once."""
    if not file.exists():
        tokenizer = make_tokenizer()
        rng = np.random.default_rng([_SEED, 1])
        latents, tokens, masks = [], [], []
        for _ in tqdm(range(0, scenes, 64), desc="pictures"):
            batch = [_training_scene(rng) for _ in range(64)]
            drawn = [render(scene) for scene in batch]
            with torch.no_grad():
                encoded = vae.encode(to_tensor(np.stack([picture for picture, _ in drawn]))).latent_dist.mean
            latents.append((encoded * vae.config.scaling_factor).half())
            captions = [scene.caption(articles=articles) for scene in batch for articles in (True, False)]
            ids = tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt").input_ids
            tokens.append(ids.view(64, 2, MAX_TOKENS).short())
            covered = torch.zeros(64, 2, *drawn[0][1].shape[1:])
            for index, (_, mask) in enumerate(drawn):
                covered[index, : len(mask)] = torch.from_numpy(mask)
            masks.append(F.adaptive_avg_pool2d(covered, _ATTENTION_SIZE).half())
        kept = {"latents": torch.cat(latents), "tokens": torch.cat(tokens), "masks": torch.cat(masks)}
        kept["no_caption"] = tokenizer("", padding="max_length", return_tensors="pt").input_ids[0].short()
        words = "small big red green blue yellow purple cyan circle square triangle star ring"
        kept["object_words"] = tokenizer(words, add_special_tokens=False, return_tensors="pt").input_ids[0]
        kept["shape_words"] = kept["object_words"][-5:]
        torch.save(kept, file)
    return _Pool(**torch.load(file, weights_only=True))


def _training_scene(rng: np.random.Generator) -> Scene:
    while is_held_out(scene := sample_scene(rng)):
        pass
    return scene


def _timesteps(random: torch.Generator) -> Tensor:
    """Timesteps, uniform and stratified over the batch."""
    strata = (torch.arange(BATCH) + torch.rand(BATCH, generator=random)) / BATCH
    return (strata * 1000).long().clamp(0, 999)


def _naming(namer: nn.Linear, words: Tensor, tokens: Tensor, *, by_direction: bool) -> Tensor:
    """How badly each token is named from the encoder's output (batch, token, channel), weighted.

    The layer's weights may grow until words a hair's breadth apart are named well: that keeps them apart, but the UNet
    learns a difference at a speed that goes with its square. In the later part of the training only directions count,
    so that words have to point different ways; and only tokens up to the end of the caption do.
    """
    if not by_direction:
        return _NAMING_WEIGHT * F.cross_entropy(namer(words).flatten(0, 1), tokens.flatten())
    cosines = F.linear(F.normalize(words, dim=-1), F.normalize(namer.weight, dim=-1))
    padding = (tokens == tokens[:, -1:]).cumsum(1) > 1  # the first of them ends the caption
    return _DIRECTION_WEIGHT * F.cross_entropy(_SHARPNESS * cosines[~padding], tokens[~padding])


def _record_cross_attention(unet: UNet2DConditionModel) -> list[Tensor]:
    """Make every cross-attention append its probabilities (batch, head, pixel, token) to the returned list."""
    recorded: list[Tensor] = []

    def processor(attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: object) -> Tensor:
        query, key, value = (
            layer(states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, states in (
                (attn.to_q, hidden_states),
                (attn.to_k, encoder_hidden_states),
                (attn.to_v, encoder_hidden_states),
            )
        )
        probabilities = (query @ key.transpose(-1, -2) * attn.scale).softmax(-1)
        recorded.append(probabilities)
        output: Tensor = attn.to_out[0]((probabilities @ value).transpose(1, 2).flatten(2))
        return output

    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            module.set_processor(processor)
    return recorded


def _grounding(maps: Tensor, masks: Tensor, owner: Tensor, weight: Tensor) -> Tensor:
    """Mean over the words that have an owner of (1 - share of the word's attention inside the owner's mask)²."""
    inside = (2 * masks.flatten(2)).clamp(max=1)  # (batch, object, pixel)
    inside = inside.gather(1, owner.clamp(min=0)[..., None].expand(-1, -1, inside.shape[-1]))  # (batch, token, pixel)
    columns = maps.mean(1).transpose(1, 2)  # (batch, token, pixel)
    share = (columns * inside).sum(-1) / columns.sum(-1)
    owned = (owner >= 0).float() * weight.view(-1, 1)
    return (owned * (1 - share).square()).sum() / owned.sum().clamp(min=1)
