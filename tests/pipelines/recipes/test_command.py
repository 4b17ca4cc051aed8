"""`dxray run`."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from diffusion_xray.pipelines.recipes.registry import list_recipes
from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.commands.completion import candidates

from .conftest import Install

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "recipe_plugin"


def test_list(kitchen: None, capsys: pytest.CaptureFixture[str]) -> None:
    """`dxray run` lists every recipe in a line below its chapter; --json has the same for programs."""
    assert main(["run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines.index("Sampling loops, written out") < lines.index("From the kitchen")
    (soup,) = [line for line in lines if line.startswith("  soup ")]
    assert soup.endswith("  Soup: 100 % <b>hot</b>")
    assert main(["run", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed] == [it.name for it in list_recipes()]
    assert {"name": "soup", "chapter": "kitchen", "summary": "Soup: 100 % <b>hot</b>"} in listed


def test_help(kitchen: None, capsys: pytest.CaptureFixture[str]) -> None:
    """`dxray run NAME --help` has the whole explanation, the recipe's options and those of every recipe."""
    with pytest.raises(SystemExit) as ended:
        main(["run", "soup", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: dxray run soup [-h]")
    assert "  t = n * s" in text and "--no-hot" in text and "options of every recipe:" in text


def test_run(kitchen: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Findings, figures with their captions, and the command that opens the trace are printed."""
    out = tmp_path / "my runs"
    assert main(["run", "soup", "--spoons", "2", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[:2] == ["spoons: 2 tsp", "heat: 0.5"]
    assert f"{out}/soup/bowl.png\n  A bowl of leek & <potato>\n" in text
    assert text.endswith(f"dxray view '{out}/soup/trace.zarr'\n")
    assert open_trace(out / "soup" / "trace.zarr").n_steps == 2
    assert sorted(path.name for path in (out / "soup").iterdir()) == ["bowl.png", "film.gif", "trace.zarr"]


def test_json(kitchen: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json all of it is data, with the command that does it again."""
    assert main(["run", "--json", "--out", str(tmp_path), "soup", "--name", "a pea", "--no-hot", "--heat", "0"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["findings"] == {"spoons": 3, "heat": None}
    assert outcome["command"] == "dxray run soup --heat 0.0 --name 'a pea' --no-hot"
    assert outcome["traces"] == [str(tmp_path / "soup" / "trace.zarr")]
    assert outcome["figures"][0] == {"file": str(tmp_path / "soup" / "bowl.png"), "caption": "A bowl of a pea"}


@pytest.mark.parametrize("before", [True, False])
def test_options_of_every_recipe_on_both_sides(
    before: bool, kitchen: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--out and --model count before the recipe's name and after it; the later one wins."""
    common = ["--out", str(tmp_path / "there"), "--model", "some/model"]
    command = ["run", *common, "soup", "--json"] if before else ["run", "soup", *common, "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "some/model"
    assert (tmp_path / "there" / "soup" / "bowl.png").is_file()
    assert main(["run", *common, "soup", "--out", str(tmp_path / "other")]) == 0
    assert (tmp_path / "other" / "soup" / "bowl.png").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["suop"], r"there is no recipe 'suop': dxray run lists them\. Did you mean soup\?"),
        (["suop", "--help"], "there is no recipe 'suop'"),
        (["refused"], "give --model something to eat"),
        (["absent"], r"recipe 'absent' does not load: No module named 'kitchen\.nowhere'"),
        (["greedy"], "memory ran out: try fewer steps"),
        (
            ["scorched", "--heat", "2"],
            r"scorched cannot run with --heat 2\.0: ValueError in meals\.py, line \d+: the pan melts at 2\.0$",
        ),
        (["scorched", "--heat", "nan"], "--heat nan: give a finite number"),
        (["scorched", "--seed", "-1"], "--seed -1: give 0 to 9223372036854775807"),
        (["odd"], "recipe 'odd' cannot be run: option 'pot'"),
        (["taken"], "recipe 'taken' cannot be run: .*conflicting option string"),
        (["soup", "--device", "x", "--all"], None),
        (["--all", "soup"], "--all runs every recipe: leave out 'soup', or --all"),
    ],
)
def test_one_line_of_error(
    words: list[str], told: str | None, kitchen: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be done ends with code 2 and, where it is not a matter of syntax, one line."""
    try:
        code: object = main(["run", "--out", str(tmp_path), *words])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    if told is not None:
        (line,) = shown.err.splitlines()
        assert re.search(f"^dxray: {told}", line), line


def test_an_out_folder_that_cannot_be(kitchen: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where --out is a file, there is one line and code 2, for one recipe and for all."""
    taken = tmp_path / "taken"
    taken.write_text("a file")
    for words in (["soup"], ["--all"]):
        assert main(["run", "--out", str(taken), *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(taken) in line and line.startswith("dxray: cannot ")


def test_the_errors_of_a_recipe_are_its_own(kitchen: None, tmp_path: Path) -> None:
    """What a recipe raises by mistake is not hidden from who writes it."""
    with pytest.raises(ZeroDivisionError, match="black"):
        main(["run", "burnt", "--out", str(tmp_path)])


def test_the_example_package(install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The package of the documentation is listed once installed, runs on the embedded model, and finds something."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    ((name, target),) = project["entry-points"]["diffusion_xray.recipes"].items()
    install({"one_word.py": (EXAMPLE / "one_word.py").read_text()}, **{name.replace("-", "_"): target})
    assert main(["run"]) == 0
    listed = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["one-word", "One word: two prompts from the same noise"] in listed
    assert main(["run", name, "--steps", "3", "--out", str(tmp_path), "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert 0 < outcome["findings"]["pixels that change visibly"] < 60
    assert [Path(path).name for path in outcome["traces"]] == ["first.zarr", "second.zarr"]


def test_completion(kitchen: None) -> None:
    """Names of recipes are completed, then the options of the one named; values are left to the shell."""
    assert candidates(["run"], "so") == ["soup"]
    assert {"ddim", "cascade", "soup"} <= set(candidates(["run", "--out", "x"], ""))
    assert candidates(["run", "--out"], "") == candidates(["run", "soup", "--model"], "") == []
    assert candidates(["run"], "--a") == ["--all"]
    assert candidates(["run", "soup"], "--h") == ["--heat", "--hot", "--herbs", "--help"]
    assert {"--no-hot", "--model", "--json"} <= set(candidates(["run", "--json", "soup", "--heat", "1"], "--"))
    assert candidates(["run", "soup"], "") == []
    assert candidates(["run", "suop"], "") != []
