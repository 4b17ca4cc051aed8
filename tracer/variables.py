"""The arrays of a site as lazy variables of xarray: one for each shape its tensors have had."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from .errors import TraceFormatError
from .info import SiteInfo, printable
from .layout import HAS_TENSOR
from .storage.archive import Archive

__all__ = ["apart", "variables_of"]

Captured = Callable[[], NDArray[np.unsignedinteger]]


def variables_of(
    archive: Archive, site: SiteInfo, *, captured: Captured, is_shared: Callable[[str], bool]
) -> Iterator[tuple[str, xarray.DataArray]]:
    """Name and lazy contents of each array of a site; missing where a step's tensor had another shape.

    Args:
        archive: The store.
        site: Where the tensors were seen.
        captured: Tells what was captured of the site at each step; asked only where it is needed.
        is_shared: Whether an array holds tensors of other sites too, at whatever steps those have been seen.
    """
    for number, stored in enumerate(site.arrays):
        group, _, own = stored.array.rpartition("/")
        dataset = archive.dataset(group)
        if own not in dataset:
            raise TraceFormatError(f"{archive.path} holds no array {printable(stored.array)!r}; it may be damaged")
        array = dataset[own].assign_attrs(call=site.call, branch=site.branch)
        if site.stepped and is_shared(stored.array):
            array = _only(array, captured() == HAS_TENSOR + number)
        yield f"{site.array_name}_shape{number}" if number else site.array_name, array


def apart(arrays: Mapping[str, xarray.DataArray], beside: Mapping[Any, int]) -> dict[str, xarray.DataArray]:
    """The arrays with dimensions renamed that have another size elsewhere, as one dataset knows one size of a name.

    Args:
        arrays: By the names they will have.
        beside: Sizes of the dimensions that are there already.
    """
    sizes = {str(name): size for name, size in beside.items()}
    found = {}
    for name, array in arrays.items():
        clashes = {dim: f"{name}_{dim}" for dim, size in array.sizes.items() if sizes.get(str(dim), size) != size}
        found[name] = array.rename(clashes) if clashes else array
        sizes |= {str(dim): size for dim, size in found[name].sizes.items()}
    return found


def _only(array: xarray.DataArray, there: NDArray[np.bool_]) -> xarray.DataArray:
    """The array with all steps missing but those wanted; steps that are not complete are none of them."""
    wanted = np.zeros(array.sizes["step"], bool)
    wanted[: len(there)] = there[: len(wanted)]
    masked = indexing.LazilyIndexedArray(_Steps(array.variable, wanted))
    return array.copy(data=xarray.Variable(array.dims, masked)._data)


class _Steps(BackendArray):
    """An array of which some steps do not count."""

    def __init__(self, variable: xarray.Variable, there: NDArray[np.bool_]) -> None:
        self._variable, self._there = variable, there
        self.shape, self.dtype = variable.shape, variable.dtype
        self._missing = np.array(np.nan if self.dtype.kind in "fc" else 0).astype(self.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        found = np.array(self._variable[key].values)
        there = self._there[key[0]]
        if np.ndim(there) == 0:
            return found if there else np.full_like(found, self._missing)
        found[~there] = self._missing
        return found
