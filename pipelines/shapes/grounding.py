"""Measure where words of captions look: ``python -m diffusion_xray.pipelines.shapes.grounding``.

Draws held-out captions as `quality` does while tracing them, and compares the map of each word with the pixels that
`judge` finds of its object. The report goes next to the weights as ``grounding.md`` and ``grounding.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from tqdm import tqdm

from diffusion_xray.tracer import Capture, Trace, Tracer

from .grounding_report import ALL_STEPS, WORD_CLASSES, as_markdown
from .grounding_scores import Score, by_chance, mask_on_grid, score
from .judge import object_masks
from .load import WEIGHTS, load_pipeline
from .quality import BATCH, SEED, Target, draw, held_out_scenes
from .world import Scene

__all__ = ["GroundedWord", "grounded_words", "main", "measure"]

_LAYERS = "unet.**.attn2"
_POINTING, _IOU = 0.98, 0.6


@dataclass(frozen=True, slots=True)
class GroundedWord:
    """A word or phrase of a caption, and what it names in a picture."""

    kind: str
    text: str
    occurrence: int
    """Which of the places where the caption has it, from 0."""
    mask: NDArray[np.bool_]
    """Shape (64, 64)."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """One map of one word against its mask."""

    kind: str
    text: str
    area: float
    source: str
    """What was compared: a choice of steps and layers, or something to compare with."""
    score: Score


def grounded_words(scene: Scene, masks: NDArray[np.bool_]) -> list[GroundedWord]:
    """The words of a caption that name something.

    Colour, shape and size name their object, the background names what no object covers. A relation or position has
    no region of its own: it is given those of the objects it is about.

    Args:
        scene: What the caption says.
        masks: bool (objects, 64, 64).
    """
    covered = masks.any(axis=0)
    named = [
        (kind, text, mask)
        for thing, mask in zip(scene.objects, masks, strict=True)
        for kind, text in (("size", thing.size), ("colour", thing.colour), ("shape", thing.shape))
    ]
    named += [("background", scene.background, ~covered)]
    named += [("relation" if len(scene.objects) == 2 else "position", scene.placement, covered)]
    texts = [text for _, text, _ in named]
    return [
        GroundedWord(kind, text, texts[:at].count(text), mask) for at, (kind, text, mask) in enumerate(named) if text
    ]


def measure(
    pipeline: StableDiffusionPipeline, scenes: Sequence[Scene], *, steps: int = 25, guidance: float = 3.0
) -> dict[str, Any]:
    """Draw, trace and compare; the report as JSON.

    One batch is on the disk at a time, some 100 MB in the folder for temporary files.
    """
    random = np.random.default_rng([SEED, 2])
    measured: list[_Measured] = []
    left_out, grid = 0, (0, 0)
    with tqdm(total=len(scenes), desc="pictures") as bar:
        for start in range(0, len(scenes), BATCH):
            batch = scenes[start : start + BATCH]
            captions = [scene.caption() for scene in batch]
            with tempfile.TemporaryDirectory() as folder:
                capture = Capture(attention=_LAYERS, latents=False)
                with Tracer(pipeline, Path(folder, "batch.zarr"), capture=capture) as tracer:
                    pictures = draw(pipeline, captions, first=start, steps=steps, guidance=guidance)
                for image, (scene, picture) in enumerate(zip(batch, pictures, strict=True)):
                    masks = object_masks(picture, scene)
                    if masks is None:
                        left_out += 1
                    else:
                        words = grounded_words(scene, masks)
                        for word, source, heat in _maps(tracer.trace, words, image):
                            measured.append(_row(word, source, score(heat, word.mask)))
                            grid = heat.shape
                        for word in words:
                            noise = random.random(grid)
                            measured.append(_row(word, "random", score(noise, word.mask)))
                            measured.append(_row(word, "uniform", by_chance(grid, word.mask)))
                            measured.append(_row(word, "mask", score(mask_on_grid(grid, word.mask), word.mask)))
                    bar.update()
    return {
        "captions": len(scenes),
        "left_out": left_out,
        "grid": list(grid),
        **_summary(measured),
        "sampler": {
            "scheduler": type(pipeline.scheduler).__name__,
            "steps": steps,
            "guidance": guidance,
            "seed": SEED,
        },
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
    }


def main(argv: list[str] | None = None) -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_xray.pipelines.shapes.grounding", description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of the model (the shipped one)")
    parser.add_argument("--count", type=int, default=200, metavar="N", help="held-out captions (%(default)s)")
    parser.add_argument("--steps", type=int, default=25, help="sampler steps (%(default)s)")
    parser.add_argument("--guidance", type=float, default=3.0, help="guidance scale (%(default)s)")
    parser.add_argument("--out", type=Path, help="report to write; a .json goes beside it (WEIGHTS/grounding.md)")
    parser.add_argument("--json", action="store_true", help="print the JSON instead of the report")
    options = parser.parse_args(argv)
    if options.count < 2:
        parser.error(f"--count must be 2 or more, one caption of each kind, not {options.count}")
    out: Path = options.out or options.weights / "grounding.md"
    half = options.count // 2
    scenes = held_out_scenes(options.count - half, objects=1) + held_out_scenes(half, objects=2)
    report = measure(load_pipeline(options.weights), scenes, steps=options.steps, guidance=options.guidance)
    text, data = as_markdown(report), json.dumps(report, indent=1)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    out.with_suffix(".json").write_text(data + "\n", encoding="utf-8")
    print(data if options.json else text)


def _maps(
    trace: Trace, words: Sequence[GroundedWord], image: int
) -> Iterator[tuple[GroundedWord, str, NDArray[np.floating]]]:
    """Maps (y, x) of every word, by each choice of steps and layers."""
    for occurrence in sorted({word.occurrence for word in words}):
        asked = [word for word in words if word.occurrence == occurrence]
        texts = [word.text for word in asked]
        whole = trace.word_map(texts, image=image, occurrence=occurrence)
        half = whole.sizes["step"] // 2
        chosen: dict[str, xarray.DataArray] = {
            ALL_STEPS: whole,
            "first half of the steps": whole.isel(step=slice(max(half, 1))),
            "second half of the steps": whole.isel(step=slice(half, None)),
            "last step": whole.isel(step=slice(-1, None)),
        }
        for layer in whole.attrs["layers"]:
            name = layer.removeprefix("unet.").partition(".transformer_blocks")[0]
            chosen[name] = trace.word_map(texts, layers=layer, image=image, occurrence=occurrence)
        for source, found in chosen.items():
            for word, heat in zip(asked, found.mean("step").values, strict=True):
                yield word, source, heat


def _row(word: GroundedWord, source: str, figures: Score) -> _Measured:
    return _Measured(word.kind, word.text, float(word.mask.mean()), source, figures)


def _summary(measured: Sequence[_Measured]) -> dict[str, Any]:
    """Means over the words of each class, each shape, and each choice of steps and layers."""
    whole = [row for row in measured if row.source == ALL_STEPS]
    sources = dict.fromkeys(row.source for row in measured)
    scores = {
        kind: {
            source: _mean([row for row in measured if (row.source, row.kind) == (source, kind)]) for source in sources
        }
        for kind in WORD_CLASSES
        if any(row.kind == kind for row in whole)
    }
    classes = {
        kind: {
            "words": sum(row.kind == kind for row in whole),
            **asdict(WORD_CLASSES[kind]),
            "area": round(float(np.mean([row.area for row in whole if row.kind == kind])), 4),
            "scores": found,
        }
        for kind, found in scores.items()
    }
    shapes = dict.fromkeys(row.text for row in whole if row.kind == "shape")
    targets = [
        Target(f"{kind} words, {name}", least, scores[kind][ALL_STEPS][figure])
        for kind in ("colour", "shape")
        for name, figure, least in (("pointing", "pointing", _POINTING), ("IoU", "iou", _IOU))
    ]
    return {
        "classes": classes,
        "shapes": {
            shape: {"words": len(rows), **_mean(rows)}
            for shape in sorted(shapes)
            if (rows := [row for row in whole if row.text == shape])
        },
        "targets": [{**asdict(target), "met": target.met} for target in targets],
    }


def _mean(rows: Sequence[_Measured]) -> dict[str, float]:
    figures = np.mean([[row.score.pointing, row.score.pixel, row.score.iou] for row in rows], axis=0)
    return {name: round(float(value), 4) for name, value in zip(("pointing", "pixel", "iou"), figures, strict=True)}


if __name__ == "__main__":
    main()
