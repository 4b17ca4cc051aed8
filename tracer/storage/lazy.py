"""Lazy arrays of xarray, which read as a trace must be read: looked at first, and with one kind of error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from ..errors import DxrayError, TraceFormatError
from ..info import printable

__all__ = ["guarded"]

Check = Callable[[str, tuple["int | slice", ...]], None]
"""Raises where a part of an array, by its path, cannot be read or takes too much."""


def guarded(dataset: xarray.Dataset, group: str, where: str, check: Check) -> xarray.Dataset:
    """The same dataset, whose lazy variables ask `check` before they read.

    Args:
        dataset: As xarray opens a group.
        group: Its path.
        where: The trace, for errors.
        check: See `Check`.

    Returns:
        A dataset whose variables raise `TraceFormatError` alone.
    """
    variables = {
        name: _guarded(variable, f"{group}/{name}".lstrip("/"), where, check)
        for name, variable in dataset.variables.items()
        if not isinstance(variable, xarray.IndexVariable)
    }
    coords = {
        name: dataset[name].copy(data=variable._data) for name, variable in variables.items() if name in dataset.coords
    }
    data = {name: dataset[name].copy(data=variable._data) for name, variable in variables.items() if name not in coords}
    return dataset.assign(data).assign_coords(coords)


def _guarded(variable: xarray.Variable, path: str, where: str, check: Check) -> xarray.Variable:
    data = indexing.LazilyIndexedArray(_Guarded(variable, path, where, check))
    return xarray.Variable(variable.dims, data, variable.attrs, variable.encoding)


class _Guarded(BackendArray):
    """A variable of a trace."""

    def __init__(self, variable: xarray.Variable, path: str, where: str, check: Check) -> None:
        self._variable, self._path, self._where, self._check = variable, path, where, check
        self.shape, self.dtype = variable.shape, variable.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        try:
            self._check(self._path, tuple(map(_place, key)))
            return np.asarray(self._variable[key].values)
        except DxrayError:
            raise
        except Exception as error:
            raise TraceFormatError(
                f"{printable(self._path)} in {self._where} cannot be read: {printable(error)[:300]}"
            ) from error


def _place(key: Any) -> int | slice:
    """Of places one by one, all from the first to the last."""
    if isinstance(key, slice):
        return key
    if np.ndim(key) == 0:
        return int(key)
    return slice(int(np.min(key)), int(np.max(key)) + 1) if np.size(key) else slice(0, 0)
