"""Recipes of another package, some of which fail."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffusion_xray.tracer.plugins import PLUGINS

KITCHEN = '''
"""Meals, quick and slow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch

from diffusion_xray.pipelines.recipes.option_types import Between, Called, Count
from diffusion_xray.tracer.errors import RecipeError

if TYPE_CHECKING:
    from diffusion_xray.pipelines.recipes.lab import Lab


@torch.no_grad()
def soup(
    lab: Lab,
    *,
    spoons: int = 3,
    heat: float = 0.5,
    name: str = "leek & <potato>",
    hot: bool = True,
    size: Literal["small", "big"] = "small",
    level: Literal[1, 2] = 1,
    herbs: tuple[str, ...] = (),
    times: tuple[int, ...] = (1, 2),
    book: Path | None = None,
) -> None:
    """Soup: 100 % <b>hot</b>.

    Stirred as long as it takes:

      t = n * s

      Cook 1999, Soups; https://example.org/soups?a=1&b=2

    Then eaten.

    Args:
        spoons: How many, of those
            that are clean.
        heat: From 0 to 1.
        name: What it is called.
        hot: Whether it is 100 % hot.
        size: Of the bowl.
        level: Of the stove.
        herbs: What to strew on it.
        times: When to stir.
        book: Where it is written.
    """
    from PIL import Image

    model = torch.nn.Linear(2, 2)
    with lab.trace({"model": model}) as tracer:
        for step in range(spoons):
            tracer.step(step, timestep=step)
            model(torch.ones(1, 2))
    lab.found("spoons", spoons, "tsp")
    lab.found("heat", heat or float("nan"))
    lab.figure("bowl", Image.new("RGB", (8, 8), "red"), f"A bowl of {name}")
    lab.figure("film", [Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")], "Stirring")


def stew(
    lab: Lab,
    *,
    cooks: Count = 1,
    share: Annotated[float, Between(0, 1)] = 0.5,
    salt: float = 1.0,
    days: tuple[Annotated[int, Between(high=7)], ...] = (1,),
    names: tuple[str, ...] = ("good stew", "plain"),
    cellar: Annotated[Path, Called("DIR")] | None = None,
    seed: int = 0,
) -> None:
    """Stew: with all that can be said of an option.

    Args:
        cooks: How many.
        share: Of the pot.
        salt: In spoons.
        days: When it is eaten.
        names: How it is called.
        cellar: Where it is kept.
        seed: Of the carrots.
    """


def burnt(lab: Lab) -> None:
    """Burnt: it was left on the stove."""
    raise ZeroDivisionError("black \\x1b[31m<smoke>")


def scorched(lab: Lab, *, heat: float = 1.0, level: int = 1, seed: int = 0) -> None:
    """Scorched: it bears no other heat."""
    if heat != 1:
        raise ValueError(f"the pan melts at {heat}\\n  and drips")


def refused(lab: Lab) -> None:
    """Refused: nobody wants it."""
    raise RecipeError("give --model something to eat")


def greedy(lab: Lab) -> None:
    """Greedy: more than there is."""
    raise MemoryError


def left(lab: Lab) -> None:
    """Left: the cook went home."""
    raise SystemExit(7)


def stopped(lab: Lab) -> None:
    """Stopped: Ctrl-C."""
    raise KeyboardInterrupt


def odd(lab: Lab, *, pot: dict[str, int] | None = None) -> None:
    """Odd: an option that cannot be one."""


def bare(lab: Lab, *, pot: int) -> None:
    """Bare: an option without a default."""


def taken(lab: Lab, *, out: int = 1) -> None:
    """Taken: an option of every recipe."""


number = 7
'''

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put modules and the entry points of their recipes where packages are found."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv(PLUGINS)
    before = set(sys.modules)

    def put(files: dict[str, str], **recipes: str) -> None:
        for name, code in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(code)
        info = folder / f"recipes{len(list(folder.iterdir()))}-0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {info.name.partition('-')[0]}\nVersion: 0.1\n")
        lines = (f"{name.replace('_', '-')} = {target}\n" for name, target in recipes.items())
        (info / "entry_points.txt").write_text(f"[diffusion_xray.recipes]\n{''.join(lines)}")

    yield put
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("kitchen", "one_word"):
            del sys.modules[name]


@pytest.fixture
def kitchen(install: Install) -> None:
    """A package of recipes in the chapter "kitchen"; "absent" and "nothing" are named by it and not there."""
    names = ["soup", "stew", "burnt", "scorched", "refused", "greedy", "left", "stopped"]
    names += ["odd", "bare", "taken", "number", "nothing"]
    files = {"kitchen/__init__.py": '"""From the kitchen."""\n', "kitchen/meals.py": KITCHEN}
    files["kitchen/torn.py"] = "def torn(:\n"
    entries = {name: f"kitchen.meals:{name}" for name in names}
    install(files, **entries, absent="kitchen.nowhere:absent", torn="kitchen.torn:torn")
