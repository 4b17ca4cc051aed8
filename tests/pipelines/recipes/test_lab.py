"""What a recipe is handed."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.errors import StoreError


def test_what_it_leaves(tmp_path: Path) -> None:
    """Traces, figures and numbers are kept in order, and the folder is made when it is needed."""
    lab = Lab(tmp_path / "a" / "b", quiet=True)
    assert not lab.folder.exists()
    lab.found("share", 12.34567, "%")
    lab.found("error", torch.tensor(0.5).item())
    assert [str(finding) for finding in lab.findings] == ["share: 12.35 %", "error: 0.5"]
    assert lab["share"] == 12.34567
    for _ in range(2):  # a trace takes the place of an older one
        with lab.trace(torch.nn.Linear(1, 1), "linear", capture="statistics") as tracer:
            tracer.record("x", torch.ones(1))
    assert open_trace(lab.traces[-1]).info.status == "complete"
    picture = Image.new("RGB", (4, 4), "red")
    lab.figure("still", picture, "A picture")
    lab.figure("film", [picture, Image.new("RGB", (4, 4), "blue")], "A film")
    assert [shown.file.name for shown in lab.figures] == ["still.png", "film.gif"]
    with Image.open(lab.figures[1].file) as film:
        assert getattr(film, "n_frames", 1) == 2


def test_a_figure_on_a_full_disk(tmp_path: Path) -> None:
    """A figure that cannot be written is told of by its file, and is not in the list."""

    class Full:
        def savefig(self, path: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    lab, figure = Lab(tmp_path), Full()
    unwritable: Any = figure
    with pytest.raises(StoreError, match=r"cannot write .*x\.png: No space left on device"):
        lab.figure("x", unwritable, "")
    assert lab.figures == []


def test_random_numbers_are_the_same_everywhere() -> None:
    """A seed gives the same numbers each time, drawn on the CPU."""
    first, second = (torch.randn(3, generator=Lab.generator(7)) for _ in range(2))
    assert torch.equal(first, second) and Lab.generator(7).device.type == "cpu"
