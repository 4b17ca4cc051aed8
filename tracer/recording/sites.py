"""Which row, which array, which dimension names: the place of every tensor in the trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Size, Tensor

from ..info import SiteInfo
from ..layout import array_name, dimension_names, module_group
from ..stored import Stored
from .buffers import Kind
from .clock import Clock
from .groups import Groups
from .losses import Losses
from .statistics import Dense
from .tables import Table

__all__ = ["Alike", "Held", "Known", "Port", "Sites", "Slot", "Source"]

Alike = tuple[Size, str]
"""What the tensors in one array have in common: their shape, and the type they are stored as."""

_MOST_KNOWN = 64
"""Kinds of tensors of one port that are remembered beside the latest: a growing cache is never like before."""


@dataclass(frozen=True, slots=True)
class Source:
    """Who emits a tensor: a module, or anything else with a name."""

    name: str
    """Path with its component, "unet.mid_block"."""
    kind: str = ""
    """Class of the module."""
    order: int | None = None
    """Position in call order; None for what is no module, which stands behind the latest module."""
    leaf: bool = True
    """Whether it has no children; decides where its arrays lie in the store."""

    @property
    def group(self) -> str:
        """Group its arrays are meant for."""
        return module_group(self.name, has_children=not self.leaf)


@dataclass(frozen=True, slots=True)
class Known:
    """A tensor that has been recorded, as it is expected again in the next step."""

    row: int
    dtype: torch.dtype
    shape: Size
    stride: tuple[int, ...]
    """Without holes."""
    nbytes: int
    dense: Dense
    """Measures it from its address."""
    array: str
    """The array its tensors are kept in, if they are and have it to themselves."""
    mark: int
    """What the table's `captured` says of a tensor that is kept."""
    stored_dtype: str
    buffers: Kind
    """What a copy needs."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The array for tensors of one kind of a site."""

    number: int
    """Its place among the arrays of the site."""
    array: str
    own: bool
    """Whether it is the site's own, or that of another module whose very tensors these are."""
    borrowed: list[int] = field(default_factory=list)
    """The steps at which they were."""


@dataclass(slots=True)
class Held:
    """The arrays of one site."""

    group: str
    name: str
    names: Sequence[str] | None
    """Dimension names as its tap has them; by rank where None."""
    first: tuple[tuple[int, ...], tuple[str, ...]]
    """Shape of the first tensor, and the names of its dimensions in an array."""
    slots: dict[Alike, Slot] = field(default_factory=dict)
    owned: int = 0
    """How many arrays of its own there are."""

    def names_of(self, rank: int) -> tuple[str, ...]:
        """Dimension names of a tensor of a rank, before any clash is known."""
        return tuple(self.names) if self.names and len(self.names) == rank else dimension_names(rank)


@dataclass(slots=True)
class Port:
    """One port of a source, in or outside of the loop."""

    table: Table
    rows: dict[int, int] = field(default_factory=dict)
    """Row of the table for each call within a step."""
    held: dict[int, Held] = field(default_factory=dict)
    """The arrays of each call's tensors."""
    calls: int = 0
    """How often it has fired within the current step."""
    known: dict[int, Known] = field(default_factory=dict)
    """What each call is expected to be like."""
    others: dict[tuple[object, ...], Known] = field(default_factory=dict)
    """What a call has been like in other steps, by its number, dtype, shape and strides."""

    def like(self, tensor: Tensor) -> Known | None:
        """What the next call was like in another step than the latest, where it was as this tensor is."""
        return self.others.get((self.calls, tensor.dtype, tensor.shape, tensor.stride()))

    def expect(self, call: int, known: Known) -> None:
        """Remember what a call's tensor was like, and what it was like before."""
        before = self.known.get(call)
        self.known[call] = known
        for kept in (before, known) if before is not None else ():
            key = call, kept.dtype, kept.shape, kept.stride
            if len(self.others) >= _MOST_KNOWN and key not in self.others:
                self.others.clear()
            self.others[key] = kept


class Sites:
    """Gives every tensor its row, in the order in which the tensors first came into being."""

    def __init__(self, clock: Clock, losses: Losses) -> None:
        self._clock = clock
        self._losses = losses
        self._tables: dict[tuple[str, bool], Table] = {}
        self._ports: dict[tuple[str, str, bool], Port] = {}
        self.fired: list[Port] = []
        """Ports of the loop that have fired in this step, once each."""
        self._groups = Groups()
        self._latest = -1

    @property
    def tables(self) -> list[Table]:
        """The tables of all components."""
        return list(self._tables.values())

    def fire(self, source: Source, port: str, *, stepped: bool) -> tuple[Port, int]:
        """The port a tensor comes out of, and the number of this call within the step."""
        place = self.port(source.name, port, stepped=stepped)
        if place is None:
            table = self._table(source.name.split(".", 1)[0], stepped=stepped)
            place = self._ports[source.name, port, stepped] = Port(table)
        call = place.calls
        if stepped and not call:
            self.fired.append(place)
        place.calls += 1
        return place, call

    def port(self, name: str, port: str, *, stepped: bool) -> Port | None:
        """A port that has fired before."""
        return self._ports.get((name, port, stepped))

    def leave(self, component: str, *, stepped: bool) -> Table | None:
        """Take a component's table on one side of the loop away, if there is one."""
        return self._tables.pop((component, stepped), None)

    def ports_of(self, table: Table) -> list[tuple[tuple[str, str, bool], Port]]:
        """The ports whose rows are in a table, with their names."""
        return [(key, port) for key, port in self._ports.items() if port.table is table]

    def forget(self, table: Table) -> None:
        """Drop the ports of a table; whoever still has one takes the long way from now on."""
        for _, port in self.ports_of(table):
            port.known.clear()
            port.others.clear()
        self._ports = {key: port for key, port in self._ports.items() if port.table is not table}
        self.fired[:] = [port for port in self.fired if port.table is not table]

    def open_port(self, name: str, port: str, component: str, *, stepped: bool) -> Port:
        """A port, made where it is not known, for one more call."""
        place = self.port(name, port, stepped=stepped)
        if place is None:
            place = self._ports[name, port, stepped] = Port(self._table(component, stepped=stepped))
        if stepped and not place.calls:
            self.fired.append(place)
        return place

    def after_the_last_step(self) -> list[str]:
        """Components whose modules first fired in the loop after a scheduler had last stepped."""
        now = self._clock.scheduler_count
        return [name for (name, stepped), table in self._tables.items() if stepped and table.born == now]

    def next_step(self) -> None:
        """Calls are counted anew."""
        for place in self.fired:
            place.calls = 0
        self.fired.clear()

    def add(
        self,
        place: Port,
        source: Source,
        port: str,
        call: int,
        *,
        tensor: Tensor,
        dims: Sequence[str] | None,
        within: tuple[str | int, ...] = (),
        structure: object = None,
    ) -> int:
        """A new row for a call that has none yet."""
        table = place.table
        row = place.rows[call] = len(table.sites)
        other = self._ports.get((source.name, port, not table.stepped))
        if other is not None and call in other.rows:  # inside and outside of the loop are two places
            port = f"{port}_{'step' if table.stepped else 'once'}"
        if source.order is None:  # what is no module stays where it is said to be
            table.born = -1
        order = self._latest if source.order is None else source.order
        self._latest = max(self._latest, order)
        name, shape = array_name(port, call), tuple(tensor.shape)
        names = self._groups.dims(self._groups.home(source.group), name, dims or dimension_names(len(shape)), shape)
        place.held[call] = Held(source.group, name, dims, (shape, names))
        table.add(
            SiteInfo(
                name=source.name,
                port=port,
                call=call,
                row=row,
                order=order,
                module_class=source.kind,
                torch_dtype=dtype_name(tensor),
                shape=shape,
                dims=names,
                branch=self._clock.branch if table.stepped else "",
                array="",
                stepped=table.stepped,
                place=within,
                strides=tensor.stride() if tensor.layout == torch.strided else (),
                structure=structure,
            )
        )
        return row

    def first_array(self, held: Held) -> str:
        """Where the first array of a site's own lies."""
        return self._groups.array(held.group, held.name, 0)

    def own_slot(self, place: Port, call: int, tensor: Tensor, alike: Alike) -> Slot:
        """A new array for tensors like this one; what was another module's until now stands where that stood."""
        held, row, table = place.held[call], place.rows[call], place.table
        before = held.slots.get(alike)
        array = self._groups.array(held.group, held.name, held.owned)
        held.owned += 1
        stored = Stored(array, tuple(tensor.shape), self._dims(held, array, tensor), dtype_name(tensor))
        number = table.add_array(row, stored) if before is None else before.number
        if before is not None:
            table.move_array(row, number, stored)
        slot = held.slots[alike] = Slot(number, array, own=True)
        return slot

    def shared_slot(self, place: Port, call: int, tensor: Tensor, alike: Alike, array: str) -> Slot:
        """Read tensors like this one from another module's array from now on."""
        held = place.held[call]
        stored = Stored(array, tuple(tensor.shape), held.names_of(tensor.dim()), dtype_name(tensor))
        number = place.table.add_array(place.rows[call], stored)
        slot = held.slots[alike] = Slot(number, array, own=False)
        return slot

    def _dims(self, held: Held, array: str, tensor: Tensor) -> tuple[str, ...]:
        shape = tuple(tensor.shape)
        if held.owned == 1 and shape == held.first[0]:
            return held.first[1]
        return self._groups.dims(array.rpartition("/")[0], held.name, held.names_of(len(shape)), shape)

    def _table(self, component: str, *, stepped: bool) -> Table:
        table = self._tables.get((component, stepped))
        if table is None:
            table = self._tables[component, stepped] = Table(
                component, stepped, self._clock.scheduler_count, losses=self._losses
            )
        return table


def dtype_name(tensor: Tensor) -> str:
    """The dtype as a trace has it."""
    return str(tensor.dtype).removeprefix("torch.")
