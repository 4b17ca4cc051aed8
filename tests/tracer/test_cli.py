"""The command line: what it prints, what programs can read, and how it fails."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_xray.tracer import Tracer
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.plugins import COMMANDS, find

from ..attending import CROSS

GOLDEN = str(Path(__file__).parents[1] / "data" / "golden-v1.zarr")

Dxray = Callable[..., list[str]]


@pytest.fixture
def dxray(capsys: pytest.CaptureFixture[str]) -> Dxray:
    """Run a command that succeeds; the lines it prints."""

    def run(*arguments: str) -> list[str]:
        assert main(arguments) == 0
        shown = capsys.readouterr()
        assert shown.err == ""
        return shown.out.splitlines()

    return run


def parsed(lines: list[str]) -> Any:
    """What a program sees; numbers that JSON does not have are refused."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads("\n".join(lines), parse_constant=refuse)


def test_info_says_what_there_is(dxray: Dxray) -> None:
    """`dxray info` names how the run ended, its parts, its steps, and the first value that is not finite."""
    lines = {line[:12].strip(): line[12:].strip() for line in dxray("info", GOLDEN)}
    assert lines["trace"].startswith(GOLDEN)
    assert lines["trace"].endswith("MB, format 1")
    assert lines["status"].startswith("complete, ")
    assert lines["model"] == "Denoiser"
    assert lines["steps"] == "2"
    assert lines["modules"] == "18 fired, tensors of 7 stored"
    assert lines["preview"] == "principal components"
    assert lines["first fault"] == "records.odd:output at step 0"
    assert "torch" in lines["versions"]


def test_info_for_programs(dxray: Dxray) -> None:
    """`dxray info --json` holds the same facts as data."""
    facts = parsed(dxray("info", GOLDEN, "--json"))
    assert facts["status"] == "complete"
    assert facts["steps"] == facts["planned_steps"] == 2
    assert facts["modules"] == 18
    assert facts["components"] == {"model": "Denoiser"}
    fault = facts["first_fault"]
    assert (fault["site"], fault["step"], fault["born"]) == ("records.odd:output", 0, "unknown")  # of format 1
    assert facts["capture"]["modules"] == ["model.conv_in", "model.blocks.0", "model.blocks.0.activation"]
    assert facts["prompts"] == facts["gaps"] == facts["tap_failures"] == []
    assert 0 < facts["bytes"] < 200_000


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ({"budget": 256_000_000, "peak": 1_500_000}, "at most 1.5 MB on the way to the disk, budget 256.0 MB"),
        ({"budget": 1, "peak": True}, None),
        ({"budget": "1", "peak": 2}, None),
        ({"budget": 1, "peak": -2}, None),
        ({"peak": 2}, None),
        ([], None),
    ],
)
def test_info_tells_the_memory_a_recording_took(
    dxray: Dxray, tmp_path: Path, memory: Any, expected: str | None
) -> None:
    """Budget and peak are shown to people and programs where both are numbers of bytes, and nothing is made up."""
    path = shutil.copytree(GOLDEN, tmp_path / "run.zarr")
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["memory"] = memory
    (path / "zarr.json").write_text(json.dumps(document))
    lines = {line[:12].strip(): line[12:].strip() for line in dxray("info", str(path))}
    assert lines.get("memory") == expected
    assert parsed(dxray("info", str(path), "--json"))["memory"] == (memory if expected else {})


def test_ls_lists_in_call_order(dxray: Dxray) -> None:
    """`dxray ls` has a line for each tensor seen, a module before its children, with shape, dtype and what is kept."""
    header, *lines = dxray("ls", GOLDEN)
    assert header.split() == ["site", "class", "shape", "dtype", "branch", "when", "stored"]
    rows = [line.split() for line in lines]
    assert len(rows) == 24
    model = [row[0] for row in rows if row[0].startswith("model")]
    assert model[:4] == [
        "model:output",
        "model:output_1_hidden",
        "model.conv_in:output",
        "model.blocks.0:output",
    ]
    assert ["model.conv_in:output", "Conv2d", "1×8×4×4", "float32", "–", "loop", "tensors"] in rows
    assert ["records.start:output", "record", "2×3", "float32", "–", "once", "tensors"] in rows


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("model.conv_in", ["model.conv_in:output"]),
        ("model.*_*", ["model.conv_in:output", "model.conv_out:output"]),
        ("records.**", ["records.start:output", "records.ramp:output", "records.odd:output"]),
        ("model.blocks.0.activation:output_call1", ["model.blocks.0.activation:output_call1"]),
        ("latents:x?", ["latents:x0"]),
        ("**.0.conv?", ["model.blocks.0.conv1:output", "model.blocks.0.conv2:output"]),
    ],
)
def test_globs_choose_modules_and_tensors(dxray: Dxray, glob: str, expected: list[str]) -> None:
    """The pattern of `ls` and `stats` is that of `Capture`, on modules or on single tensors."""
    assert [line.split()[0] for line in dxray("ls", GOLDEN, glob)[1:]] == expected
    shown = [line.split()[0] for line in dxray("stats", GOLDEN, glob)[1:] if line]
    assert sorted(shown) == sorted([*expected, *(["outside"] if "records.start:output" in expected else [])])


def test_ls_for_programs(dxray: Dxray) -> None:
    """`dxray ls --json` gives everything known of a tensor."""
    (site,) = parsed(dxray("ls", GOLDEN, "model.blocks.0", "--json"))
    assert site["key"] == "model.blocks.0:output"
    assert site["stored"] is True
    assert site["shape"] == [1, 8, 4, 4]
    assert site["dims"] == ["batch", "channel", "height", "width"]
    assert site["array"] == "model/blocks/0/_io/output"


def test_attention_is_mentioned(dxray: Dxray, embedded: Path) -> None:
    """`dxray info` counts the attention calls by kind, `dxray ls` names the kind beside queries and keys."""
    lines = {line[:12].strip(): line[12:].strip() for line in dxray("info", str(embedded))}
    assert lines["attention"] == "9 self, 4 cross"
    assert parsed(dxray("info", str(embedded), "--json"))["attention"] == {"self": 9, "cross": 4}
    stored = {line.split()[0]: line.split()[-1] for line in dxray("ls", str(embedded), CROSS)[1:]}
    assert stored == {
        f"{CROSS}:query": "cross-attention",
        f"{CROSS}:key": "cross-attention",
        f"{CROSS}:output": "statistics",
    }


def test_stats_of_one_step(dxray: Dxray) -> None:
    """`dxray stats --step` shows the numbers of that step."""
    header, line = dxray("stats", GOLDEN, "records.odd", "--step", "1")
    assert dict(zip(header.split(), line.split(), strict=True)) == {
        "site": "records.odd:output",
        "min": "0",
        "max": "2",
        "mean": "1",
        "std": "0.816",
        "abs_max": "2",
        "nans": "1",
        "infs": "1",
        "zeros": "1",
    }


def test_stats_over_all_steps(dxray: Dxray) -> None:
    """Without a step extrema and counts are totals, mean and deviation averages, and a sparkline shows the course."""
    header, line = dxray("stats", GOLDEN, "records.ramp")
    assert header.endswith("std over steps")
    name, low, high, mean, *_, zeros, spark = line.split()
    assert [name, low, high, mean, zeros] == ["records.ramp:output", "0", "@0", "6", "2"]
    assert spark == "▄█" or len(spark) == 2


def test_stats_for_programs(dxray: Dxray) -> None:
    """`dxray stats --json` gives all statistics as numbers, and the step of each extreme."""
    (row,) = parsed(dxray("stats", GOLDEN, "records.odd", "--json"))
    assert row == {
        "site": "records.odd:output",
        "in_loop": True,
        "min_step": 0,
        "max_step": 0,
        "abs_max_step": 0,
        "min": 0,
        "max": 3,
        "mean": 1.25,
        "std": pytest.approx((1.25**0.5 + (2 / 3) ** 0.5) / 2),
        "l2_norm": pytest.approx((14**0.5 + 5**0.5) / 2),
        "abs_max": 3,
        "nans": 1,
        "positive_infs": 2,
        "negative_infs": 0,
        "infs": 2,
        "zeros": 2,
        "count": 10,
    }


@pytest.mark.parametrize("statistic", ["std", "abs_max", "nans", "infs"])
def test_stats_are_sorted(dxray: Dxray, statistic: str) -> None:
    """`--sort` puts the largest first, in the table as for programs, and what fired outside of the loop after that."""
    rows = parsed(dxray("stats", GOLDEN, "--json", "--sort", statistic))
    values = [row[statistic] for row in rows if row["in_loop"]]
    assert values == sorted(values, reverse=True)
    assert [row["in_loop"] for row in rows] == [True] * (len(rows) - 1) + [False]
    lines = [
        line for line in dxray("stats", GOLDEN, "--sort", statistic)[1:] if line and not line.startswith("outside")
    ]
    assert [line.split()[0] for line in lines] == [row["site"] for row in rows]


def test_stats_of_a_step_are_of_the_loop(dxray: Dxray) -> None:
    """With a step, what fired outside of the loop is shown only where nothing else was asked for."""
    lines = dxray("stats", GOLDEN, "records.**", "--step", "0", "--sort", "count")
    assert [line.split()[0] for line in lines] == ["site", "records.odd:output", "records.ramp:output"]
    assert dxray("stats", GOLDEN, "records.start", "--step", "0")[1].startswith("records.start:output")


def test_stats_name_the_step_of_an_extreme(dxray: Dxray) -> None:
    """The step at which the largest and smallest value were reached stands beside them."""
    header, line = dxray("stats", GOLDEN, "records.ramp")
    assert header.split()[:3] == ["site", "min", "max"]
    assert line.split()[1:5] == ["0", "@0", "6", "@1"]


def test_the_first_rows(dxray: Dxray) -> None:
    """`--top` leaves so many rows of each part, after sorting."""
    rows = parsed(dxray("stats", GOLDEN, "--json", "--sort", "abs_max"))
    top = parsed(dxray("stats", GOLDEN, "--json", "--sort", "abs_max", "--top", "2"))
    assert top == [*rows[:2], rows[-1]]


def test_stats_as_csv(dxray: Dxray) -> None:
    """`--csv` has a line for each tensor with every statistic, empty where there is none."""
    rows = list(csv.DictReader(dxray("stats", GOLDEN, "--csv")))
    assert len(rows) == 24
    by_site = {row["site"]: row for row in rows}
    assert by_site["records.ramp:output"]["max"] == "6.0" and by_site["records.ramp:output"]["max_step"] == "1"
    assert by_site["records.start:output"]["max_step"] == "" and by_site["records.start:output"]["in_loop"] == "False"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_stats_fit_the_terminal(dxray: Dxray, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """No line is wider than the terminal; what there was no room for is named, and what was sorted by stays."""
    monkeypatch.setenv("COLUMNS", str(width))
    lines = dxray("stats", GOLDEN, "--sort", "zeros")
    assert max(map(len, lines[:-1])) <= max(width, 64)
    assert "zeros" in lines[0].split()
    assert lines[-1].startswith("no room for ") == ("std over steps" not in lines[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "nowhere.zarr"], "there is no trace at nowhere.zarr"),
        (["ls", __file__], "is not a trace"),
        (["stats", str(Path(__file__).parent)], "holds no zarr.json"),
        (["ls", GOLDEN, "model.conv_inn"], "Did you mean model.conv_in"),
        (["stats", GOLDEN, "**.nothing"], "'**.nothing' matches no module"),
        (["stats", GOLDEN, "--step", "2"], "no step 2"),
        (["stats", GOLDEN, "--step", "-1"], "no step -1"),
        (["info", "\x1b[31mred.zarr"], "\\x1b[31mred.zarr"),
    ],
)
def test_an_error_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    """What goes wrong is told in one line on stderr that names the value, without a traceback."""
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("dxray: ")
    assert words in shown.err
    assert shown.err.count("\n") == 1
    assert "\x1b" not in shown.err


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["stats", GOLDEN, "--sort", "beauty"], ["stats", GOLDEN, "--step", "x"]]
)
def test_a_wrong_command_line_is_code_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """A command line that cannot be understood shows how it should be."""
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: dxray" in capsys.readouterr().err


def test_a_damaged_trace_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trace that lost a part of its files is told as such."""
    copy = tmp_path / "run.zarr"
    shutil.copytree(GOLDEN, copy)
    (copy / "statistics" / "model" / "statistics" / "c.0.0.0").write_bytes(b"no chunk" * 1000)
    assert main(["stats", str(copy)]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "damaged" in shown.err


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """`dxray --help` begins with what to do and lists every command; every command explains itself."""
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    assert "dxray demo" in shown
    commands = {"info", "ls", "stats", *find(COMMANDS)}
    assert {"view", "demo"} <= commands
    for command in commands:
        assert re.search(rf"\n    {command}\s", shown)
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        assert len(capsys.readouterr().out.splitlines()) > 6


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """`dxray --version` prints it."""
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.startswith("dxray 0.")


def test_every_shape_is_listed_and_counts_are_exact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tensor of changing shape is listed with each shape, and a large count of zeros to the last digit."""
    model = torch.nn.Identity()
    with Tracer(model, tmp_path / "run.zarr", capture="all") as tracer:
        for step, rows in enumerate((1, 123)):
            tracer.step(step)
            model(torch.zeros(rows, 1003))
    assert main(["ls", str(tmp_path / "run.zarr")]) == 0
    assert "1×1003, 123×1003" in capsys.readouterr().out
    assert main(["stats", str(tmp_path / "run.zarr")]) == 0
    assert " 124372 " in capsys.readouterr().out
