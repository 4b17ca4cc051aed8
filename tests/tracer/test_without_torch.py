"""A trace is read and looked at on machines that have no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "data" / "golden-v1.zarr"

READ = """
import contextlib, io, sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "diffusers", "transformers"):
            raise ModuleNotFoundError(f"this machine has no {name}", name=name)

sys.meta_path.insert(0, NoTorch())

import diffusion_xray.tracer as tracer
import diffusion_xray.viewer.app
import diffusion_xray.viewer.command
from diffusion_xray.tracer.cli import main

trace = tracer.open_trace(sys.argv[1])
assert trace.statistics("model").sizes["step"] == 2
assert trace.tensor(trace.site("model.conv_in"), 1).shape == (1, 8, 4, 4)
assert trace["model.conv_in"]["output"].sizes["step"] == 2
assert len(trace.histogram(trace.site("model")).counts) == 4096
assert trace.steps["latents"].shape == (2, 1, 4, 4, 4)
assert trace.tree["latents"]
assert (trace.prompts, trace.images) == ((), None)
assert repr(trace)
attended = tracer.open_trace(sys.argv[2])
lazy = attended.attention("unet.mid_block.attentions.0.transformer_blocks.0.attn2")
assert lazy.sel(step=1, key="circle").values.shape == (2, 4, 64)
assert attended.word_map("circle", step=1).shape == (8, 8)
import xarray
assert xarray.open_datatree(sys.argv[2], engine="diffusion-xray")["unet"]
shown = io.StringIO()
with contextlib.redirect_stdout(shown):
    for command in ("info", "ls", "stats"):
        assert main([command, sys.argv[1]]) == 0
        assert main([command, sys.argv[1], "--json"]) == 0
    assert main(["diff", sys.argv[1], sys.argv[1]]) == 0
    assert main(["attention", sys.argv[2], "--word", "circle"]) == 0
assert "model.conv_in" in shown.getvalue()
assert "torch" not in sys.modules
try:
    tracer.Tracer
except ModuleNotFoundError as error:
    assert "torch" in str(error)
else:
    raise AssertionError("recording needs torch")
"""


def test_reading_and_viewing_need_no_torch(embedded: Path) -> None:
    """Where torch, diffusers and transformers cannot be imported, everything works but recording."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", READ, str(GOLDEN), str(embedded)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
