"""The grounding report: maps of words against masks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusion_xray.pipelines.shapes.grounding import grounded_words, main
from diffusion_xray.pipelines.shapes.grounding_report import ALL_STEPS, as_markdown
from diffusion_xray.pipelines.shapes.grounding_scores import Score, by_chance, mask_on_grid, score
from diffusion_xray.pipelines.shapes.load import WEIGHTS
from diffusion_xray.pipelines.shapes.world import Object, Scene, render

SQUARE = np.zeros((64, 64), bool)
SQUARE[8:24, 16:32] = True


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on four captions with few steps."""
    out = tmp_path_factory.mktemp("grounding") / "small.md"
    main(["--count", "4", "--steps", "12", "--out", str(out)])
    return out


def test_a_map_like_the_mask_is_right() -> None:
    """The mask itself in place of the map points right and overlaps wholly; a map of the rest does neither."""
    heat = mask_on_grid((8, 8), SQUARE)
    assert heat.sum() == 4
    right, wrong = score(heat, SQUARE), score(1 - heat, SQUARE)
    assert (right.pointing, right.pixel) == (1, 1)
    assert right.iou > 0.8
    assert (wrong.pointing, wrong.pixel, wrong.iou) == (0, 0, 0)
    assert score(SQUARE.astype(float), SQUARE).iou == 1


def test_a_cell_is_near_enough() -> None:
    """The brightest cell is a hit when it touches the mask at all; to the pixel, its middle has to lie inside."""
    corner = np.zeros((64, 64), bool)
    corner[:2, :2] = True
    heat = np.zeros((8, 8))
    heat[0, 1] = 1
    assert score(heat, corner) == Score(0, 0, 0)
    corner[:2, :9] = True
    assert score(heat, corner).pointing == 1
    assert score(heat, corner).pixel == 0


def test_chance_is_what_random_maps_reach() -> None:
    """What is expected of a map that is the same everywhere is the mean over maps of noise in every pixel."""
    random = np.random.default_rng(0)
    scores = [score(random.random((64, 64)), SQUARE) for _ in range(400)]
    expected = by_chance((64, 64), SQUARE)
    assert np.mean([found.pixel for found in scores]) == pytest.approx(expected.pixel, abs=0.04)
    assert np.mean([found.iou for found in scores]) == pytest.approx(expected.iou, abs=0.005)
    assert by_chance((8, 8), SQUARE).pointing == 4 / 64


def test_words_name_their_objects() -> None:
    """Size, colour and shape belong to their object, the background to the rest, the relation to both objects."""
    things = (Object("red", "circle", "big", 16, 32, 13), Object("blue", "circle", "", 48, 32, 10))
    masks = render(Scene(things, "left of", "white"))[1] >= 0.5
    first, second = masks
    words = {(w.kind, w.text, w.occurrence): w.mask for w in grounded_words(Scene(things, "left of", "white"), masks)}
    expected = {
        ("size", "big", 0): first,
        ("colour", "red", 0): first,
        ("shape", "circle", 0): first,
        ("colour", "blue", 0): second,
        ("shape", "circle", 1): second,
        ("background", "white", 0): ~(first | second),
        ("relation", "left of", 0): first | second,
    }
    assert words.keys() == expected.keys()
    assert all((words[key] == mask).all() for key, mask in expected.items())
    single = grounded_words(Scene(things[:1], "top", "white"), masks[:1])
    assert [(word.kind, word.text) for word in single[-2:]] == [("background", "white"), ("position", "top")]


def test_supervised_words_look_at_their_object(report: Path) -> None:
    """On four captions colour and shape words beat noise and a uniform map, and no figure is impossible."""
    facts = json.loads(report.with_suffix(".json").read_text())
    assert (facts["captions"], facts["left_out"] < 4, facts["grid"]) == (4, True, [8, 8])
    for kind in ("colour", "shape"):
        scores = facts["classes"][kind]["scores"]
        assert facts["classes"][kind]["words"] >= 1
        assert scores[ALL_STEPS]["pointing"] > max(scores["random"]["pointing"], scores["uniform"]["pointing"])
        assert scores[ALL_STEPS]["iou"] > 3 * max(scores["random"]["iou"], scores["uniform"]["iou"])
        assert scores["mask"]["iou"] >= scores[ALL_STEPS]["iou"]
    figures = [v for c in facts["classes"].values() for found in c["scores"].values() for v in found.values()]
    assert min(figures) >= 0
    assert max(figures) <= 1


def test_json_is_printed_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints what the file beside the report holds; too few captions are refused."""
    main(["--count", "2", "--steps", "8", "--out", str(tmp_path / "r.md"), "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "r.json").read_text())
    with pytest.raises(SystemExit):
        main(["--count", "1"])
    assert "must be 2 or more" in capsys.readouterr().err


@pytest.mark.parametrize("shipped", [False, True])
def test_the_report_says_what_the_json_holds(report: Path, shipped: bool) -> None:
    """The tables, of a fresh report and of the shipped one, have the figures of the JSON beside them."""
    path = WEIGHTS / "grounding.md" if shipped else report
    text, facts = path.read_text(encoding="utf-8"), json.loads(path.with_suffix(".json").read_text())
    assert text == as_markdown(facts)
    scores: dict[str, Any] = facts["classes"]["colour"]["scores"]
    rows = re.findall(r"^\| colour \| ([\d. |]+) \|$", text, re.MULTILINE)
    assert [row.split(" | ") for row in rows] == [
        [f"{scores[source][figure]:.3f}" for source in (ALL_STEPS, "random", "uniform", "mask")]
        for figure in ("pointing", "pixel", "iou")
    ]


def test_the_shipped_report_is_on_two_hundred_captions() -> None:
    """The report beside the weights is of the full measurement, and tells which words were supervised."""
    facts = json.loads((WEIGHTS / "grounding.json").read_text())
    assert facts["captions"] == 200
    assert [kind for kind, found in facts["classes"].items() if found["supervised"]] == ["colour", "shape", "size"]
    assert "words were supervised" in (WEIGHTS / "grounding.md").read_text(encoding="utf-8")
