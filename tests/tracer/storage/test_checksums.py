"""Arrays whose chunks have checksums are read, and what a checksum finds is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr import codecs

from diffusion_xray.tracer import TraceFormatError, open_trace

GOLDEN = Path(__file__).parents[2] / "data" / "golden-v2.zarr"
ARRAY = "model/conv_in/output"


@pytest.fixture(params=["blosc", "raw"])
def summed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The golden trace with one array written anew, in shards whose chunks end in a checksum."""
    path = tmp_path / "run.zarr"
    shutil.copytree(GOLDEN, path)
    values, chain = np.asarray(zarr.open_array(path / ARRAY, mode="r")[:]), [codecs.Crc32cCodec()]
    shutil.rmtree(path / ARRAY)
    written = zarr.create_array(
        path / ARRAY,
        shape=values.shape,
        chunks=(1, *values.shape[1:]),
        shards={"shape": (128, *values.shape[1:]), "index_location": "start"},  # type: ignore[arg-type]
        dtype=values.dtype,
        compressors=[codecs.BloscCodec(cname="lz4"), *chain] if request.param == "blosc" else chain,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=("step", "batch", "channel", "height", "width"),
        fill_value=np.nan,
    )
    written[:] = values
    root = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    own = json.loads((path / ARRAY / "zarr.json").read_text(encoding="utf-8"))
    root["consolidated_metadata"]["metadata"][ARRAY] = own
    (path / "zarr.json").write_text(json.dumps(root), encoding="utf-8")
    return path


def test_checksums_are_accepted(summed: Path) -> None:
    """A tensor and a part of it read as they do without checksums."""
    trace, golden = open_trace(summed), open_trace(GOLDEN)
    site = trace.site("model.conv_in")
    for step in range(2):
        assert np.array_equal(trace.tensor(site, step), golden.tensor(site, step))
        part = trace.elements(site, step, 3, 7)
        assert part is not None
        assert np.array_equal(part, golden.tensor(site, step).ravel()[3:10])


def test_a_flipped_bit_is_found(summed: Path) -> None:
    """A byte that changed on the disk is an error, not another value."""
    trace = open_trace(summed)
    (file,) = (summed / ARRAY).glob("c.*")
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(TraceFormatError, match="conv_in"):
        _ = [trace.tensor(trace.site("model.conv_in"), step) for step in range(2)]
