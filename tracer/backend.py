"""The xarray engine "diffusion-xray": a trace with its attention maps, which are computed where they are indexed."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from typing import Any

import xarray
from xarray.backends import BackendEntrypoint

from .attention.info import AttentionInfo
from .layout import array_name
from .trace import Trace, open_trace

__all__ = ["AttentionBackend"]


class AttentionBackend(BackendEntrypoint):
    """Opens a trace as ``xarray.open_datatree(path, engine="diffusion-xray")``.

    Every group is as the engine "zarr" shows it, cut to the complete steps. The group of a module that attends also
    has the map of each of its attention calls: `attention`, `attention_call1`, … Dimensions and coordinates have the
    names of those of `Trace.attention` behind ``attention_``, except those along `step`, which all groups share.
    """

    description = "Traces of diffusion pipelines, with attention maps recomputed from queries and keys"
    url = "https://pypi.org/project/diffusion-xray"
    supports_groups = True

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
    ) -> xarray.Dataset:
        """One group, the root by default.

        Raises:
            TraceNotFoundError: There is nothing at the path.
            TraceFormatError: What is there is no trace.
            KeyError: There is no such group.
        """
        path = f"/{(group or '').strip('/')}"
        return self.open_groups_as_dict(filename_or_obj, drop_variables=drop_variables)[path]

    def open_datatree(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None
    ) -> xarray.DataTree:
        """The whole trace."""
        return xarray.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, drop_variables=drop_variables))

    def open_groups_as_dict(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None
    ) -> dict[str, xarray.Dataset]:
        """All groups by path."""
        trace = open_trace(os.fspath(filename_or_obj) if isinstance(filename_or_obj, os.PathLike) else filename_or_obj)
        groups = {node.path: _clipped(node.to_dataset(inherit=False), trace.n_steps) for node in trace.tree.subtree}
        for calls in trace.attention_modules.values():
            for form in (form for call in calls for form in trace.attentions.forms(call)):
                path = f"/{form.group}"
                is_there = form.steps is None or min(form.steps, default=trace.n_steps) < trace.n_steps
                if is_there and not form.reason and path in groups:
                    groups[path] = _with_attention(groups[path], trace, form)
        dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return {path: dataset.drop_vars(dropped, errors="ignore") for path, dataset in groups.items()}

    def guess_can_open(self, filename_or_obj: Any) -> bool:  # noqa: ARG002 — the name is xarray's
        """No: a trace is opened as the plain Zarr store it is, unless this engine is asked for."""
        return False


def _clipped(dataset: xarray.Dataset, steps: int) -> xarray.Dataset:
    return dataset.isel(step=slice(0, steps)) if "step" in dataset.dims else dataset


def _with_attention(dataset: xarray.Dataset, trace: Trace, call: AttentionInfo) -> xarray.Dataset:
    """A group with the map of one call, in dimensions of its own: so no size and no chunk clashes with another's."""
    name = array_name("attention", call.call) + (f"_form{call.form}" if call.form else "")
    array = trace.attention(call.module, call.call, step=None if call.steps is None else min(call.steps))
    chunks = {_own(name, dim): size for dim, size in array.encoding["preferred_chunks"].items()}

    def renamed(variable: xarray.Variable) -> xarray.Variable:
        dims = [_own(name, dim) for dim in variable.dims]
        found = xarray.Variable(dims, variable._data, variable.attrs)
        found.encoding["preferred_chunks"] = {dim: chunks[dim] for dim in dims}
        return found

    coordinates = {
        f"{name}_{label}": renamed(coordinate.variable)
        for label, coordinate in array.coords.items()
        if "step" not in coordinate.dims  # these are those of the root
    }
    return dataset.assign_coords(coordinates).assign({name: renamed(array.variable)})


def _own(name: str, dim: Hashable) -> str:
    return "step" if dim == "step" else f"{name}_{dim}"
