"""What one word changes."""

from __future__ import annotations

import torch

from diffusion_xray.pipelines.recipes.figures import picture_grid, pixels
from diffusion_xray.pipelines.recipes.lab import Lab


@torch.no_grad()
def one_word(
    lab: Lab,
    *,
    prompt: str = "a red circle left of a blue square on white",
    word: str = "circle",
    other: str = "star",
    steps: int = 12,
    seed: int = 0,
) -> None:
    """One word: two prompts from the same noise.

    Everything but one word of the prompt is the same, so all that differs between the two traces comes from that word.
    `dxray view first.zarr --compare second.zarr` shows in which layer and at which step they part.

    Args:
        prompt: What to draw.
        word: The word of it that is replaced.
        other: What it is replaced by.
        steps: Denoising steps.
        seed: Of the starting noise.
    """
    pipe = lab.pipeline()
    pictures = []
    for name, text in (("first", prompt), ("second", prompt.replace(word, other))):
        with lab.trace(pipe, name):
            pictures.append(pipe(text, num_inference_steps=steps, generator=lab.generator(seed)).images[0])

    first, second = (pixels(picture) / 255 for picture in pictures)
    change = abs(first - second).mean(axis=2)
    lab.found("pixels that change visibly", 100 * float((change > 0.1).mean()), "%")
    lab.figure(
        "one_word",
        picture_grid([[first, second, change]], column_titles=[word, other, "change"], side=2),
        f"The same noise with {word!r} and with {other!r}, and where the pictures differ.",
    )
