"""`dxray diff`: what it prints, what programs can read, its exit code, and how it fails."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffusion_xray.tracer import Capture
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.comparison.distance import Tolerance
from diffusion_xray.tracer.trace import Trace

from ..parting import STEPS, record

Diff = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def diff(capsys: pytest.CaptureFixture[str]) -> Diff:
    """Run it; the exit code and the lines it prints, of an error too."""

    def run(*arguments: object) -> tuple[int, list[str]]:
        code = main(["diff", *map(str, arguments)])
        shown = capsys.readouterr()
        return code, (shown.err or shown.out).splitlines()

    return run


@pytest.fixture
def a(tmp_path: Path) -> Trace:
    """The run that counts."""
    return record(tmp_path / "a.zarr")


def parsed(found: tuple[int, list[str]]) -> Any:
    """The JSON printed; numbers that it does not have are refused."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads("\n".join(found[1]), parse_constant=refuse)


def test_equal_runs(a: Trace, tmp_path: Path, diff: Diff) -> None:
    """Two traces of one run: what was compared, no table, exit code 0."""
    b = record(tmp_path / "b.zarr")
    code, lines = diff(a.path, b.path)
    assert code == 0
    assert lines == [
        f"A          {a.path}  6 steps",
        f"B          {b.path}  6 steps",
        "compared   9 tensors at 6 steps, linked by index",
        "           9 from what is stored, 0 from statistics, which prove a least distance only",
        "tolerance  what rounding explains",
        "",
        "no divergence in 9 tensors",
    ]


def test_runs_that_part(a: Trace, tmp_path: Path, diff: Diff) -> None:
    """The first layer and step in order of execution, a row for each layer that diverges, causes first; exit code 1."""
    b = record(tmp_path / "b.zarr", fault=("blocks.1.conv", 2, 0.5))
    code, lines = diff(a.path, b.path)
    assert code == 1
    rows = [line.split() for line in lines if line.startswith("unet")]
    assert lines[6].split()[:4] == ["layer", "first", "step", "distance"]
    steps = [int(row[1]) for row in rows]
    assert rows[0][0] == "unet.blocks.1.conv:output" and steps == sorted(steps)
    assert {row[0]: row[1] for row in rows}["unet.blocks.1.conv:output"] == "2"
    assert {row[0]: row[1] for row in rows}["unet.conv_in:output"] == "3"
    assert all(row[-1] == "tensor" for row in rows)
    assert lines[-2].startswith("first: unet.blocks.1.conv:output at step 2, distance ")
    assert lines[-2].endswith(f", above {Tolerance.of('float32').relative:g}")
    assert lines[-1] == f"{len(rows)} of 9 tensors diverge"


def test_only_the_first_unless_all_are_asked_for(tmp_path: Path, diff: Diff) -> None:
    """Ten layers are listed from the cause on, however small it is, and the others counted; --all lists them."""
    capture = Capture(modules="**", inputs=True)
    paths = [record(tmp_path / f"{seed}.zarr", seed=seed, capture=capture).path for seed in (0, 1)]
    _, lines = diff(*paths)
    assert sum(line.startswith("unet") for line in lines) == 10
    listed = [line.split()[0] for line in lines if line.startswith("unet")]
    assert lines[-2].startswith(f"first: {listed[0]} at step 0")
    assert lines[-1] == "18 of 18 tensors diverge; the first 10 are listed, --all lists them"
    _, lines = diff(*paths, "--all")
    assert sum(line.startswith("unet") for line in lines) == 18
    assert lines[-1] == "18 of 18 tensors diverge"


def test_tolerance(a: Trace, tmp_path: Path, diff: Diff) -> None:
    """Differences up to the tolerance pass; it replaces that of the dtypes, in both directions."""
    b = record(tmp_path / "b.zarr", fault=("conv_out", 0, 1e-4))
    assert diff(a.path, b.path)[0] == 1
    assert diff(a.path, b.path, "--tolerance", "0.1")[0] == 0
    same = record(tmp_path / "c.zarr")
    assert diff(a.path, same.path, "--tolerance", "0")[0] == 0


def test_json_for_programs(a: Trace, tmp_path: Path, diff: Diff) -> None:
    """The same as data: a distance that is infinite is "inf", and every layer that diverges is there."""
    b = record(tmp_path / "b.zarr", fault=("blocks.0.act", 3, math.nan), steps=5)
    found = diff(a.path, b.path, "--json")
    document = parsed(found)
    assert found[0] == 1 and document["diverges"] is True
    first = document["first"]
    assert (first["site"], first["step_a"], first["step_b"]) == ("unet.blocks.0.act:output", 3, 3)
    assert (first["relative_l2"], first["evidence"]) == ("inf", "tensor")
    assert len(document["layers"]) == 9 - 2 + 2
    assert document["compared"] == {"tensors": 9, "from_nothing": 0, "from_statistics": 0, "from_tensor": 9}
    assert document["steps"]["pairs"] == [[step, step] for step in range(5)]
    assert document["steps"]["only_a"] == [5] and document["steps"]["only_b"] == []
    assert document["differs"]["steps"] == {"a": "6", "b": "5"}


def test_statistics_alone(a: Trace, tmp_path: Path, diff: Diff) -> None:
    """Where one run kept no tensors the distance is a bound, and is marked as one."""
    b = record(tmp_path / "b.zarr", capture="statistics", fault=("blocks.0", 1, 0.5))
    code, lines = diff(a.path, b.path)
    assert code == 1
    assert lines[3] == "           0 from what is stored, 9 from statistics, which prove a least distance only"
    assert lines[-2].startswith("first: unet.blocks.0:output at step 1, distance ≥")


@pytest.mark.parametrize("form", ["rename", "json", "toml"])
def test_names(a: Trace, tmp_path: Path, diff: Diff, form: str) -> None:
    """Modules that have other names in B are paired by --rename, or by a file of names."""
    b = record(tmp_path / "b.zarr", component="port")
    files = {"json": '{"unet.**": "port.**", "unet": "port"}', "toml": '"unet.**" = "port.**"\nunet = "port"\n'}
    options = ["--rename", "unet.**=port.**", "--rename", "unet=port"]
    if form in files:
        (tmp_path / f"names.{form}").write_text(files[form])
        options = ["--map", str(tmp_path / f"names.{form}")]
    code, lines = diff(a.path, b.path, *options)
    assert code == 0
    assert "no divergence in 9 tensors" in lines


def test_rename_goes_before_the_file(a: Trace, tmp_path: Path, diff: Diff) -> None:
    """A name given on the command line replaces that of the file."""
    b = record(tmp_path / "b.zarr", component="port")
    (tmp_path / "names.json").write_text('{"unet.**": "nowhere.**"}')
    assert diff(a.path, b.path, "--map", tmp_path / "names.json", "--rename", "unet.**=port.**")[0] == 0


def test_a_part_alone(a: Trace, tmp_path: Path, diff: Diff) -> None:
    """--glob compares only what it matches in A; what only one trace has is told of that part alone."""
    b = record(tmp_path / "b.zarr", fault=("blocks.1.conv", 2, 0.5), capture="all")
    assert diff(a.path, b.path, "--glob", "unet.blocks.1.conv")[0] == 1
    code, lines = diff(a.path, b.path, "--glob", "unet.never")
    assert code == 2 and "matches no module" in lines[0]
    late = record(tmp_path / "c.zarr", fault=("blocks.1.conv", STEPS - 1, 0.5))
    code, lines = diff(a.path, late.path, "--glob", "unet.blocks.0**")
    assert code == 0
    assert "no divergence in 3 tensors" in lines
    assert not any(line.startswith("only in") for line in lines)


def test_linked_by_timestep(a: Trace, tmp_path: Path, diff: Diff) -> None:
    """Steps are linked as asked; those without a partner are told, as ranges."""
    b = record(tmp_path / "b.zarr", steps=3, every=300.0)
    _, lines = diff(a.path, b.path, "--link", "timestep", "--tolerance", "1e9")
    assert "compared   9 tensors at 3 steps, linked by timestep" in lines
    assert "only in A  3 steps: 1, 3, 5" in lines
    assert any(line.startswith("differs    schedule: 1000 850") for line in lines)


def test_steps_that_one_run_has_not(a: Trace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal as far as they go, two runs of which one has more steps do not agree, unless they are linked otherwise."""
    b = record(tmp_path / "b.zarr", steps=3)
    assert main(["diff", str(a.path), str(b.path)]) == 2
    shown = capsys.readouterr()
    assert "only in A  3 steps: 3-5" in shown.out.splitlines()
    assert "steps 3, 4, 5 of A have no partner" in shown.err
    assert main(["diff", str(a.path), str(b.path), "--link", "timestep"]) == 0


def test_other_shapes(a: Trace, tmp_path: Path, diff: Diff) -> None:
    """Layers of other shapes have no distance, and diverge all the same."""
    b = record(tmp_path / "b.zarr", channels=6)
    code, lines = diff(a.path, b.path, "--glob", "unet.conv_in")
    assert code == 1
    assert "shapes differ: 2×4×8×8 in A, 2×6×8×8 in B" in lines[-3]
    assert lines[-1] == "1 of 1 tensor diverge"
    assert parsed(diff(a.path, b.path, "--glob", "unet.conv_in", "--json"))["layers"][0]["worst"] is None


def test_a_broken_chunk(a: Trace, tmp_path: Path, diff: Diff, capsys: pytest.CaptureFixture[str]) -> None:
    """A tensor that cannot be read is named, and neither a line nor the exit code says that the runs agree."""
    b = Path(shutil.copytree(a.path, tmp_path / "broken.zarr"))
    chunk = next(file for file in (b / "unet" / "conv_in" / "output").iterdir() if file.name.startswith("c"))
    chunk.write_bytes(chunk.read_bytes()[:2500])
    code, lines = diff(a.path, b)
    assert code == 2
    assert "1 of 9 tensors cannot be read, the first unet.conv_in:output at step" in lines[0]
    assert main(["diff", str(a.path), str(b)]) == 2
    shown = capsys.readouterr().out
    assert "unreadable 1 tensor, the first unet.conv_in:output: " in shown
    assert shown.endswith("no divergence in the 8 that can be read of 9 tensors\n")
    assert parsed(diff(a.path, a.path, "--json"))["unreadable"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rename", "unet"], "does not say what a module is called"),
        (["--rename", "unet.**=port.*"], "have not the same wildcards"),
        (["--tolerance", "-1"], "a tolerance of -1.0"),
        (["--tolerance", "nan"], "a tolerance of nan"),
        (["--map", "{folder}/none.json"], "names cannot be read"),
        (["--map", "{folder}/list.json"], "holds a list"),
        (["--map", "{folder}/number.json"], "'unet' is called 3"),
        (["--map", "{folder}/dots.toml"], "in TOML a name with dots is quoted"),
        (["--map", "{folder}/torn.json"], "names cannot be read"),
        (["--rename", "unet=other", "--rename", "unet.**=other.**"], "say what it is called there"),
    ],
)
def test_bad_input(a: Trace, tmp_path: Path, diff: Diff, options: list[str], message: str) -> None:
    """What cannot be done is said in one line, with exit code 2."""
    files = {"list.json": "[1]", "number.json": '{"unet": 3}', "dots.toml": 'unet.x = "port"', "torn.json": '{"unet'}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    code, lines = diff(a.path, a.path, *(option.format(folder=tmp_path) for option in options))
    assert code == 2
    assert len(lines) == 1 and lines[0].startswith("dxray: ") and message in lines[0]


def test_runs_without_a_common_step(a: Trace, tmp_path: Path, diff: Diff) -> None:
    """Where no step belongs to another, nothing says that the runs agree."""
    code, lines = diff(a.path, record(tmp_path / "b.zarr", steps=0).path)
    assert code == 2 and len(lines) == 1
    code, lines = diff(a.path, record(tmp_path / "c.zarr", steps=1, every=0).path, "--link", "sigma")
    assert code == 2 and "by sigma; link them in another way" in lines[-1]


def test_no_terminal_is_controlled(tmp_path: Path, diff: Diff) -> None:
    """Control characters in the names of a trace are shown as escapes."""
    first = record(tmp_path / "a.zarr", component="un\x1bet")
    second = record(tmp_path / "b.zarr", component="un\x1bet", seed=1)
    code, lines = diff(first.path, second.path)
    assert code == 1
    assert not any("\x1b" in line for line in lines)
