"""Every recipe, one after another."""

from __future__ import annotations

import argparse
import gc
import json
import weakref
from pathlib import Path

import pytest

from diffusion_xray.pipelines.recipes.gallery import run_all
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.recipes.registry import Listed, list_recipes
from diffusion_xray.tracer.errors import StoreError

from .conftest import Install


def options(out: Path, *, as_json: bool = False) -> argparse.Namespace:
    """Options of every recipe, as the command reads them."""
    return argparse.Namespace(out=out, model=None, device=None, json=as_json)


def named(*names: str) -> list[Listed]:
    """Some of the recipes that are installed, in the order given."""
    known = {listed.name: listed for listed in list_recipes()}
    return [known[name] for name in names]


def test_errors_do_not_end_the_others(kitchen: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each failure is on the page and told at the end by name; the rest is run, and the exit code is 1."""
    names = ("burnt", "refused", "greedy", "left", "odd", "absent", "torn", "soup")
    assert run_all(options(tmp_path), named(*names)) == 1
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 'index.html'}\n"
    told = dict(line.removeprefix("dxray: ").split(": ", 1) for line in shown.err.splitlines() if ": " in line[:20])
    assert set(told) >= set(names[:-1])
    assert told["burnt"].startswith("ZeroDivisionError in meals.py, line ")
    assert told["burnt"].endswith(r": black \x1b[31m<smoke>")
    assert told["refused"] == "give --model something to eat"
    assert told["absent"] == "recipe 'absent' does not load: No module named 'kitchen.nowhere'"
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "1 of 8 recipes, on the embedded model, 7 failed" in page
    assert page.count('class="error"') == 7 and "&lt;smoke&gt;" in page and "<smoke>" not in page
    assert "A bowl of leek &amp; &lt;potato&gt;" in page


def test_all_well(kitchen: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where none failed the exit code is 0; with --json nothing but the outcomes is printed."""
    assert run_all(options(tmp_path, as_json=True), named("soup")) == 0
    shown = capsys.readouterr()
    (outcome,) = json.loads(shown.out)
    assert outcome["recipe"] == "soup" and outcome["findings"]["spoons"] == 3
    assert shown.err == ""


def test_ctrl_c_leaves_what_is_done(kitchen: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends the run; the page has the recipes before it, and what there is to come."""
    with pytest.raises(KeyboardInterrupt):
        run_all(options(tmp_path), named("soup", "stopped", "burnt"))
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "1 of 3 recipes" in page and 'id="soup"' in page and 'id="stopped"' not in page
    assert capsys.readouterr().err.endswith(f"dxray: 1 of 3 recipes are in {tmp_path / 'index.html'}\n")


def test_a_full_disk(kitchen: None, tmp_path: Path) -> None:
    """A page that cannot be written is one line; the one before is whole."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    run_all(options(tmp_path, as_json=True), named("soup"))
    before = (tmp_path / "index.html").read_bytes()
    (tmp_path / "index.partial").symlink_to("/dev/full")
    with pytest.raises(
        StoreError, match=r"^cannot write .*index\.html: No space left on device; choose another --out$"
    ):
        run_all(options(tmp_path, as_json=True), named("soup"))
    assert (tmp_path / "index.html").read_bytes() == before


def test_nothing_of_a_recipe_stays_in_memory(install: Install, tmp_path: Path) -> None:
    """When the next recipe runs, the models and figures of the one before are gone."""
    code = '''
import gc, weakref
from diffusion_xray.pipelines.recipes.figures import new_figure

seen = []


def first(lab):
    """First: makes something large."""
    import torch
    model = torch.nn.Linear(100, 100)
    model.itself = [model]
    with lab.trace({"model": model}) as tracer:
        tracer.step(0)
        model(torch.ones(1, 100))
    figure, axes = new_figure()
    axes[0, 0].plot([1, 2])
    lab.figure("figure", figure, "A figure")
    seen.extend(map(weakref.ref, (model, figure, lab, tracer)))


def second(lab):
    """Second: looks whether it is there."""
    lab.found("left", sum(reference() is not None for reference in seen))
'''
    install({"kitchen/__init__.py": "", "kitchen/two.py": code}, first="kitchen.two:first", second="kitchen.two:second")
    gc.disable()
    try:
        assert run_all(options(tmp_path, as_json=True), named("first", "second")) == 0
    finally:
        gc.enable()
    assert "<td>left</td><td>0</td>" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_lab_is_let_go(tmp_path: Path) -> None:
    """What a lab has loaded goes with it."""
    lab = Lab(tmp_path, quiet=True)
    unet = weakref.ref(lab.pipeline().unet)
    assert unet() is not None
    del lab
    gc.collect()
    assert unet() is None
