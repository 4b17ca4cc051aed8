"""What could not be compared is no agreement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_xray.tracer import Tracer
from diffusion_xray.tracer.cli import main

from ...parting import record


class Skipping(nn.Module):
    """Two layers, of which one is left out at some steps, as caches of features do."""

    def __init__(self, skipped: set[int]) -> None:
        super().__init__()
        self.skipped = skipped
        self.always, self.sometimes = nn.Identity(), nn.Identity()

    def forward(self, x: Tensor, step: int) -> Tensor:
        """As it came in."""
        return self.always(x) if step in self.skipped else self.sometimes(self.always(x))  # type: ignore[no-any-return]


def skipping(path: Path, *steps: int) -> Path:
    """A trace of three steps, at some of which a layer was not called."""
    model = Skipping(set(steps))
    with Tracer({"unet": model}, path) as tracer:
        for step in range(3):
            tracer.step(step)
            model(torch.ones(1, 2), step)
    return path


def two_parts(path: Path, **names: str) -> Path:
    """A trace of a network and an encoder under these names."""
    parts: dict[str, nn.Module] = {names.get(name, name): nn.Identity() for name in ("unet", "encoder")}
    with Tracer(parts, path) as tracer:
        for part in parts.values():
            part(torch.ones(1, 2))
        tracer.step(None)
    return path


def diff(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    """Exit code, output, and error."""
    code = main(["diff", *map(str, arguments)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 2, "component unet of A was not compared; component port of B was not compared"),
        (["--rename", "unett.**=port.**"], 2, '"unett.**=port.**" brings no layers together'),
        (["--rename", "unet.**=port.**", "--rename", "encoder.x=encoder.y"], 2, '"encoder.x=encoder.y" brings'),
        (["--rename", "unet.**=port.**"], 0, ""),
        (["--glob", "encoder**"], 0, ""),
    ],
)
def test_a_component_that_one_run_calls_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, words: str
) -> None:
    """Where not one layer of a component has a partner, or a name fits nothing, that is said, and is no success."""
    a, b = two_parts(tmp_path / "a.zarr"), two_parts(tmp_path / "b.zarr", unet="port")
    found, _, error = diff(capsys, a, b, *options)
    assert (found, words in error) == (code, True)


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ('{"unet": "port", "unet.never_called": "port.never_called"}', 0),
        ('{"unet": "port", "encoder": "encoda"}', 2),
        ('{"unets": "port"}', 2),
    ],
)
def test_files_of_names(tmp_path: Path, capsys: pytest.CaptureFixture[str], names: str, code: int) -> None:
    """A file may name layers that were never called; one that was called and finds nothing is said."""
    a, b = two_parts(tmp_path / "a.zarr"), two_parts(tmp_path / "b.zarr", unet="port")
    (tmp_path / "names.json").write_text(names)
    assert diff(capsys, a, b, "--map", tmp_path / "names.json")[0] == code


def test_a_wrong_name_beside_a_divergence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that fits nothing is an error also where something else diverges; without it that is the answer."""
    a, b = record(tmp_path / "a.zarr").path, record(tmp_path / "b.zarr", seed=1).path
    assert diff(capsys, a, b)[0] == 1
    code, out, _ = diff(capsys, a, b, "--rename", "nothing.**=at.all.**")
    assert code == 2 and "first: unet.conv_in:output at step 0" in out


def test_a_layer_that_one_run_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A layer that ran at fewer steps in one of the runs was not compared at the others."""
    a, b = skipping(tmp_path / "a.zarr"), skipping(tmp_path / "b.zarr", 1)
    code, out, error = diff(capsys, a, b)
    assert code == 2 and "tensor unet.sometimes:output was seen in one run alone at some steps" in error
    assert "not known" in out
    assert diff(capsys, b, b)[0] == 0


def test_parts_without_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a slice of a layer, statistics alone tell nothing."""
    a, b = (record(tmp_path / f"{name}.zarr", capture="statistics").path for name in "ab")
    names = tmp_path / "names.json"
    names.write_text('{"unet.conv_in": {"to": "unet.conv_in", "slices": [0, 4], "axis": 1}}')
    code, _, error = diff(capsys, a, b, "--map", names)
    assert code == 2 and "nothing is known of tensor unet.conv_in:output" in error
