"""Reading a trace: what it gives, while it is written and after, and what it does with one that lies."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
import zarr
from torch import nn

from diffusion_xray.tracer import (
    Capture,
    DxrayError,
    SiteNotFoundError,
    TraceFormatError,
    TraceNotFoundError,
    Tracer,
    open_trace,
)
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.description import describe_in_lines
from diffusion_xray.tracer.layout import MEASURED, STATISTICS

from .networks import Denoiser

GOLDEN = Path(__file__).parents[1] / "data" / "golden-v1.zarr"
GOLDEN_2 = GOLDEN.with_name("golden-v2.zarr")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the golden trace to tamper with."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "copy.zarr"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the root document of a trace."""
    file = path / "zarr.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


# The golden trace: these numbers never change. Where a test here fails, old traces can no longer be read.


def test_the_golden_tensors() -> None:
    """A trace of format 1 gives the tensors it was made with."""
    trace = open_trace(GOLDEN)
    conv_in = trace.tensor(trace.site("model.conv_in"), 1)
    assert conv_in.dtype == np.float32
    assert conv_in.shape == (1, 8, 4, 4)
    assert conv_in[0, 0, 0].tolist() == [
        -0.6196911931037903,
        1.5226764678955078,
        -2.0681419372558594,
        -1.6922805309295654,
    ]
    second = trace.tensor(trace.site("model.blocks.0.activation", call=1), 0)
    assert second[0, 0, 0, 2] == np.float32(0.034706935)
    assert (second == 0).sum() == 49
    assert trace.tensor(trace.site("records.ramp"), 1).tolist() == [0, 2, 4, 6]
    assert trace.tensor(trace.site("records.start")).tolist() == [[0, 1, 2], [3, 4, 5]]
    odd = trace.tensor(trace.site("records.odd"), 1).tolist()
    assert odd[:3] == [0, 1, 2]
    assert np.isnan(odd[3])
    assert np.isinf(odd[4])


def test_the_golden_statistics() -> None:
    """A trace of format 1 gives the statistics, histograms and coordinates it was made with."""
    trace = open_trace(GOLDEN)
    assert trace.n_steps == 2
    assert trace.timestep.tolist() == [500, 0]
    assert trace.sigma.tolist() == pytest.approx([3.44296724, 0.01000133])
    table = trace.table("model")
    assert table.column("std")[:, trace.site("model.conv_in").row].tolist() == pytest.approx([0.45412008, 1.60603566])
    assert table.captured[:, trace.site("model.conv_in").row].tolist() == [2, 2]
    assert table.captured[:, trace.site("model").row].tolist() == [1, 1]
    ramp = trace.table("records").values[1, trace.site("records.ramp").row]
    expected = {"min": 0, "max": 6, "mean": 3, "std": 5**0.5, "l2_norm": 56**0.5, "abs_max": 6, "zeros": 1, "count": 4}
    assert {name: ramp[STATISTICS.index(name)] for name in expected} == pytest.approx(expected)
    counts, lower, _ = trace.histogram(trace.site("records.ramp"), 1).finite()
    assert dict(zip(lower.tolist(), counts.tolist(), strict=True)) == {0: 1, 2: 1, 4: 1, 6: 1}
    assert trace.table("records", stepped=False).column("max")[0, 0] == 5


def test_the_golden_loop() -> None:
    """A trace of format 1 gives the loop it was made with: latents, prediction, x0 and thumbnails."""
    steps = open_trace(GOLDEN).steps
    assert steps["latents"].dims == ("step", "batch", "channel", "height", "width")
    assert np.array_equal(steps["latents"][1], steps["next_latents"][0])
    assert steps["latents"].values[1, 0, 0, 0, :2].tolist() == [-5.033230304718018, -2.732318162918091]
    assert steps["x0"].values[1, 0, 0, 0, 0] == np.float32(-5.030054)
    assert steps["model_output"].values[1, 0, 0, 0, 0] == np.float32(-0.3427513)
    assert steps["preview"].values[1, 0, 0, :2].tolist() == [[153, 255, 196], [117, 81, 213]]
    assert steps["timestep"].values.tolist() == [500, 0]


def test_the_golden_head() -> None:
    """A trace of format 1 tells how it was made, and its modules in call order."""
    trace = open_trace(GOLDEN)
    info = trace.info
    assert (info.format_version, info.status, info.pipeline) == (1, "complete", "")
    assert info.components == {"model": "Denoiser"}
    assert info.planned_steps == 2
    assert info.capture["modules"] == ["model.conv_in", "model.blocks.0", "model.blocks.0.activation"]
    assert info.preview == {"method": "principal components", "r2": None}
    model = [name for name in trace.modules if name.startswith("model")]
    assert model[:4] == ["model", "model.conv_in", "model.blocks.0", "model.blocks.0.activation"]
    assert trace.components == ("records", "model", "latents")
    assert trace.modules["model.blocks.0"].module_class == "Block"


def test_the_golden_trace_needs_no_reader_of_ours() -> None:
    """Plain xarray and plain Zarr read a trace of format 1."""
    with xarray.open_datatree(GOLDEN) as tree:
        assert tree.ds["step"].values.tolist() == [0, 1]
        assert tree.ds["committed"].values.tolist() == [1, 1]
        assert tree["model/conv_in"].ds["output"].values[1, 0, 0, 0, 0] == np.float32(-0.6196912)
        assert tree["records/ramp/_io"].ds["output"].values.tolist() == [[0, 1, 2, 3], [0, 2, 4, 6]]
        table = tree["statistics/records"].to_dataset()["statistics"]
        assert table.sel(site="records.ramp:output", statistic="max").values.tolist() == [3, 6]
    assert zarr.open_group(GOLDEN, mode="r").attrs["format_version"] == 1


def test_a_trace_of_format_2_has_every_shape_and_type() -> None:
    """Tensors that change their shape or type, and complex ones, are what they were made as."""
    trace = open_trace(GOLDEN_2)
    assert (trace.info.format_version, trace.info.status, trace.info.gaps) == (2, "complete", ())
    growing, changing, wave = (trace.site(f"records.{name}") for name in ("growing", "changing", "wave"))
    assert [trace.tensor(growing, step).tolist() for step in range(2)] == [[[0, 1]] * 2, [[0, 1, 2]] * 2]
    assert trace.tensor(changing, 0).tolist() == [1.5, -2.5]
    assert trace.tensor(changing, 1).tolist() == [2**40 + 1, 0]
    assert trace.tensor(wave, 1).tolist() == [6 + 8j, 0, -10 + 24j]
    table = trace.table("records")
    assert table.captured[:, growing.row].tolist() == [2, 3]
    assert table.column("max")[:, wave.row].tolist() == [13, 26]
    assert table.column("count")[:, growing.row].tolist() == [4, 6]
    assert [variant.array for variant in growing.variants] == ["records/growing/_io_shape1/output"]
    assert growing.strides == (0, 1)


def test_a_trace_of_format_2_tells_how_outputs_are_built() -> None:
    """The sites of a module say where in its output they were, and the first how it is built."""
    trace = open_trace(GOLDEN_2)
    first, hidden = trace.site("model"), trace.site("model", "output_1_hidden")
    assert (first.place, hidden.place) == ((0,), (1, "hidden"))
    nested = {"class": "dict", "items": [["hidden", "tensor"]], "length": 1}
    assert first.structure == {"class": "tuple", "items": [[0, "tensor"], [1, nested]], "length": 2}


def test_a_trace_of_format_2_needs_no_reader_of_ours() -> None:
    """Plain xarray opens all of it, and every group by itself; plain Zarr reads what it holds."""
    with xarray.open_datatree(GOLDEN_2) as tree:
        assert tree["records/growing/_io_shape1"].ds["output"].values[1].tolist() == [[0, 1, 2]] * 2
        assert tree["records/wave/_io"].ds["output"].values[0].tolist() == [3 + 4j, 0, -5 + 12j]
        for node in tree.subtree:
            with xarray.open_zarr(GOLDEN_2, group=node.path, chunks=None) as dataset:
                assert set(dataset.data_vars) == set(node.data_vars)
    assert zarr.open_group(GOLDEN_2, mode="r").attrs["format_version"] == 2


def test_both_formats_say_the_same_of_the_same_run() -> None:
    """What a trace of format 1 holds is in one of format 2 under the same names, with the same numbers."""
    old, new = open_trace(GOLDEN), open_trace(GOLDEN_2)
    for name, module in old.modules.items():
        for site in module.sites:
            other = new.site(name, site.port, site.call)
            assert (other.shape, other.dims, other.torch_dtype) == (site.shape, site.dims, site.torch_dtype)
            if site.array:
                assert np.allclose(old.tensor(site, 1), new.tensor(other, 1), rtol=1e-4, atol=1e-5, equal_nan=True)


# What cannot be opened.


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda path: None, TraceNotFoundError, "there is no trace at"),
        (lambda path: path.write_text("{}"), TraceFormatError, "holds no zarr.json"),
        (lambda path: path.mkdir(), TraceFormatError, "holds no zarr.json"),
        (lambda path: zarr.create_group(path, attributes={"a": 1}), TraceFormatError, "not one written by"),
        (zarr.create_group, TraceFormatError, "not one written by"),
    ],
    ids=["missing", "file", "empty folder", "foreign store", "bare store"],
)
def test_what_is_no_trace(tmp_path: Path, make: Callable[[Path], object], kind: type, words: str) -> None:
    """A path without a trace is a clear error of its own kind, and a built-in one for those who catch that."""
    path = tmp_path / "run.zarr"
    make(path)
    with pytest.raises(kind, match=words) as caught:
        open_trace(path)
    assert "run.zarr" in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError if kind is TraceNotFoundError else ValueError)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"trace"', '{"attributes": []}', '{"attributes": null}', "\ud800", "[" * 100_000],
    ids=["empty", "cut", "list", "null", "text", "attributes a list", "attributes null", "no unicode", "deep"],
)
def test_a_broken_root_document(copy: Path, text: str) -> None:
    """A root document that is damaged in any way is a `TraceFormatError`."""
    (copy / "zarr.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(TraceFormatError):
        open_trace(copy)


@pytest.mark.parametrize("version", [0, 3, 99, -1])
def test_a_newer_format_is_refused(copy: Path, version: int) -> None:
    """A trace of a format this version does not know says which, and what to do."""
    edit(copy, lambda document: document["attributes"].update(format_version=version))
    with pytest.raises(TraceFormatError, match=f"format {version}, .*reads up to 2; install a newer"):
        open_trace(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": "one"},
        {"format_version": None},
        {"format_version": [1]},
        {"planned_steps": "many"},
        {"taps": 7},
        {"seconds": "long"},
        {"components": ["model"], "call": 3, "gaps": {"a": 1}, "tap_failures": [1, None], "error": "x"},
    ],
    ids=str,
)
def test_attributes_of_the_wrong_type(copy: Path, change: dict[str, Any]) -> None:
    """Attributes that are not what they should be are refused or left out, never a puzzle."""
    edit(copy, lambda document: document["attributes"].update(change))
    try:
        trace = open_trace(copy)
    except TraceFormatError:
        return
    assert repr(trace)
    assert len(trace.modules) == 18
    assert trace.info.gaps == ()


# What a trace gives.


def test_an_unknown_name_lists_near_ones() -> None:
    """A module, port, component or step that is not there is a `KeyError` which says what is."""
    trace = open_trace(GOLDEN)
    with pytest.raises(KeyError, match=r"no module 'model.conv_inn' in .*Did you mean model.conv_in") as caught:
        trace["model.conv_inn"]
    assert isinstance(caught.value, SiteNotFoundError)
    with pytest.raises(SiteNotFoundError, match="Did you mean"):
        trace.site("conv_in")
    with pytest.raises(SiteNotFoundError, match=r"model has no 'output_7' .*it has output, output_1_hidden"):
        trace.site("model", "output_7")
    with pytest.raises(SiteNotFoundError, match=r"model.conv_in has no 'input'"):
        trace.site("model.conv_in:input")
    with pytest.raises(SiteNotFoundError, match=r"no component 'modle' .*it has records, model, latents"):
        trace.statistics("modle")
    for step in (2, -1):
        with pytest.raises(SiteNotFoundError, match=f"no step {step} .*it has 2 complete steps"):
            trace.tensor(trace.site("model.conv_in"), step)
        with pytest.raises(SiteNotFoundError, match=f"no step {step}"):
            trace.histogram(trace.site("model"), step)
    with pytest.raises(SiteNotFoundError, match=r"statistics only.*Capture\(modules='model'\)"):
        trace.tensor(trace.site("model"))


def test_a_module_is_a_dataset() -> None:
    """`trace[name]` holds the tensors and every statistic along the steps, with timestep and sigma as coordinates."""
    trace = open_trace(GOLDEN)
    dataset = trace["model.conv_in"]
    assert set(dataset) == {"output", "histogram", *MEASURED}
    assert dataset["std"].dims == ("step",)
    assert dataset["histogram"].dims == ("step", "bin")
    assert set(dataset.coords) == {"step", "timestep", "sigma"}
    assert dataset["timestep"].values.tolist() == [500, 0]
    assert dataset["output"].sel(step=1).shape == (1, 8, 4, 4)
    assert float(dataset["std"][1]) == pytest.approx(float(dataset["output"][1].std()), rel=1e-5)
    assert dataset.attrs == {"module": "model.conv_in", "class": "Conv2d"}
    assert dataset["output"].attrs["torch_dtype"] == "float32"
    twice = trace["model.blocks.0.activation"]
    assert {"output", "output_call1", "std", "output_call1_std"} <= set(twice)
    once = trace["records.start"]
    assert "step" not in once.dims
    assert float(once["mean"]) == 2.5


def test_statistics_of_a_component() -> None:
    """`trace.statistics` is one array with labels, so that any question is one selection."""
    array = open_trace(GOLDEN).statistics("records")
    assert array.dims == ("step", "site", "statistic")
    assert array["statistic"].values.tolist() == list(MEASURED)
    assert array["site"].values.tolist() == ["records.ramp:output", "records.odd:output"]
    assert array["timestep"].values.tolist() == [500, 0]
    assert float(array.sel(step=1, site="records.odd:output", statistic="nans")) == 1


def test_a_trace_without_a_loop(tmp_path: Path) -> None:
    """A model that ran outside of any loop has statistics without steps, and nothing else fails."""
    layer = nn.Linear(2, 3)
    parts = {"encoder": layer, "unet": Denoiser()}
    with Tracer(parts, tmp_path / "run.zarr") as tracer:
        layer(torch.ones(1, 2))
    trace = tracer.trace
    assert trace.n_steps == 0
    assert trace.statistics("encoder").dims == ("site", "statistic")
    assert "step" not in trace["encoder"].dims
    assert trace.tensor(trace.site("encoder")).shape == (1, 3)
    assert trace.steps.sizes == {}
    assert trace.step_array("latents", 0) is None
    assert (trace.prompts, trace.images) == ((), None)
    assert "steps    0" in repr(trace)
    with xarray.open_datatree(tmp_path / "run.zarr") as tree:
        assert tree["encoder"]["output"].shape == (1, 3)


@pytest.mark.filterwarnings("ignore:nothing was recorded")
def test_an_empty_trace(tmp_path: Path) -> None:
    """A trace in which nothing fired opens and says so."""
    with Tracer(Denoiser(), tmp_path / "run.zarr") as tracer:
        pass
    trace = tracer.trace
    assert (trace.n_steps, dict(trace.modules), trace.components) == (0, {}, ())
    assert trace.steps.sizes == {}
    assert list(trace.tables()) == []
    assert trace.timestep.size == trace.sigma.size == 0
    for command in ("info", "ls", "stats"):
        assert main([command, str(tmp_path / "run.zarr")]) == 0
    assert dict(describe_in_lines(trace))["first fault"] == "unknown, no value was recorded"


def test_reprs(copy: Path) -> None:
    """In a terminal a trace shows its steps, modules and components; in a notebook the same, escaped."""
    shown = repr(open_trace(copy))
    assert shown.startswith("<Trace copy.zarr>")
    assert "steps    2" in shown
    assert "modules  18, tensors of 7" in shown
    assert "model    Denoiser" in shown
    hostile = {"pipeline": "<script>alert(1)</script>\x1b[2J", "call": {"prompt": "a & b\n</pre>"}}
    edit(copy, lambda document: document["attributes"].update(hostile))
    trace = open_trace(copy)
    assert "\x1b" not in repr(trace)
    page = trace._repr_html_()
    assert page.startswith("<pre>")
    assert "<script>" not in page
    assert page.count("</pre>") == 1
    assert "a &amp; b" in page


# While it is written.


def test_a_trace_is_read_while_it_is_written(tmp_path: Path) -> None:
    """Within the with block every reader sees complete steps only, and more of them after `refresh`."""
    path, model = tmp_path / "run.zarr", Denoiser()
    capture = Capture(modules="model.conv_in")
    with torch.no_grad(), Tracer(model, path, capture=capture) as tracer:
        reader = tracer.trace
        assert (reader.n_steps, reader.info.status) == (0, "recording")
        assert repr(reader)
        seen = 0
        for step in range(40):
            model(torch.full((1, 4, 8, 8), float(step)), 1000.0 - step)
            if step % 4:
                continue
            reader.refresh()
            deadline = time.monotonic() + 20
            while (
                step > 20 and not reader.n_steps and time.monotonic() < deadline
            ):  # the writer has a thread of its own
                time.sleep(0.01)
                reader.refresh()
            assert seen <= reader.n_steps <= step
            seen = reader.n_steps
            plain = xarray.open_zarr(path, group="model/conv_in") if seen else None
            with xarray.open_datatree(path) as tree:
                assert tree.attrs["status"] == "recording"
            zarr.open_group(path, mode="r")
            if plain is not None:
                dataset = reader["model.conv_in"]
                assert dataset.sizes["step"] == seen
                assert not np.isnan(dataset["output"]).any()
                assert not np.isnan(dataset["mean"]).any()
                assert np.array_equal(plain["output"][:seen], dataset["output"])
                assert reader.timestep.tolist() == [1000.0 - index for index in range(seen)]
    assert seen > 0
    reader.refresh()
    assert (reader.n_steps, reader.info.status) == (40, "complete")
    assert len(tracer.trace["model.conv_in"]["output"]) == 40


def test_all_that_a_trace_hands_out_has_one_length(tmp_path: Path) -> None:
    """Between two looks nothing gets longer, though arrays are lengthened and others come up in the meantime."""
    path, model = tmp_path / "run.zarr", Denoiser()
    late = torch.nn.Linear(2, 2)
    with torch.no_grad(), Tracer({"model": model, "late": late}, path, capture="all") as tracer:
        for step in range(10):
            model(torch.full((1, 4, 8, 8), float(step)), 1000.0 - step)
        tracer._recorder.publish()
        reader = open_trace(path)
        while reader.n_steps < 9:
            reader.refresh()
        known, seen = list(reader), reader.n_steps
        first = reader[known[0]]
        for step in range(10, 150):  # room was made for 64
            model(torch.full((1, 4, 8, 8), float(step)), 1000.0 - step)
            late(torch.ones(1, 2))
            if step % 30 == 0:
                newest = open_trace(path)
                assert {newest[name].sizes.get("step", newest.n_steps) for name in newest} <= {newest.n_steps}
        while open_trace(path).n_steps < 140:
            time.sleep(0.01)
        lengths = {reader[name].sizes["step"] for name in known}
        assert lengths == {seen} == {reader.steps.sizes.get("step", seen), len(reader.timestep)}
        assert {reader.statistics("model").sizes["step"], first.sizes["step"]} == {seen}
        tree = {int(node.sizes["step"]) for node in reader.tree.subtree if "step" in node.sizes}
        assert len(tree) == 1
        assert "late" not in reader.tree
        reader.refresh()
        assert {reader[name].sizes.get("step", reader.n_steps) for name in reader} == {reader.n_steps}
        assert "late" in reader.tree


_touched: list[tuple[str, str]] | None = None
"""What the test opens or lists, while it is a list; the writer has a thread of its own."""


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if (
        _touched is not None
        and threading.current_thread() is threading.main_thread()
        and event in {"open", "os.listdir", "os.scandir", "glob.glob"}
    ):
        _touched.append((event, str(arguments[0])))


def test_following_a_trace_reads_one_small_file(tmp_path: Path) -> None:
    """A look at a trace in which nothing happened, or a step was completed, opens one file of 1 KiB, nothing else."""
    global _touched  # noqa: PLW0603 — an audit hook cannot be taken away again, so it is told when to look
    sys.addaudithook(_audit)
    path, model = tmp_path / "run.zarr", Denoiser()
    looked = []
    with torch.no_grad(), Tracer(model, path) as tracer:
        for step in range(3):  # metadata grows with the first steps, and is published some time after each
            model(torch.zeros(1, 4, 8, 8), 1000.0 - 10 * step)
        reader = open_trace(path)
        deadline = time.monotonic() + 20
        while reader.n_steps < 2 and time.monotonic() < deadline:
            reader.refresh()
        reader.refresh()
        for step in range(3, 7):
            model(torch.zeros(1, 4, 8, 8), 1000.0 - 10 * step)
            deadline = time.monotonic() + 20
            changed = False
            while not changed and time.monotonic() < deadline:
                _touched = []
                changed = reader.refresh()
                here = [entry for entry in _touched if str(path) in entry[1]]
                _touched = None
                looked.append(here)
            assert reader.n_steps == step
    flags = path / "committed" / "c.0"
    assert flags.stat().st_size == 1024
    assert {tuple(here) for here in looked} == {(("open", str(flags)),)}
    assert reader.refresh()
    assert (reader.n_steps, reader.info.status) == (7, "complete")
    assert not reader.refresh()
    assert tracer.trace.n_steps == 7


# What lies.


def test_control_characters_never_reach_the_terminal(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names, classes, versions and texts of a trace cannot steer the terminal that shows them."""
    evil = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202e"

    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: poison(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [poison(entry) for entry in value]
        return evil + value if isinstance(value, str) and value not in ("model", "latents", "records") else value

    def change(document: dict[str, Any]) -> None:
        attributes = document["attributes"]
        attributes.update(poison(attributes), status=evil, error={"type": evil, "message": evil, "module": evil})
        attributes.update(components={evil: evil}, versions={evil: evil}, guidance={evil: {evil: [evil]}})
        attributes.update(gaps=[{"site": evil, "reason": evil}], tap_failures=[{"tap": evil, "error": evil}])
        attributes.update(call={"prompt": evil, evil: evil})
        for path, node in document["consolidated_metadata"]["metadata"].items():
            if path.startswith("statistics/") and node["node_type"] == "group":
                for site in node["attributes"]["sites"]:
                    site.update({key: poison(site[key]) for key in ("port", "class", "dtype", "branch")})
                    site["name"] += evil

    edit(copy, change)
    for arguments in (["info"], ["ls"], ["stats"], ["ls", "--json"], ["info", "--json"], ["stats", "--json"]):
        assert main([arguments[0], str(copy), *arguments[1:]]) == 0
    assert main(["ls", str(copy), evil]) == 2
    shown = capsys.readouterr()
    text = repr(open_trace(copy)) + shown.out + shown.err
    assert not set("\x1b\x07\r\x9b\u202e") & set(text)
    assert "owned" in text


@pytest.mark.parametrize("path", ["../outside", "/outside", "model/../../outside", "..", "", "model/.."])
def test_paths_that_lead_out_are_refused(copy: Path, path: str) -> None:
    """A node whose path leaves the store is never read, whatever the metadata says, by no way of reading."""
    outside = copy.parent / "outside"
    shutil.copytree(copy / "model" / "conv_in" / "output", outside)

    def change(document: dict[str, Any]) -> None:
        nodes = document["consolidated_metadata"]["metadata"]
        nodes[path] = nodes["model/conv_in/output"]
        for site in nodes["statistics/model"]["attributes"]["sites"]:
            site["array"] = path and site["array"] and path

    edit(copy, change)
    trace = open_trace(copy)
    with pytest.raises(DxrayError):
        trace.tensor(trace.site("model.conv_in"), 0)
    try:
        dataset = trace["model.conv_in"]
    except DxrayError:
        return
    assert "output" not in dataset


def test_a_link_out_of_the_store_is_refused(copy: Path) -> None:
    """An array that is a link to another place is not followed, by no way of reading."""
    outside = copy.parent / "outside"
    array = copy / "model" / "conv_in" / "output"
    array.rename(outside)
    array.symlink_to(outside, target_is_directory=True)
    trace = open_trace(copy)
    with pytest.raises(TraceFormatError, match="damaged"):
        trace.tensor(trace.site("model.conv_in"), 0)
    with pytest.raises(TraceFormatError, match="damaged"):
        trace["model.conv_in"]["output"].load()
    assert trace.tensor(trace.site("model.blocks.0"), 0).shape == (1, 8, 4, 4)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"garbage" * 5000], ids=["empty", "zeros", "garbage"])
def test_a_broken_chunk_costs_its_module_only(copy: Path, content: bytes) -> None:
    """Where one file is damaged, reading it is a clear error, and everything else reads as before."""
    (copy / "model" / "conv_in" / "output" / "c.0.0.0.0.0").write_bytes(content)
    trace = open_trace(copy)
    with pytest.raises(TraceFormatError, match="model/conv_in/output"):
        trace.tensor(trace.site("model.conv_in"), 1)
    assert trace.tensor(trace.site("model.blocks.0"), 1).shape == (1, 8, 4, 4)
    assert float(trace["model.conv_in"]["std"][1]) == pytest.approx(1.60603566)
    assert trace.statistics("model").shape == (2, 17, 11)


def test_a_missing_chunk_reads_as_not_captured(copy: Path) -> None:
    """A file that was lost on the way reads as NaN, not as zero."""
    (copy / "model" / "conv_in" / "output" / "c.0.0.0.0.0").unlink()
    assert np.isnan(open_trace(copy)["model.conv_in"]["output"]).all()


def test_metadata_of_huge_sizes_allocates_nothing(copy: Path) -> None:
    """A trace that claims more steps than anyone could hold opens at once."""
    file = copy / "zarr.json"

    def change(document: dict[str, Any]) -> None:
        nodes = document["consolidated_metadata"]["metadata"]
        for node in nodes.values():
            if node.get("dimension_names", [""])[0] == "step" and "statistics" in str(node.get("dimension_names")):
                node["shape"][0] = 2**40

    edit(copy, change)
    assert file.stat().st_size < 100_000
    trace = open_trace(copy)
    assert trace.n_steps == 2
    assert trace.tensor(trace.site("model.conv_in"), 1).shape == (1, 8, 4, 4)
