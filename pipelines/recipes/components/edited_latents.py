"""The decoder by itself, given latents that were edited by hand."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_xray.pipelines.shapes.world import Object, Scene

from ..figures import picture_grid
from ..lab import Lab
from ..latent_diffusion import decode, encode_pictures, require_unet
from .pictures import channels_last, coloured, draw_scenes, latent_colours, open_picture, psnr, side

__all__ = ["edited_latents"]

_SCENE = Scene(
    (Object("red", "circle", "", 17.0, 17.0, 12.0), Object("blue", "square", "", 46.0, 45.0, 13.0)), "left of", "white"
)
_OTHER = Scene((Object("green", "star", "big", 48.0, 16.0, 14.0),), "", "white")


@torch.no_grad()
def edited_latents(lab: Lab, *, picture: Path | None = None, other: Path | None = None) -> None:
    """Pictures decoded from edited latents: a latent is a map.

    Two pictures are encoded to the latents z and z'. What becomes of z then is done by hand, and only the decoder runs:
    halves are swapped, z is mirrored, the quarter at the top right is set to zero or taken from z', z and z' are mixed
    half and half, the channel that varies most is set to zero or its sign turned.

      The autoencoder is that of Rombach et al. 2022, High-Resolution Image Synthesis with Latent Diffusion Models,
      section 3.1; https://arxiv.org/abs/2112.10752

    An edit of a region changes the picture there and hardly anywhere else: a latent is a picture of fewer pixels, each
    of which stands for a patch. This is why inpainting can work on latents with a mask that is merely shrunk. An edit
    of a channel changes colours everywhere, and leaves things where they are.

    Look at the last row of the figure, how much each pixel changes. In the trace each edit is a step: records.change,
    and the blocks of vae.decoder, whose attention and norms see all of the latent.

    Args:
        picture: The picture to edit; a scene of the shapes world by default.
        other: The picture to take from; another scene by default.
    """
    pipe = require_unet(lab.pipeline())
    size = side(pipe)
    first = open_picture(picture, size) if picture else draw_scenes([_SCENE], size)
    second = open_picture(other, size) if other else draw_scenes([_OTHER], size)
    z, z_other = encode_pictures(pipe, first), encode_pictures(pipe, second)
    half = z.shape[-1] // 2
    quarter = torch.zeros_like(z, dtype=torch.bool)
    quarter[..., :half, half:] = True
    widest = int(z.float().std((0, 2, 3)).argmax())
    channel = torch.zeros_like(z)
    channel[:, widest] = 1
    edits = {
        "unchanged": z,
        "halves swapped": z.roll(half, dims=-1),
        "mirrored": z.flip(-1),
        "quarter zero": z.masked_fill(quarter, 0),
        "quarter pasted": torch.where(quarter, z_other, z),
        "mixed": (z + z_other) / 2,
        f"channel {widest} zero": z * (1 - channel),
        f"channel {widest} negative": z * (1 - 2 * channel),
    }
    decoded: dict[str, Tensor] = {}

    with lab.trace(pipe) as tracer:
        for step, (name, edited) in enumerate(edits.items()):
            tracer.step(step)
            decoded[name] = decode(pipe, edited)
            tracer.record_latents(edited)
            tracer.record("decoded", decoded[name])
            tracer.record("change", decoded[name] - decoded["unchanged"])
        tracer.step(None)
        tracer.record_images(torch.cat(list(decoded.values())))

    before = decoded["unchanged"]
    region = F.interpolate(quarter[:, :1].float().cpu(), (size, size))
    for name in ("quarter zero", "quarter pasted"):
        change = (decoded[name] - before).square()
        lab.found(f"{name}: share of the change that is in the quarter", float((change * region).sum() / change.sum()))
    swapped = before.roll(size // 2, dims=-1)
    lab.found("halves swapped before or after decoding: PSNR", float(psnr(decoded["halves swapped"], swapped)), "dB")
    lab.found("mirrored before or after decoding: PSNR", float(psnr(decoded["mirrored"], before.flip(-1))), "dB")
    turned = (decoded[f"channel {widest} negative"] - before).abs().amax(1) > 0.1
    lab.found("channel negative: share of pixels that change", float(turned.float().mean()))

    colours = latent_colours(pipe)
    rows = [
        [colours(channels_last(edited))[0] for edited in edits.values()],
        [picture[0] for picture in decoded.values()],
        [coloured((picture - before)[0].abs().amax(0), "magma", low=0, high=0.5) for picture in decoded.values()],
    ]
    figure = picture_grid(
        rows,
        row_titles=["edited latent,\nas colours", "decoded", "change"],
        column_titles=["\n".join(name.rsplit(" ", 1)) for name in edits],
    )
    lab.figure(
        "edits",
        figure,
        "Latents edited by hand, and what the decoder makes of them. What is done to a region of the latent is done to "
        "that region of the picture, with a faint trace outside of it; what is done to a channel changes all colours.",
    )
