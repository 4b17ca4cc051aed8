"""Names of any length and script: of modules, components, records, encoders and outputs."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from diffusion_xray.tracer import Trace, Tracer
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.layout import as_text, encode_segment, module_group

from ..families import FAMILIES

LONG = ["x" * 255, "x" * 256, "名" * 28, "名" * 29, "名" * 2000, "\ud800", "\ud801", "_" * 300]
ODD = [" ", "*", "a/b", "%2e", "..", "\x1b[31m", "con", "_io", "%-", "emoji 😀", "İ", "\x00", "é", "e\u0301"]

names = st.one_of(
    st.sampled_from([name for name in LONG + ODD if "." not in name]),
    st.text(st.characters(exclude_characters="."), min_size=1, max_size=400),
    st.text("ab", min_size=250, max_size=260),
)


def trace_of(listed: list[str], path: Path) -> Trace:
    """A trace of one layer for each name, the first giving ones, the second twos, ..."""
    model = nn.ModuleDict()
    for name in listed:
        model._modules[name] = nn.Identity()  # as a checkpoint may, without the checks of add_module
    with Tracer(model, path, capture="all", overwrite=True) as tracer:
        for number, layer in enumerate(model.values()):
            layer(torch.full((1, 2), float(number + 1)))
    return tracer.trace


@settings(max_examples=40)
@given(st.lists(names, min_size=1, max_size=5, unique=True))
def test_every_name_is_kept_and_found_again(listed: list[str]) -> None:
    """Each layer is stored under its full name, whatever that is, and the store opens in zarr as well."""
    with tempfile.TemporaryDirectory() as folder:
        trace = trace_of(listed, Path(folder) / "run.zarr")
        assert trace.info.status == "complete"
        assert not trace.info.gaps
        for number, name in enumerate(listed):
            site = trace.site(f"model.{as_text(name)}")
            np.testing.assert_array_equal(trace.tensor(site), np.full((1, 2), number + 1.0))
            assert all(len(part.encode()) <= 200 for part in site.array.split("/"))
            values = np.asarray(zarr.open_array(Path(folder) / "run.zarr" / site.array)[:])
            assert values.ravel()[0] == number + 1
        assert len(trace) == len(listed) + ("model" in trace)


@given(st.lists(names, min_size=2, max_size=2, unique=True))
def test_two_names_have_two_places(pair: list[str]) -> None:
    """What is cut keeps apart what was apart, and never looks like another name that was not cut."""
    one, other = map(encode_segment, pair)
    if as_text(pair[0]) != as_text(pair[1]):
        assert one != other
    assert max(len(one), len(other)) <= 160


def test_a_deep_path_fits_a_file_system() -> None:
    """A path of many long names is shorter than a system's limit, and that of another module differs."""
    deep = ".".join(["unet", *["block" * 25] * 40])
    assert len(module_group(f"{deep}.a", has_children=True)) < 2000
    assert module_group(f"{deep}.a", has_children=True) != module_group(f"{deep}.b", has_children=True)


def test_long_names_are_listed_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`dxray ls` and patterns use the full name."""
    name = "层" * 60
    trace_of([name, "other"], tmp_path / "run.zarr")
    assert main(["ls", str(tmp_path / "run.zarr"), f"model.{name[:10]}*", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert f"model.{name}" in json.dumps(listed, ensure_ascii=False) and "model.other" not in json.dumps(listed)


class Keyed(nn.Module):
    """Returns tensors by keys of all kinds."""

    def forward(self, x: Tensor) -> dict[Any, Tensor]:
        """Return them."""
        return {"k" * 300: x, "钥" * 100: x + 1, "\ud800": x + 2}


def test_outputs_and_records_have_long_names(tmp_path: Path) -> None:
    """Keys of an output and names of records may be long, or no text."""
    with Tracer(Keyed(), tmp_path / "run.zarr", capture="all") as tracer:
        tracer._target.components["model"](torch.ones(1, 2))
        tracer.record("r" * 400, torch.ones(3))
        tracer.record("\ud800", torch.zeros(3))
    trace = tracer.trace
    assert not trace.info.gaps
    stored = [site for module in trace.modules.values() for site in module.sites if site.array]
    assert len(stored) >= 3
    for site in stored:
        assert np.isfinite(trace.tensor(site)).all()


def test_an_encoder_keeps_its_name(tmp_path: Path) -> None:
    """The texts of an encoder with a name that is no file's are found under that name."""
    family = FAMILIES["sd"]()
    parts = family.pipeline.components
    name = "文" * 100
    with (
        torch.no_grad(),
        Tracer({name: parts["text_encoder"], "tokenizer": parts["tokenizer"]}, tmp_path / "run.zarr") as tracer,
    ):
        ids = parts["tokenizer"](["a red circle"], return_tensors="pt").input_ids
        parts["text_encoder"](ids)
    (prompt,) = tracer.trace.prompts
    assert prompt.encoder == name
    assert all(len(os.fsencode(path.name)) <= 200 for path in (tmp_path / "run.zarr").rglob("*"))
