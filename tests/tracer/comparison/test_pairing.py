"""Which site and which step of one trace belongs to which of another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_xray.tracer.comparison.naming import Naming, Target
from diffusion_xray.tracer.comparison.pairing import _nearest, link_steps, pair_sites
from diffusion_xray.tracer.errors import ComparisonError

from ...parting import STEPS, record


def test_sites_of_one_model(tmp_path: Path) -> None:
    """Two traces of one model pair completely, a module after the modules inside it."""
    a, b = record(tmp_path / "a.zarr"), record(tmp_path / "b.zarr", seed=1)
    pairing = pair_sites(a, b)
    assert pairing.only_a == pairing.only_b == ()
    assert all(pair.a.key == pair.b.key for pair in pairing.pairs)
    assert [pair.a.name for pair in pairing.pairs if pair.a.port == "output"] == [
        "unet.conv_in",
        "unet.blocks.0.conv",
        "unet.blocks.0.act",
        "unet.blocks.0",
        "unet.blocks.1.conv",
        "unet.blocks.1.act",
        "unet.blocks.1",
        "unet.conv_out",
        "unet",
    ]


@pytest.mark.parametrize(
    "names",
    [
        {"unet": "port", "unet.**": "port.**"},
        lambda name: name.replace("unet", "port"),
        {"unet": "port", "unet.blocks.*": "port.blocks.*", "unet.blocks.*.*": "port.blocks.*.*", "unet.*": "port.*"},
    ],
    ids=["globs", "function", "several globs"],
)
def test_a_port_of_a_model(tmp_path: Path, names: object) -> None:
    """A model under other names pairs by a table of globs or a function; without it nothing is in common."""
    a, b = record(tmp_path / "a.zarr"), record(tmp_path / "b.zarr", component="port")
    assert pair_sites(a, b).pairs == ()
    assert len(pair_sites(a, b).only_a) == len(pair_sites(a, b).only_b) == 9
    pairing = pair_sites(a, b, names)  # type: ignore[arg-type]  # a mapping or a function
    assert len(pairing.pairs) == 9
    assert {(pair.a.name.partition(".")[2], pair.b.name.partition(".")[2]) for pair in pairing.pairs} == {
        (name, name) for name in (pair.a.name.partition(".")[2] for pair in pairing.pairs)
    }


def test_what_shall_be_left_out(tmp_path: Path) -> None:
    """A function that returns None leaves a module out, on both sides."""
    a = record(tmp_path / "a.zarr")
    pairing = pair_sites(a, a, lambda name: None if name == "unet.conv_in" else name)
    assert [site.name for site in pairing.only_a] == [site.name for site in pairing.only_b] == ["unet.conv_in"]


def test_globs_stand_for_the_same_text() -> None:
    """Wildcards are filled in in their order; a rule whose sides have others is refused."""
    naming = Naming({"unet.**.attn?.to_*": "dit.**.attention?.*_projection"})
    assert [target.name for target in naming.targets("unet.down.0.attn2.to_q")] == [
        "dit.down.0.attention2.q_projection"
    ]
    assert [target.name for target in naming.targets("unet.attn2.to_q")] == ["dit.attention2.q_projection"]
    assert naming.targets("vae.attn2.to_q") == (Target("vae.attn2.to_q"),)
    with pytest.raises(ComparisonError, match="have not the same wildcards"):
        Naming({"unet.*": "dit.**"})


def test_steps_by_index_and_timestep(tmp_path: Path) -> None:
    """By index the steps pair in order; by timestep those at the same place of the schedule; the others are said."""
    a, b = record(tmp_path / "a.zarr"), record(tmp_path / "b.zarr", steps=3, every=300.0)
    by_index = link_steps(a, b)
    assert by_index.pairs == ((0, 0), (1, 1), (2, 2))
    assert (by_index.only_a, by_index.only_b) == ((3, 4, 5), ())
    by_timestep = link_steps(a, b, "timestep")
    assert by_timestep.pairs == ((0, 0), (2, 1), (4, 2))
    assert (by_timestep.only_a, by_timestep.tolerance) == ((1, 3, 5), 75)
    assert link_steps(a, b, "sigma").pairs == ()
    with pytest.raises(ComparisonError, match="'time'"):
        link_steps(a, b, "time")  # type: ignore[arg-type]  # what a user may type


def test_steps_within_a_tolerance(tmp_path: Path) -> None:
    """What is further apart than the tolerance has no partner."""
    a, b = record(tmp_path / "a.zarr"), record(tmp_path / "b.zarr", every=149.0)
    assert len(link_steps(a, b, "timestep").pairs) == STEPS
    assert link_steps(a, b, "timestep", tolerance=2).pairs == ((0, 0), (1, 1), (2, 2))


@given(st.lists(st.integers(0, 20), max_size=12), st.lists(st.integers(0, 20), max_size=12), st.integers(0, 3))
def test_links_are_one_to_one(a: list[int], b: list[int], within: int) -> None:
    """Whatever the values, no step has two partners, and none is further away than the tolerance."""
    ours, theirs = np.array(a, np.float64), np.array(b, np.float64)
    pairs = _nearest(ours, theirs, within)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert all(abs(ours[i] - theirs[j]) <= within for i, j in pairs)
    free = [
        abs(x - y)
        for i, x in enumerate(ours)
        for j, y in enumerate(theirs)
        if i not in {p for p, _ in pairs} and j not in {q for _, q in pairs}
    ]
    assert not free or min(free) > within


def test_repeated_timesteps_find_one_another() -> None:
    """The two evaluations of a two-stage solver share a timestep and pair in their order; NaN pairs with nothing."""
    twice = np.array([9.0, 9, 6, 6, 3])
    assert _nearest(twice, twice, 1) == [(i, i) for i in range(5)]
    assert _nearest(np.array([np.nan, 1]), np.array([np.nan, 1]), 1) == [(1, 1)]
