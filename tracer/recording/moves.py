"""Take what a component did into the loop, or out of it, once it is known where that belongs.

A denoiser that takes no timestep proves to be one only when it is called again; what ran after the last step of a
scheduler proves to have been after the loop only when the run is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..info import SiteInfo
from ..layout import HAS_STATISTICS, NOT_CAPTURED, array_name
from .sites import Held, Port, Sites
from .statistics import Place
from .tables import Table

__all__ = ["Moved", "move", "move_numbers"]


@dataclass(frozen=True, slots=True)
class Moved:
    """One site, before and after."""

    old: SiteInfo
    new: SiteInfo
    table: Table
    """Where it is now."""
    source: Place
    target: Place
    """Where its statistics were and where they belong."""
    dtype: str
    """What its tensor is stored as, where it is."""


def move(sites: Sites, component: str, *, stepped: bool, keeps: Callable[[SiteInfo], bool]) -> list[Moved]:
    """Move all that is known of a component on one side of the loop to the other.

    Args:
        sites: Of the trace.
        component: Its name.
        stepped: Into the loop, where it belongs to the current step, or out of it.
        keeps: Whether the tensor of a site is to be kept where it goes.

    Returns:
        The sites moved. Their numbers and tensors are still where they were.
    """
    source = sites.leave(component, stepped=not stepped)
    if source is None:
        return []
    places = {row: (key, port) for key, port in sites.ports_of(source) for row in port.rows.values()}
    sites.forget(source)
    moved: list[Moved] = []
    rows: dict[int, int] = {}
    arrays: dict[str, str] = {}
    for old in source.sites:
        (name, port, _), before = places[old.row]
        place = sites.open_port(name, port, component, stepped=stepped)
        held = _held(before, old)
        new = _at(place, old, port, held, stepped=stepped)
        alike, slot = next(iter(held.slots.items()), (None, None))  # one tensor, as it is of one step at most
        captured = source.rows.marks.get(old.row, NOT_CAPTURED)
        kept = bool(old.array) and keeps(new)
        if slot is not None and slot.own:
            arrays[slot.array] = sites.first_array(place.held[new.call])
        new = replace(new, array=arrays.get(old.array, "") if kept else "")
        if alike is not None and slot is not None and new.array:
            place.held[new.call].slots[alike] = replace(slot, array=new.array, borrowed=[])
            place.held[new.call].owned = int(slot.own)
        place.table.add(new)
        rows[old.row] = new.row
        if captured != NOT_CAPTURED:
            place.table.rows.marks[new.row] = captured if kept else min(captured, HAS_STATISTICS)
        target = place.table.rows.places[new.row]
        moved.append(Moved(old, new, place.table, source.rows.places[old.row], target, alike[1] if alike else ""))
    for row, same in source.rows.aliases():
        moved[0].table.rows.alias(rows[row], rows[same])
    return moved


def move_numbers(places: Sequence[tuple[Place, Place]]) -> None:
    """Copy statistics to where they belong, once they have been taken."""
    for source, target in places:
        target.row[:], target.histogram[:] = source.row, source.histogram


def _at(place: Port, old: SiteInfo, port: str, held: Held, *, stepped: bool) -> SiteInfo:
    """The site as the next call of a port, with a row and arrays of its own there."""
    call, row = place.calls, len(place.table.sites)
    place.calls += 1
    place.rows[call] = row
    place.held[call] = replace(held, name=array_name(port, call), slots={}, owned=0)
    return replace(old, port=port, call=call, row=row, stepped=stepped)


def _held(port: Port, site: SiteInfo) -> Held:
    return next(port.held[call] for call, row in port.rows.items() if row == site.row)
