"""Measure the embedded model on captions it never saw: ``python -m diffusion_xray.pipelines.shapes.quality``.

Half of the captions have one object, half have two; `judge` decides what is right. The report goes next to the
weights as ``report.md`` and ``report.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tqdm import tqdm

from .judge import Verdict, judge
from .load import WEIGHTS, load_pipeline
from .train_vae import psnr, to_tensor
from .world import IMAGE_SIZE, Scene, is_held_out, render, sample_scene

__all__ = ["BATCH", "SEED", "Target", "draw", "generate", "held_out_scenes", "main"]

SEED = 3
"""Of the captions and of the noise they start from."""

BATCH = 20
"""Captions drawn at once."""

_DRAWS = 200_000
_SHEET = 24
_COMPONENTS = ("vae", "text_encoder", "unet")
_ASPECTS = ("background", "colour", "placement", "shape", "size", "everything")


@dataclass(frozen=True, slots=True)
class Target:
    """A figure the model should reach."""

    name: str
    least: float
    reached: float

    @property
    def met(self) -> bool:
        """Whether it does."""
        return self.reached >= self.least


def held_out_scenes(count: int, *, objects: int, seed: int = SEED) -> list[Scene]:
    """Draw scenes with `count` different captions that training never shows.

    Raises:
        ValueError: If there are fewer such captions than asked for; one object allows some 160.
    """
    rng = np.random.default_rng([seed, objects])
    scenes: dict[str, Scene] = {}
    for _ in range(_DRAWS):
        if len(scenes) == count:
            return list(scenes.values())
        scene = sample_scene(rng, objects=objects)
        if is_held_out(scene):
            scenes.setdefault(scene.caption(), scene)
    raise ValueError(f"found {len(scenes)} held-out captions with {objects} object(s), not {count}; ask for fewer")


def generate(
    pipeline: StableDiffusionPipeline,
    captions: Sequence[str],
    *,
    steps: int = 25,
    guidance: float = 3.0,
    seed: int = SEED,
) -> NDArray[np.uint8]:
    """Draw every caption, uint8 (captions, 64, 64, 3); the n-th starts from the noise of seed 1000 `seed` + n."""
    drawn = []
    with tqdm(total=len(captions), desc="pictures") as bar:
        for start in range(0, len(captions), BATCH):
            batch = captions[start : start + BATCH]
            drawn.append(draw(pipeline, batch, first=start, steps=steps, guidance=guidance, seed=seed))
            bar.update(len(batch))
    return np.concatenate(drawn)


def draw(
    pipeline: StableDiffusionPipeline,
    captions: Sequence[str],
    *,
    first: int = 0,
    steps: int = 25,
    guidance: float = 3.0,
    seed: int = SEED,
) -> NDArray[np.uint8]:
    """Draw captions in one batch, as `generate` does; the first of them is number `first`."""
    pipeline.set_progress_bar_config(disable=True)
    noise = [torch.Generator().manual_seed(1000 * seed + first + index) for index in range(len(captions))]
    images = pipeline(
        list(captions), num_inference_steps=steps, guidance_scale=guidance, generator=noise, output_type="np"
    ).images
    drawn: NDArray[np.uint8] = (images * 255).round().astype(np.uint8)
    return drawn


def main(argv: list[str] | None = None) -> None:
    """Generate, judge, and write the report."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_xray.pipelines.shapes.quality", description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of the model (the shipped one)")
    parser.add_argument("--captions", type=int, default=200, help="held-out captions (%(default)s)")
    parser.add_argument("--steps", type=int, default=25, help="sampler steps (%(default)s)")
    parser.add_argument("--guidance", type=float, default=3.0, help="guidance scale (%(default)s)")
    parser.add_argument("--out", type=Path, help="report to write; a .json goes beside it (WEIGHTS/report.md)")
    parser.add_argument("--sheet", type=Path, help=f"also draw {_SHEET} samples with their captions into this PNG")
    parser.add_argument("--which", choices=("wrong", "all"), help="also list these captions in the json")
    options = parser.parse_args(argv)
    if options.captions < 2:
        parser.error(f"--captions must be 2 or more, one of each kind, not {options.captions}")
    out: Path = options.out or options.weights / "report.md"
    half = options.captions // 2
    scenes = held_out_scenes(options.captions - half, objects=1) + held_out_scenes(half, objects=2)
    pipeline = load_pipeline(options.weights)
    pictures = generate(pipeline, [s.caption() for s in scenes], steps=options.steps, guidance=options.guidance)
    verdicts = [judge(picture, scene) for picture, scene in zip(pictures, scenes, strict=True)]
    report = _report(pipeline, scenes, verdicts, options)
    if options.which:
        report["captions"] = [
            {"caption": scene.caption(), **asdict(verdict)}
            for scene, verdict in zip(scenes, verdicts, strict=True)
            if options.which == "all" or not verdict.everything
        ]
    text = _markdown(report)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    if options.sheet:
        _sheet(pictures, scenes, verdicts).save(options.sheet)
    print(text)


def _report(
    pipeline: StableDiffusionPipeline, scenes: list[Scene], verdicts: list[Verdict], options: argparse.Namespace
) -> dict[str, Any]:
    judged = list(zip(scenes, verdicts, strict=True))
    kinds = {
        "one object": [(s, v) for s, v in judged if len(s.objects) == 1],
        "two objects": [(s, v) for s, v in judged if len(s.objects) == 2],
        "overall": judged,
    }
    rates = {kind: {aspect: _tally(pairs, aspect) for aspect in _ASPECTS} for kind, pairs in kinds.items()}
    decibels, ceiling = _round_trip(pipeline)
    total = {aspect: _share(tally) for aspect, tally in rates["overall"].items()}
    targets = [
        *(Target(aspect, 0.99, total[aspect]) for aspect in ("background", "colour", "placement")),
        Target("shape", 0.97, total["shape"]),
        Target("everything right, two objects", 0.90, _share(rates["two objects"]["everything"])),
        Target("autoencoder, dB", 35.0, decibels),
    ]
    return {
        "rates": rates,
        "vae_psnr_db": round(decibels, 2),
        "vae_round_trip_shape": ceiling,
        "targets": [{**asdict(target), "met": target.met} for target in targets],
        "components": {name: _weight(pipeline, name, options.weights) for name in _COMPONENTS},
        "sampler": {
            "scheduler": type(pipeline.scheduler).__name__,
            "steps": options.steps,
            "guidance": options.guidance,
            "seed": SEED,
        },
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
    }


def _tally(pairs: list[tuple[Scene, Verdict]], aspect: str) -> tuple[int, int]:
    """How many are right, of how many captions that say something about it."""
    if aspect == "placement":
        pairs = [(scene, verdict) for scene, verdict in pairs if scene.placement]
    if aspect == "size":
        pairs = [(scene, verdict) for scene, verdict in pairs if any(thing.size for thing in scene.objects)]
    return sum(getattr(verdict, aspect) for _, verdict in pairs), len(pairs)


def _share(tally: tuple[int, int]) -> float:
    return tally[0] / tally[1] if tally[1] else float("nan")


def _round_trip(pipeline: StableDiffusionPipeline) -> tuple[float, tuple[int, int]]:
    """The autoencoder alone, on 200 true pictures: dB, and how many keep their shapes.

    This tells how much of the shape rate a denoiser that met the encoder's latents exactly would already lose.
    """
    rng = np.random.default_rng([SEED, 0])
    scenes = [sample_scene(rng) for _ in range(200)]
    pictures = to_tensor(np.stack([render(scene)[0] for scene in scenes]))
    with torch.no_grad():
        restored = pipeline.vae.decode(pipeline.vae.encode(pictures).latent_dist.mean).sample.clamp(-1, 1)
    arrays = ((restored + 1) * 127.5).round().permute(0, 2, 3, 1).numpy().astype(np.uint8)
    kept = sum(judge(array, scene).shape for array, scene in zip(arrays, scenes, strict=True))
    return psnr(pipeline.vae, pictures), (kept, len(scenes))


def _weight(pipeline: StableDiffusionPipeline, name: str, folder: Path) -> dict[str, int]:
    return {
        "parameters": sum(value.numel() for value in getattr(pipeline, name).parameters()),
        "bytes": sum(file.stat().st_size for file in (folder / name).rglob("*") if file.is_file()),
    }


def _markdown(report: dict[str, Any]) -> str:
    rates, parts, sampler, versions = (report[key] for key in ("rates", "components", "sampler", "versions"))
    kept = report["vae_round_trip_shape"]
    lines = ["# Quality of the embedded model", "", f"{rates['overall']['everything'][1]} held-out captions, "]
    lines[-1] += f"{sampler['scheduler']}, {sampler['steps']} steps, guidance {sampler['guidance']}. A caption counts "
    lines[-1] += "as right when all its objects are; placement and size count only captions that state one."
    lines += ["", "| right | " + " | ".join(rates) + " |", "|---|" + "---|" * len(rates)]
    for aspect in _ASPECTS:
        lines.append(f"| {aspect} | " + " | ".join(_cell(rates[kind][aspect]) for kind in rates) + " |")
    lines += ["", f"Autoencoder: {report['vae_psnr_db']} dB; of true pictures sent through it, "]
    lines[-1] += f"{_cell(kept)} keep their shapes."
    lines += ["", "| target | at least | reached | |", "|---|---|---|---|"]
    for target in report["targets"]:
        unit = "{:.1f}" if target["least"] > 1 else "{:.1%}"
        outcome = "met" if target["met"] else "**missed**"
        lines.append(
            f"| {target['name']} | {unit.format(target['least'])} | {unit.format(target['reached'])} | {outcome} |"
        )
    lines += ["", "| component | parameters | bytes |", "|---|---|---|"]
    lines += [f"| {name} | {part['parameters']:,} | {part['bytes']:,} |" for name, part in parts.items()]
    lines += ["", "Measured with " + ", ".join(f"{name} {value}" for name, value in versions.items()) + ".", ""]
    return "\n".join(lines)


def _cell(tally: tuple[int, int]) -> str:
    return f"{_share(tally):.1%} ({tally[0]}/{tally[1]})" if tally[1] else "–"


def _sheet(pictures: NDArray[np.uint8], scenes: list[Scene], verdicts: list[Verdict]) -> Image.Image:
    """24 pictures, spread over all, in six columns; captions of wrong ones are red."""
    scale, columns, text = 3, 6, 44
    side = scale * IMAGE_SIZE
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(_SHEET, len(pictures))).round().astype(int))
    sheet = Image.new("RGB", (columns * side, -(-len(chosen) // columns) * (side + text)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, index in enumerate(chosen):
        left, top = place % columns * side, place // columns * (side + text)
        sheet.paste(Image.fromarray(pictures[index]).resize((side, side), Image.Resampling.NEAREST), (left, top))
        words, rows = scenes[index].caption().split(), [""]
        for word in words:
            if len(rows[-1]) + len(word) > 28:
                rows.append("")
            rows[-1] += word + " "
        draw.text((left + 3, top + side + 2), "\n".join(rows), fill="black" if verdicts[index].everything else "red")
    return sheet


if __name__ == "__main__":
    main()
