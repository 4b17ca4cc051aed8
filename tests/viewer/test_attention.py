"""`dxray attention` from the outside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import Trace, Tracer, open_trace
from diffusion_xray.tracer.cli import main
from diffusion_xray.viewer import attention_request
from diffusion_xray.viewer.run_pictures import picture_of

from ..attending import CROSS, PROMPT, Call, made_trace

Dxray = Callable[..., list[str]]


@pytest.fixture
def dxray(embedded: Path, capsys: pytest.CaptureFixture[str]) -> Dxray:
    """Run the command on the embedded model's trace; the lines it prints."""

    def run(*arguments: str, trace: Path = embedded) -> list[str]:
        assert main(["attention", str(trace), *arguments]) == 0
        shown = capsys.readouterr()
        assert shown.err == ""
        return shown.out.splitlines()

    return run


def pixels(path: Path) -> NDArray[np.float64]:
    """A picture that was written, shape (y, x, rgb)."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.float64)


def test_words_and_modules_are_listed(dxray: Dxray, embedded: Path) -> None:
    """Without a word there are the words with their shares, and every module that attends with its kind and grids."""
    lines = dxray()
    assert lines[0].split()[:2] == ["word", "share"]
    assert [line.split()[0] for line in lines[1:13]] == [
        "<|startoftext|>",
        *["a", "red", "circle", "left", "of", "a#1", "blue", "square", "on", "white"],
        "<|endoftext|>",
    ]
    share = float(open_trace(embedded).word_mass("circle").mean())
    assert lines[4].split()[1] == f"{100 * share:.1f}"
    assert "mean over 4 layers at steps 0, 1, 2" in lines
    (row,) = [line.split() for line in lines if line.startswith(CROSS)]
    assert row[1:] == ["cross", "4", "image", "8×8", "text", "20"]


def test_shares_for_programs(dxray: Dxray, embedded: Path) -> None:
    """`--json` gives the share of every word, or of one, by step and layer."""
    facts = json.loads("\n".join(dxray("--json")))
    assert facts["positions"]["circle"] == [3]
    assert facts["positions"]["a#1"] == [6]
    assert len(facts["by_step_and_layer"]) == 3 * 4
    assert sum(facts["mass"].values()) == pytest.approx(1, abs=1e-5)
    one = json.loads("\n".join(dxray("--json", "--word", "red circle", "--step", "-1", "--layer", CROSS)))
    expected = float(open_trace(embedded).word_mass("red circle", step=2, layers=CROSS)[0, 0])
    assert one["by_step_and_layer"] == [
        {"step": 2, "layer": CROSS, "mass": {"red circle": pytest.approx(expected)}, "use": "proven"}
    ]


def test_a_word_is_drawn_over_the_picture(dxray: Dxray, tmp_path: Path) -> None:
    """The PNG has the picture, the heat over it, a legend and captions; brightest where the object is."""
    lines = dxray("--word", "circle", "--out", str(tmp_path / "circle.png"))
    assert lines[-1] == f"written to {tmp_path / 'circle.png'}"
    assert lines[-2].startswith("circle: mean over 3 steps, 4 layers, all heads; brightest ")
    drawn = pixels(tmp_path / "circle.png")
    assert drawn.shape == (420 + 2 * 24 + 106, 2 * 420 + 6 + 2 * 24, 3)
    heat = drawn[62:482, 450:870]
    warm = heat[..., 0] - heat[..., 2]
    assert warm[:, :210].max() > 100 > warm[:, 230:].max()


@pytest.mark.parametrize(("grid", "rows", "columns"), [("words", 11, 3), ("heads", 4, 4)])
def test_tables_of_maps(dxray: Dxray, tmp_path: Path, grid: str, rows: int, columns: int) -> None:
    """A table has a row for each word and a column for each step, or layers and heads, in the terminal likewise.

    Above the words there is a row of what the model predicted at each step.
    """
    word = ["--word", "circle"] if grid == "heads" else []
    lines = dxray("--grid", grid, *word, "--out", str(tmp_path / "grid.png"))
    assert sum(", up to " in line for line in lines) == rows
    height, width, _ = pixels(tmp_path / "grid.png").shape
    assert height == 24 + 62 + (rows + (grid == "words")) * (104 + 6) + 40 + 24
    assert width > columns * (104 + 6)


def test_some_words_of_many(dxray: Dxray, tmp_path: Path) -> None:
    """Words that are named several times make a table of just these, in that order, or their shares."""
    words = ["--word", "square", "--word", "red circle", "--word", "square"]
    lines = dxray("--grid", "words", *words, "--out", str(tmp_path / "grid.png"))
    assert [line.partition(",")[0] for line in lines if ", up to " in line] == ["square", "red circle"]
    facts = json.loads("\n".join(dxray("--json", *words[:4])))
    assert list(facts["mass"]) == ["square", "red circle"]


def test_without_predictions_there_is_no_row_of_them(dxray: Dxray, embedded: Path, tmp_path: Path) -> None:
    """A trace without x0 has its words alone in the table."""
    copy = Path(shutil.copytree(embedded, tmp_path / "copy.zarr"))
    document = json.loads((copy / "zarr.json").read_text())
    del document["consolidated_metadata"]["metadata"]["latents/preview_x0"]
    (copy / "zarr.json").write_text(json.dumps(document))
    dxray("--grid", "words", "--word", "red", "--out", str(tmp_path / "grid.png"), trace=copy)
    assert pixels(tmp_path / "grid.png").shape[0] == 24 + 62 + 104 + 6 + 40 + 24


def test_the_terminal_has_half_blocks(dxray: Dxray, monkeypatch: pytest.MonkeyPatch) -> None:
    """With colours the map is drawn in half-blocks of 24 bits, without them in shades and without escapes."""
    plain = "\n".join(dxray("--word", "circle", "--step", "1"))
    assert "\x1b" not in plain
    assert "█" in plain
    assert "circle: step 1 of 3, t = " in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    coloured = "\n".join(dxray("--word", "circle"))
    assert "▀" in coloured
    assert "\x1b[38;2;" in coloured


def test_the_negative_prompt(dxray: Dxray) -> None:
    """`--branch` shows the words of the other prompt."""
    words = [line.partition(" ")[0] for line in dxray("--branch", "unconditional")]
    assert words[1:3] == ["<|startoftext|>", "<|endoftext|>"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--word", "circel"], "Did you mean circle?"),
        (["--word", "circle", "--step", "3"], "no step 3"),
        (["--word", "circle", "--layer", "unet.**.attn3"], "matches no module that attends"),
        (["--layer", "unet.**.attn3"], "One that does is unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2."),
        (["--word", "circle", "--layer", "unet.**.attn1"], "in the 4 modules that attend, only self-attention"),
        (["--word", "circle", "--step", "-4"], "its complete steps are 0 to 2"),
        (["--word", "circle", "--branch", "unconditional"], "has 'circle': add --branch conditional"),
        (["--word", "circle", "--head", "9"], "no head 9"),
        (["--word", "circle", "--branch", "other"], "the trace has unconditional, conditional. The prompt of"),
        (["--word", "circle", "--image", "4"], "no image 4 in the branch 'conditional', counted from 0. Add"),
        (["--word", "a", "--occurrence", "5"], "stands 2 times"),
        (["--grid", "heads"], "add --word"),
        (["--grid", "heads", "--word", "red", "--word", "blue"], "one word, not red, blue; --grid words"),
        (["--word", "red", "--word", "blue"], "one word, not red, blue; --grid words"),
        (["--out", "x.png"], "add --word"),
        (["--word", "circle", "--out", "nowhere/x.png"], "cannot write nowhere/x.png"),
        (["--word", "circle", "--out", "x.nothing"], "cannot write x.nothing"),
        (["--word", "\x1b[31mred"], "\\x1b[31mred"),
    ],
)
def test_errors_are_one_line(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str], message: str
) -> None:
    """What cannot be shown is one line on stderr and code 2."""
    monkeypatch.chdir(tmp_path)
    assert main(["attention", str(embedded), *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert "\x1b" not in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--word", "star"], "The prompt of image 1 has 'star'. Add --image 1."),
        (["--word", "ring", "--step", "0"], "The prompt from step 1 on has 'ring': add --step 1."),
        (["--word", "gray"], "'gray' was cut off: the prompt is longer than text_encoder reads."),
    ],
)
def test_words_of_other_prompts(
    tmp_path_factory: pytest.TempPathFactory, capsys: Any, arguments: list[str], message: str
) -> None:
    """A word that another image, another call or nothing of the run was given is said to be there, or cut off."""
    path = tmp_path_factory.getbasetemp() / "several-prompts.zarr"
    if not path.exists():
        pipe = load_pipeline()
        pipe.set_progress_bar_config(disable=True)
        long = "a blue square left of a red circle left of a blue square left of a red circle on gray"
        with Tracer(pipe, path, capture="attention"):
            pipe([PROMPT, "a green star on black"], num_inference_steps=1)
            pipe(["a yellow ring on black", long], num_inference_steps=1)
    assert main(["attention", str(path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_word_of_one_call_is_counted_and_drawn_with_that_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caption counts the steps that have the word, and the picture below is what their call returned."""
    drawn: list[int] = []
    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    with Tracer(pipe, tmp_path / "two.zarr", capture="attention") as tracer:
        pipe("a red circle on white", num_inference_steps=2)
        star = pipe("a green star on black", num_inference_steps=1).images[0]

    def noting(trace: Trace, image: int, step: int) -> NDArray[np.uint8] | None:
        drawn.append(step)
        return picture_of(trace, image, step)

    monkeypatch.setattr(attention_request, "picture_of", noting)
    assert main(["attention", str(tmp_path / "two.zarr"), "--word", "star"]) == 0
    assert "star: mean over 1 step, 4 layers" in capsys.readouterr().out
    picture = picture_of(tracer.trace, 0, 2)
    assert drawn == [2]
    assert picture is not None and np.array_equal(picture, np.asarray(star))


def test_a_trace_without_attention(traces: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """A trace in which none was recorded says how to record it."""
    assert main(["attention", str(traces["normal"])]) == 2
    assert "trace with capture='attention'" in capsys.readouterr().err


def test_a_trace_without_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no step is complete there is nothing to draw, and the modules are listed all the same."""
    query, key = np.ones((2, 1, 1, 4, 2), np.float32)
    made_trace(tmp_path / "made.zarr", [Call("text_encoder.attn", query, key, [("text", (4,))], [("text", (4,))])])
    assert main(["attention", str(tmp_path / "made.zarr")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("text_encoder.attn")
    assert main(["attention", str(tmp_path / "made.zarr"), "--word", "a"]) == 2
    assert "no step of" in capsys.readouterr().err


def test_attention_without_words(dxray: Dxray, tmp_path: Path) -> None:
    """Where no text is known the modules are listed all the same, and those without a map say why."""
    rng = np.random.default_rng(0)
    query, key = rng.standard_normal((2, 2, 1, 1, 6, 2), np.float32)
    grid = [("image", (2, 3))]
    calls = [
        Call("made.self", query, key, grid, grid),
        Call("made.linear", query, key, [], [], softmax=False, reason="linear\x07"),
    ]
    made_trace(tmp_path / "made.zarr", calls)
    lines = dxray(trace=tmp_path / "made.zarr")
    assert lines[0].startswith("no attention of an image to text")
    assert lines[-2].split() == ["made.self", "self", "1", "image", "2×3", "image", "2×3"]
    assert lines[-1].split() == ["made.linear", "none", "linear\\x07"]


def test_without_a_picture_there_is_the_preview_or_the_heat_alone(dxray: Dxray, embedded: Path, tmp_path: Path) -> None:
    """A run that returned no picture is drawn over the preview of its last step; one without either, over nothing."""
    copy = Path(shutil.copytree(embedded, tmp_path / "copy.zarr"))
    for removed, size in (("images/images", 2), ("latents/preview", 1)):
        document = json.loads((copy / "zarr.json").read_text())
        del document["consolidated_metadata"]["metadata"][removed]
        (copy / "zarr.json").write_text(json.dumps(document))
        dxray("--word", "circle", "--out", str(tmp_path / "x.png"), trace=copy)
        assert pixels(tmp_path / "x.png").shape[1] == 420 * size + 6 * (size - 1) + 2 * 24
