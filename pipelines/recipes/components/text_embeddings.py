"""The text encoder by itself: what it is given, what it makes of it, and which prompts it takes to be alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_xray.tracer.capture import Capture
from diffusion_xray.tracer.errors import RecipeError

from ..figures import heat, new_figure
from ..lab import Lab
from ..latent_diffusion import encode_prompts, require_unet
from ..option_types import Between

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["text_embeddings"]

_PROMPTS = (
    "a red circle on white",
    "a big red circle on white",
    "a red circle at the left on white",
    "a blue square on black",
    "a small blue square on black",
    "a blue square at the top on black",
    "a yellow star left of a green ring on gray",
    "a green ring right of a yellow star on gray",
    "yellow star left of green ring on gray",
    "a purple triangle above a cyan circle on white",
    "a cyan circle below a purple triangle on white",
    "purple triangle above cyan circle on white",
)


@torch.no_grad()
def text_embeddings(
    lab: Lab, *, prompts: tuple[str, ...] = _PROMPTS, of_a_kind: Annotated[int, Between(2)] = 3
) -> None:
    """Text embeddings, and which prompts are alike.

    A text encoder looks up a vector for each token and one for each position, adds them, and lets the tokens attend to
    those before them:

      h = transformer(E[token] + P[position])

      Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision, section 2.4;
      https://arxiv.org/abs/2103.00020

    The UNet sees h and nothing else of the prompt. How alike two prompts are is the cosine a · b / (|a| |b|) of their
    vectors: the mean of h over the prompt's words, less the mean of that over all prompts, which is what they have in
    common. How much of it the words alone are is told by the same of E, without positions and transformer.

    Prompts of a kind are red squares along the diagonal of the map. In the trace: the embeddings, layers and
    attention of text_encoder, and records.similarity.

    Args:
        prompts: Some prompts of a kind, then some of the next.
        of_a_kind: How many are of a kind.
    """
    if of_a_kind < 2 or len(prompts) < 2 * of_a_kind or len(prompts) % of_a_kind:
        raise RecipeError(
            f"{len(prompts)} prompts are not several kinds of {of_a_kind}: give each as many, two or more"
        )
    pipe = require_unet(lab.pipeline())
    tables = {
        name.rpartition(".")[2]: it for name, it in pipe.text_encoder.named_modules() if isinstance(it, nn.Embedding)
    }
    if not {"token_embedding", "position_embedding"} <= tables.keys():
        raise RecipeError(
            f"this recipe looks into a CLIP text encoder, and that is a {type(pipe.text_encoder).__name__}"
        )
    tokens = pipe.tokenizer(
        list(prompts),
        padding="max_length",
        max_length=pipe.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    special = torch.tensor(pipe.tokenizer.all_special_ids)
    is_word = ~torch.isin(tokens, special)

    keep = Capture(
        classes=("Embedding", "CLIPTextEmbeddings", "CLIPEncoderLayer", "LayerNorm"), attention="text_encoder.**"
    )

    with lab.trace(pipe, capture=keep) as tracer:
        outputs = encode_prompts(pipe, prompts).embeddings.float().cpu()
        token_embeddings = tables["token_embedding"].weight[tokens.to(pipe.device)].float().cpu()
        position_embeddings = tables["position_embedding"].weight[: tokens.shape[1]].float().cpu()
        vectors = (outputs * is_word[..., None]).sum(1) / is_word.sum(1, keepdim=True)
        similarity = _cosines(vectors - vectors.mean(0))
        tracer.record("token_embedding", token_embeddings)
        tracer.record("position_embedding", position_embeddings)
        tracer.record("prompt_vector", vectors)
        tracer.record("similarity", similarity)

    kind = torch.arange(len(prompts)) // of_a_kind
    same, other = kind[:, None] == kind, kind[:, None] != kind
    same.fill_diagonal_(fill_value=False)
    lab.found("mean similarity of prompts of a kind", float(similarity[same].mean()))
    lab.found("mean similarity of prompts of two kinds", float(similarity[other].mean()))
    nearest = (similarity - 2 * torch.eye(len(prompts))).argmax(1)
    given = (token_embeddings * is_word[..., None]).sum(1) / is_word.sum(1, keepdim=True)
    words_alone = _cosines(given - given.mean(0))
    lab.found("mean similarity of prompts of a kind, by their token embeddings", float(words_alone[same].mean()))
    lab.found("prompts whose nearest is of their kind", float((kind[nearest] == kind).float().mean()))
    first = int(is_word[0].sum()) + 2  # with the tokens of start and end
    names = [
        token.removesuffix("</w>").strip("<|>") for token in pipe.tokenizer.convert_ids_to_tokens(tokens[0, :first])
    ]
    parts = {
        "token embedding E": token_embeddings[0, :first],
        "position embedding P": position_embeddings[:first],
        "output h": outputs[0, :first],
    }
    lab.figure(
        "embeddings",
        _tables(parts, names),
        f"What the encoder is given for “{prompts[0]}”, a vector a token and a vector a position, and what it makes of "
        "their sum. Red is positive, blue negative; each table has a scale of its own.",
    )
    lab.figure(
        "similarity",
        _map(similarity, prompts, of_a_kind),
        "How alike the encoder takes prompts to be; frames hold prompts of a kind.",
    )


def _cosines(vectors: Tensor) -> Tensor:
    """The cosine between each two vectors, (vector, vector)."""
    unit = F.normalize(vectors, dim=-1)
    return unit @ unit.T


def _tables(parts: Mapping[str, Tensor], names: Sequence[str]) -> Figure:
    """Vectors (token, width) side by side, a row a token."""
    figure, axes = new_figure(1, len(parts), size=(3.6 * len(parts), 0.9 + 0.26 * len(names)))
    for axis, (title, values) in zip(axes[0], parts.items(), strict=True):
        reach = float(values.abs().quantile(0.98))
        axis.imshow(values.numpy(), cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto", interpolation="nearest")
        axis.grid(visible=False)
        axis.set(title=title, xlabel="dimension", yticks=range(len(names)), yticklabels=names)
    return figure


def _map(similarity: Tensor, prompts: Sequence[str], of_a_kind: int) -> Figure:
    """Cosines as colours, with a frame around prompts of a kind."""
    from matplotlib.patches import Rectangle

    count = len(prompts)
    figure = heat(
        similarity.numpy(),
        row_labels=prompts,
        column_labels=[str(place + 1) for place in range(count)],
        low=-1,
        high=1,
        scale="RdBu_r",
        title="cosine of the prompts' vectors",
    )
    axis = figure.axes[0]
    axis.set_yticks(range(count), [f"{prompt}  {place + 1}" for place, prompt in enumerate(prompts)])
    axis.tick_params(axis="x", rotation=0)
    for start in range(0, count, of_a_kind):
        corner = (start - 0.5, start - 0.5)
        axis.add_patch(Rectangle(corner, of_a_kind, of_a_kind, fill=False, edgecolor="#24292f", linewidth=1.5))
    return figure
