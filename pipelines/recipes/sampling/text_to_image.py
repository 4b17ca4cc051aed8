"""Any text-to-image pipeline, as it is."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_xray.tracer import Trace
from diffusion_xray.tracer.errors import RecipeError, SiteNotFoundError

from ..figures import new_figure, picture_grid, pixels
from ..lab import Lab
from ..option_types import Between, Steps

__all__ = ["text_to_image"]


@torch.no_grad()
def text_to_image(
    lab: Lab,
    *,
    prompt: str = "a red circle left of a blue square on white",
    words: tuple[str, ...] = (),
    steps: Steps = 20,
    guidance: float | None = None,
    size: Annotated[int, Between(8)] | None = None,
    seed: int = 0,
) -> None:
    """Text to image: any pipeline as it is, and what happened inside.

    The pipeline is called, not rewritten, so this works for whatever diffusers has: Stable Diffusion 1 to 3 and XL,
    Flux, PixArt, DeepFloyd IF. Three figures come out of its trace:

      x0        the picture that the model expects at each step, decoded: composition first, detail last
      words     where the picture looks at each word: softmax(Q Kᵀ / sqrt(d)), summed over the word's tokens, averaged
                over layers, heads and steps
      largest   the modules with the largest absolute values, where half precision overflows first

      Tang et al. 2022, What the DAAM: Interpreting Stable Diffusion Using Cross Attention, eq. 4 to 6;
      https://arxiv.org/abs/2210.04885
      Sun et al. 2024, Massive Activations in Large Language Models; https://arxiv.org/abs/2402.17762

    Words have maps where image positions attend to text, in cross-attention or in joint attention. In the browser the
    tab "attention" has the same maps for every layer, head and step.

    Args:
        prompt: What to draw.
        words: Words or phrases in quotes whose maps are drawn; by default those of three letters and more, up to eight.
        steps: Denoising steps.
        guidance: Guidance scale; by default the pipeline's own, and 3 for the embedded model.
        size: Height and width in pixels; the pipeline's own by default.
        seed: Of the starting noise.
    """
    if not all(word.strip() for word in words):
        raise RecipeError("--words '' is no word: give words of the prompt, or leave --words out")
    pipe = lab.pipeline()
    call = _arguments(pipe, prompt, steps=steps, size=size, guidance=3.0 if lab.model is None else None, asked=guidance)

    with lab.trace(pipe) as tracer:
        picture = pipe(**call, generator=lab.generator(seed)).images[0]

    trace = tracer.trace
    lab.found("steps", trace.n_steps)
    _draw_x0(lab, pipe, trace, picture)
    _draw_words(lab, trace, picture, words)
    _draw_largest(lab, trace)


def _arguments(
    pipe: Any, prompt: str, *, steps: int, size: int | None, guidance: float | None, asked: float | None
) -> dict[str, Any]:
    """How to call a pipeline, as far as it takes each argument.

    Raises:
        RecipeError: It makes no picture from a prompt alone.
    """
    known = inspect.signature(pipe.__call__).parameters
    if not {"prompt", "num_inference_steps"} <= set(known) or not {"image", "num_frames"}.isdisjoint(known):
        kind = type(pipe).__name__
        raise RecipeError(f"a {kind} makes no picture from a prompt alone: give --model a text-to-image pipeline")
    guidance = guidance if asked is None else asked
    wanted = {
        "prompt": prompt,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "height": size,
        "width": size,
        "clean_caption": False,  # needs further packages
        "use_resolution_binning": False,  # takes the size as it is
    }
    return {name: value for name, value in wanted.items() if name in known and value is not None}


def _draw_x0(lab: Lab, pipe: Any, trace: Trace, picture: Any) -> None:
    """The expected picture at up to six steps, and the picture."""
    loop = trace.steps
    if "x0" not in loop:
        return
    at = sorted({round(step) for step in np.linspace(0, trace.n_steps - 1, min(trace.n_steps, 6))})
    x0 = loop["x0"].values
    height, width = pixels(picture).shape[:2]
    shown: list[Any] = [_decoded(pipe, torch.from_numpy(x0[step]), height, width) for step in at]
    if shown[0] is None:
        shown = [loop["preview_x0"].values[step][0] for step in at] if "preview_x0" in loop else []
    half = np.abs(x0[len(x0) // 2] - x0[-1]).mean() / max(float(np.abs(x0[0] - x0[-1]).mean()), 1e-12)
    lab.found("what is left of x0's way at half time", 100 * float(half), "%")
    titles = [f"t = {trace.timestep[step]:.3g}" for step in at]
    figure = picture_grid([[*shown, picture]], column_titles=[*titles, "picture"], side=1.35)
    lab.figure("x0", figure, "What the model expects the picture to be, from the first step to the last.")


def _decoded(pipe: Any, latents: Tensor, height: int, width: int) -> Tensor | None:
    """Latents of whatever layout as a picture (3, y, x) in [0, 1]; None where nobody knows how."""
    vae = getattr(pipe, "vae", None)
    if vae is None:
        return (latents[0] / 2 + 0.5).clamp(0, 1) if latents.shape[1] == 3 else None
    if latents.ndim == 3 and hasattr(pipe, "_unpack_latents"):  # Flux packs 2×2 patches into tokens
        latents = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)
    scale = getattr(vae.config, "scaling_factor", None)
    if latents.ndim != 4 or scale is None:
        return None
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    decoded: Tensor = vae.decode((latents[:1] / scale + shift).to(pipe.device, vae.dtype)).sample
    return (decoded[0].float().cpu() / 2 + 0.5).clamp(0, 1)


def _draw_words(lab: Lab, trace: Trace, picture: Any, asked: Sequence[str]) -> None:
    """Where the picture looks at words, if the trace knows."""
    try:
        known = [word.text for word in trace.words() if not word.special]
        words = list(asked) or list(dict.fromkeys(word for word in known if len(word) > 2))[:8]
        if not words:
            return
        maps = trace.word_map(words).mean("step").values
    except SiteNotFoundError as error:
        if asked:
            raise RecipeError(f"no map of {', '.join(asked)}: {error}") from error
        return
    shares = trace.word_mass().mean(["step", "layer"]).to_series()
    for word in words:
        if word in shares:
            lab.found(f"attention on {word!r}", 100 * float(shares[word]), "%")
    figure = picture_grid(
        [[picture, *(_spotlight(picture, found) for found in maps)]],
        column_titles=["picture", *words],
        side=1.35,
    )
    lab.figure(
        "words",
        figure,
        "The picture, and where it looks at each word: bright where the word's share of attention is largest, averaged "
        "over layers, heads and steps.",
    )


def _spotlight(picture: Any, found: NDArray[Any]) -> NDArray[np.float64]:
    """The picture, lit by a map (y, x) that is enlarged to it."""
    from PIL import Image

    shown = pixels(picture) / 255
    light = (found - found.min()) / max(float(np.ptp(found)), 1e-12)
    enlarged = Image.fromarray(light.astype(np.float32)).resize(shown.shape[1::-1], Image.Resampling.BILINEAR)
    return shown * (0.12 + 0.88 * np.asarray(enlarged).clip(0, 1)[..., None])


def _draw_largest(lab: Lab, trace: Trace, count: int = 10) -> None:
    """The modules with the largest absolute outputs of the loop; of those that pass one on, the innermost."""
    largest: dict[float, str] = {}
    for table in trace.tables():
        if table.stepped and table.component in trace.info.components:
            values = np.nan_to_num(table.column("abs_max"), posinf=0).max(axis=0)
            for site, value in zip(table.sites, values.tolist(), strict=True):
                if site.port == "output":
                    largest[value] = max(largest.get(value, ""), site.name, key=len)
    ranked = sorted(largest.items(), reverse=True)[:count]
    lab.found("largest activation", ranked[0][0])
    figure, axes = new_figure(size=(8.0, 0.6 + 0.3 * len(ranked)))
    axis = axes[0, 0]
    axis.barh([name for _, name in ranked], [value for value, _ in ranked], height=0.6)
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set_axisbelow(True)
    axis.set(xlabel="largest absolute value over all steps")
    lab.figure("largest", figure, "The modules of the loop with the largest activations.")
