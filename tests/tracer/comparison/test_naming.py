"""What modules of one trace are called in another: rules, and the parts of layers that are fused in one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion_xray.tracer import Tracer, open_trace
from diffusion_xray.tracer.comparison.divergence import Comparison, Evidence
from diffusion_xray.tracer.comparison.naming import Cut, Fused, Naming, Target, fused_of
from diffusion_xray.tracer.errors import ComparisonError
from diffusion_xray.tracer.trace import Trace


class Split(nn.Module):
    """Query, key and value by layers of their own, of two heads of two channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.to_q, self.to_k, self.to_v = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Their sum."""
        result: Tensor = self.to_q(x) + self.to_k(x) + self.to_v(x)
        return result


class Whole(nn.Module):
    """The same by one layer, its rows in the order of `rows`."""

    def __init__(self, split: Split, rows: list[int], wrong: int | None) -> None:
        super().__init__()
        self.rows = rows
        self.to_qkv = nn.Linear(4, 12)
        with torch.no_grad():
            self.to_qkv.weight.copy_(torch.cat([split.to_q.weight, split.to_k.weight, split.to_v.weight])[rows])
            self.to_qkv.bias.copy_(torch.cat([split.to_q.bias, split.to_k.bias, split.to_v.bias])[rows])
            if wrong is not None:
                self.to_qkv.weight[wrong] *= 2

    def forward(self, x: Tensor) -> Tensor:
        """Likewise."""
        qkv = self.to_qkv(x)
        back = torch.empty_like(qkv)
        back[..., self.rows] = qkv
        query, key, value = back.chunk(3, dim=-1)
        result: Tensor = query + key + value
        return result


def traces(folder: Path, *, rows: list[int] | None = None, wrong: int | None = None) -> tuple[Trace, Trace]:
    """Of both."""
    split = Split()
    models = {"split": split, "whole": Whole(split, rows or list(range(12)), wrong)}
    for name, model in models.items():
        with torch.no_grad(), Tracer({"dit": model}, folder / f"{name}.zarr", capture="all"):
            model(torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)))
    return open_trace(folder / "split.zarr"), open_trace(folder / "whole.zarr")


def compared(a: Trace, b: Trace, names: dict[str, str | Fused]) -> Comparison:
    """What has been compared to the end."""
    comparison = Comparison(a, b, names)
    for _ in comparison.run():
        pass
    return comparison


SPLIT: dict[str, str | Fused] = {
    f"dit.to_{letter}": fused_of({"to": "dit.to_qkv", "slices": [4 * at, 4 * at + 4]})
    for at, letter in enumerate("qkv")
}


def test_layers_that_are_parts_of_one(tmp_path: Path) -> None:
    """Three layers of A are each compared with their slice of the one that B has; the wrong one is named."""
    a, b = traces(tmp_path, wrong=5)
    comparison = compared(a, b, SPLIT)
    table = comparison.table
    assert [pair.b.key for pair in table.pairing.pairs][:3] == [
        "dit.to_qkv:output[0:4]",
        "dit.to_qkv:output[4:8]",
        "dit.to_qkv:output[8:12]",
    ]
    first = table.first_over()
    assert first is not None and first.pair.a.key == "dit.to_k:output"
    whole = b.tensor(b.site("dit.to_qkv"))[..., 4:8]
    assert first.distance.max_abs == np.abs(a.tensor(a.site("dit.to_k")).astype(float) - whole).max()
    assert table.pairing.only_a == table.pairing.only_b == ()
    assert np.isnan(comparison.statistics(1, 0)[0]).all()  # those of the whole tell nothing of a part
    left, right = comparison.entry(1, 0, batch=1)
    assert left.shape == (1, 3, 4) and (right == whole[1:2]).all()


def test_a_layer_that_holds_others(tmp_path: Path) -> None:
    """The one layer of A is compared part by part with those of B, also where its rows are by head."""
    by_head = [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]
    b, a = traces(tmp_path, rows=by_head)
    slices = [[[0, 2], [6, 8]], [[2, 4], [8, 10]], [[4, 6], [10, 12]]]
    to = ["dit.to_q", "dit.to_k", "dit.to_v"]
    right = compared(a, b, {"dit.to_qkv": fused_of({"to": to, "slices": slices})})
    assert (right.table.evidence == Evidence.TENSOR).all() and right.table.first_over() is None
    wrong = compared(a, b, {"dit.to_qkv": fused_of({"to": to, "slices": [[0, 4], [4, 8], [8, 12]]})})
    first = wrong.table.first_over()
    assert first is not None and first.pair.a.key == "dit.to_qkv:output[0:4]"


def test_a_part_that_is_not_there(tmp_path: Path) -> None:
    """A slice beyond the tensor is a problem of that pair, not an error of the comparison."""
    a, b = traces(tmp_path)
    comparison = compared(a, b, {"dit.to_q": fused_of({"to": "dit.to_qkv", "slices": [10, 14]})})
    assert comparison.table.pairing.pairs[0].problem == "no slice [10:14] of axis -1 in 2×3×12, in B"


def test_globs_of_fused_layers() -> None:
    """Wildcards are filled in every name of an entry."""
    naming = Naming(
        {"unet.**.to_qkv": fused_of({"to": ["dit.**.q", "dit.**.k"], "slices": [[0, 2], [2, 4]], "axis": 1})}
    )
    rule = "unet.**.to_qkv"
    assert naming.targets("unet.mid.attn.to_qkv") == (
        Target("dit.mid.attn.q", Cut(1, ((0, 2),)), None, rule),
        Target("dit.mid.attn.k", Cut(1, ((2, 4),)), None, rule),
    )


@pytest.mark.parametrize(
    "entry",
    [
        {"to": ""},
        {"to": "a", "slice": [0, 1]},
        {"to": "a"},
        {"to": "a", "slices": [1, 0]},
        {"to": "a", "slices": [0, 1.5]},
        {"to": "a", "slices": [True, 2]},
        {"to": "a", "slices": [-2, 2]},
        {"to": "a", "slices": [0, 1], "axis": "channel"},
        {"to": ["a", "b"], "slices": [[0, 1]]},
        {"to": ["a", 3], "slices": [[0, 1], [1, 2]]},
    ],
    ids=str,
)
def test_entries_that_say_nothing(entry: dict[str, Any]) -> None:
    """An entry that is not of the form is refused with how it should be."""
    with pytest.raises(ComparisonError, match=r"write|give"):
        fused_of(entry)
