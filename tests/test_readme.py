"""The guides hold what they show: their examples run, their commands exist, their links lead somewhere."""

import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion_xray.pipelines.shapes.grounding_report import ALL_STEPS
from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.attention import measures
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.plugins import PLUGINS, TAPS
from diffusion_xray.tracer.taps.attachment import load_taps

ROOT = Path(__file__).parents[1]
GUIDES = (
    "README.md",
    "docs/tracing.md",
    "docs/attention.md",
    "docs/recipes.md",
    "docs/compare.md",
    "docs/format.md",
)
PAGES = ("README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))), "benchmarks/README.md")
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
FILE_NAME = re.compile(r"`([\w./-]+/[\w.-]+\.(?:md|py|toml|svg|json|txt))`")

Run = Callable[[str], Path]


def blocks(page: str, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a language, each with the line it starts on."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start(2)), m[2]) for m in BLOCK.finditer(text) if m[1] == language]


def commands(page: str) -> list[list[str]]:
    """The command lines of a page's console blocks, as words without their comments."""
    lines = [line for _, block in blocks(page, "console") for line in block.splitlines()]
    return [shlex.split(line.removeprefix("$ "), comments=True) for line in lines if line.startswith("$ ")]


def runs_the_demo(words: list[str]) -> bool:
    """Whether a command traces the demo without taking the terminal."""
    return words[:2] == ["dxray", "demo"] and "--no-view" in words


@pytest.fixture(scope="module")
def run_guide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs a page's Python blocks in order, once, in one namespace and a folder of its own; returns the folder.

    A demo that the page asks for is there before.
    """
    folders: dict[str, Path] = {}
    before = Path.cwd()

    def run(page: str) -> Path:
        if page not in folders:
            folder = tmp_path_factory.mktemp(Path(page).stem)
            os.chdir(folder)
            for words in commands(page):
                if runs_the_demo(words):
                    assert main(words[1:]) == 0, words
            namespace: dict[str, Any] = {"__name__": "guide"}
            for line, block in blocks(page, "python"):
                code = compile("\n" * line + block, ROOT / page, "exec")  # a traceback names the page's line
                exec(code, namespace)
            folders[page] = folder
        os.chdir(folders[page])
        return folders[page]

    try:
        yield run
    finally:
        os.chdir(before)


@pytest.fixture(autouse=True)
def _stay_here() -> Iterator[None]:
    """A test leaves the working folder as it found it."""
    before = Path.cwd()
    yield
    os.chdir(before)


@pytest.mark.filterwarnings("ignore:a value is not finite")
@pytest.mark.parametrize("page", GUIDES)
def test_the_examples_run(page: str, run_guide: Run) -> None:
    """Every Python block of a guide runs, in order, and leaves traces behind."""
    assert list(run_guide(page).rglob("*.zarr"))


@pytest.mark.filterwarnings("ignore:a value is not finite")
@pytest.mark.parametrize("page", GUIDES)
def test_the_commands_run(page: str, run_guide: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Every `dxray` line of a guide succeeds on the traces its examples made; `view` and `demo` know their options."""
    run_guide(page)
    for words in commands(page):
        if words[0] != "dxray" or runs_the_demo(words):
            continue
        if words[1] in ("view", "demo") or words[-1] == "--help":  # the first two take the terminal
            with pytest.raises(SystemExit) as ended:
                main([*words[1:], "--help"])
            assert ended.value.code == 0, words
        else:
            passed = (0, 1) if words[1] == "diff" else (0,)  # 1: the two traces differ
            assert main(words[1:]) in passed, words
        assert capsys.readouterr().out, words


def test_the_picture_of_attention_is_what_its_command_draws(run_guide: Run) -> None:
    """The last command of the README's section on attention draws the picture that the section shows."""
    folder = run_guide("README.md")
    command = next(words for words in commands("README.md") if "--grid" in words)
    assert main(command[1:]) == 0
    shipped = ROOT / "docs/images/attention.png"
    assert shipped.stat().st_size < 300_000
    with Image.open(folder / command[-1]) as drawn, Image.open(shipped) as shown:
        assert drawn.size == shown.size
        apart = np.abs(np.asarray(drawn, float) - np.asarray(shown, float))
    assert apart.mean() < 3  # of 255: other builds of torch round differently


def test_the_readme_says_what_the_grounding_report_found() -> None:
    """The figures of colour words in the README are those of the shipped report."""
    report = json.loads((ROOT / "pipelines/shapes/weights/grounding.json").read_text(encoding="utf-8"))
    scores = report["classes"]["colour"]["scores"]
    found, chance = scores[ALL_STEPS], scores["uniform"]
    sentence = (
        f"map touches its object in {100 * found['pointing']:.0f} % of the cases ({100 * chance['pointing']:.0f} % by "
        f"chance), and the two overlap by an IoU of {found['iou']:.2f} ({chance['iou']:.2f})"
    )
    assert sentence in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_attention_guide_holds_for_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the guide to attention shows of a trace of its own works on the demo's as well."""
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--out", "attention.zarr", "--no-view", "--steps", "8"]) == 0
    (_, recording), *reading = blocks("docs/attention.md", "python")
    assert "Tracer(pipe" in recording
    namespace: dict[str, Any] = {"__name__": "guide", "measures": measures, "trace": open_trace("attention.zarr")}
    for line, block in reading:
        exec(compile("\n" * line + block, ROOT / "docs/attention.md", "exec"), namespace)
    for words in commands("docs/attention.md"):
        assert main(words[1:]) == 0, words
        assert capsys.readouterr().out, words


def test_the_example_tap_is_found_once_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tap package of the guide is loaded by its entry point."""
    source = next(block for _, block in blocks("docs/tracing.md", "python") if "class ChannelMeans" in block)
    project = tomllib.loads(next(block for _, block in blocks("docs/tracing.md", "toml")))["project"]
    entries = "\n".join(f"{name} = {value}" for name, value in project["entry-points"][TAPS].items())
    installed = tmp_path / "channel_means-0.1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    (installed / "entry_points.txt").write_text(f"[{TAPS}]\n{entries}\n")
    (tmp_path / "channel_means.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(PLUGINS)
    taps, failed = load_taps()
    assert not failed
    assert type(taps["channel-means"]).__name__ == "ChannelMeans"


@pytest.mark.parametrize("page", PAGES)
def test_dev_knows_its_commands(page: str) -> None:
    """Every `./dev` line of a page names a sub-command that `./dev help` lists."""
    if os.name != "posix":
        pytest.skip("./dev is a shell script")
    usage = subprocess.run([ROOT / "dev", "help"], check=True, capture_output=True, text=True).stdout
    known = re.findall(r"^  (\w+)", usage, re.MULTILINE)
    asked = [words[1] for words in commands(page) if words[0] == "./dev"]
    assert [command for command in asked if command not in known] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every file that a page links to, shows or names with its folder exists."""
    text = (ROOT / page).read_text(encoding="utf-8")
    prose = BLOCK.sub("", text)
    linked = {((ROOT / page).parent / target) for target in LINK.findall(prose) if "://" not in target}
    named = {ROOT / name for name in FILE_NAME.findall(prose)}
    missing = sorted(path.resolve().relative_to(ROOT).as_posix() for path in linked | named if not path.exists())
    assert missing == []


def test_the_first_example_is_short() -> None:
    """Recording takes no more than fifteen lines."""
    assert len(blocks("README.md", "python")[0][1].splitlines()) <= 15
