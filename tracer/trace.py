"""Read a trace: lazy, without torch, also while it is being written."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .attention.reader import AttentionReader
from .errors import DxrayError, SiteNotFoundError, TraceFormatError, near_matches
from .info import SiteInfo, printable
from .layout import LATENTS, MEASURED, STATISTICS
from .prompts import Prompt
from .statistics_array import array_of_all, array_of_table
from .statistics_table import StatisticsTable
from .storage.library_store import Where, locate

if TYPE_CHECKING:
    import xarray

__all__ = ["Prompt", "StatisticsTable", "Trace", "open_trace"]


def open_trace(path: Where) -> Trace:
    """Open a trace for reading; only metadata is read.

    Args:
        path: A folder, a zip file, a URL of fsspec such as "s3://bucket/run.zarr", or a store of zarr-python.

    Raises:
        TraceNotFoundError: There is nothing at `path`.
        TraceFormatError: What is there is not a trace, is damaged, or has a newer format.
    """
    return Trace(locate(path))


class Trace(AttentionReader, Mapping[str, "xarray.Dataset"]):
    """What was recorded of one run. Made by `open_trace`.

    A mapping from the modules' names, in call order, to what was recorded of each: ``trace["unet.mid_block"]`` is a
    lazy `xarray.Dataset`, ``len(trace)`` the number of modules that fired; `n_steps` is the number of steps.
    `statistics`, `steps`, `prompts`, `images` and `tree` give the rest, `attention` and `word_map` what looked where.
    `table`, `tensor` and `histogram` are the plain numpy way to the same data.
    """

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        """Number of modules that fired."""
        return len(self.modules)

    def __contains__(self, name: object) -> bool:  # Mapping would read the module to see whether it is there
        return name in self.modules

    def __bool__(self) -> bool:
        """True: a trace is there, also where nothing fired."""
        return True

    def __eq__(self, other: object) -> bool:  # Mapping would read both whole
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __getitem__(self, name: str) -> xarray.Dataset:
        """Everything recorded of one module, lazily: its tensors and its statistics along the steps.

        Raises:
            SiteNotFoundError: (a `KeyError`) no such module; the message lists near matches.
        """
        import xarray

        from .variables import apart

        if name not in self.modules:
            raise SiteNotFoundError(f"no module {name!r} in {self.path}.{near_matches(name, self.modules)}")
        module = self.modules[name]
        variables: dict[str, Any] = {}
        tensors: dict[str, xarray.DataArray] = {}
        for site in module.sites:
            prefix = "" if site is module.site else f"{site.array_name}_"
            table = self._archive.dataset(self._table_groups()[module.component, site.stepped])
            rows = table.isel(site=site.row)
            for statistic in MEASURED:
                column = rows["statistics"].isel(statistic=STATISTICS.index(statistic))
                variables[prefix + statistic] = column.drop_vars(["site", "statistic"], errors="ignore")
            variables[prefix + "histogram"] = rows["histogram"].drop_vars("site", errors="ignore")
            tensors |= self._variables(site)
        variables |= apart(tensors, {})
        with self._fitting(name):
            dataset = xarray.Dataset(variables, attrs={"module": name, "class": module.module_class})
            return self._with_steps(dataset)

    def statistics(self, component: str | None = None) -> xarray.DataArray:
        """Statistics of every site of a component, or of all of them, dimensions (step, site, statistic).

        Args:
            component: Its sites in the loop; where it was called outside of it alone, those, without `step`. None for
                all sites, in call order. What fired outside of the loop then stands at step -1, before the first, and
                is NaN at the others; the coordinate `in_loop` tells which sites are NaN at step -1 instead.

        Raises:
            SiteNotFoundError: There is no such component; the message lists near matches.
        """
        loop = self.timestep, self.sigma
        if component is not None:
            return array_of_table(self.table(component), loop)
        sites = [site for module in self.modules.values() for site in module.sites]
        return array_of_all(list(self.tables()), sites, loop)

    @property
    def steps(self) -> xarray.Dataset:
        """What the scheduler saw, lazily: latents, model_output, next_latents, x0 and the previews, along `step`."""
        import xarray

        from .variables import apart

        group = self._archive.dataset(LATENTS) if LATENTS in self._archive else xarray.Dataset()
        further: dict[str, xarray.DataArray] = {}
        for site in self.modules[LATENTS].sites if LATENTS in self.modules else ():
            found = self._variables(site) if site.variants else {}
            further |= {name: array for name, array in found.items() if name not in group}
        with self._fitting(LATENTS):
            return self._with_steps(group.assign(apart(further, group.sizes)))

    @contextlib.contextmanager
    def _fitting(self, name: str) -> Iterator[None]:
        """Tell where arrays of one name contradict each other about their sizes."""
        try:
            yield
        except DxrayError:
            raise
        except ValueError as error:
            raise TraceFormatError(f"{printable(name)} in {self.path} is damaged: {printable(error)[:300]}") from error

    @property
    def tree(self) -> xarray.DataTree:
        """The whole store as xarray sees it."""
        return self._archive.tree()

    def __repr__(self) -> str:
        info = self.info
        stored = sum(module.stored for module in self.modules.values())
        lines = [
            f"<Trace {printable(self.name)}> {printable(info.pipeline)} · {printable(info.status)}",
            f"  steps    {self.n_steps}" + (f" of {info.planned_steps}" if self.n_steps < info.planned_steps else ""),
            f"  modules  {len(self.modules)}, tensors of {stored}",
        ]
        lines += [f"  {printable(name):8} {printable(kind)}" for name, kind in info.components.items()]
        lines += [f"  prompt   {printable(prompt)!r}" for prompt in [info.call.get("prompt")] if prompt]
        return "\n".join(lines)

    def _repr_html_(self) -> str:

        return f"<pre>{html.escape(repr(self))}</pre>"

    def _variables(self, site: SiteInfo) -> dict[str, xarray.DataArray]:
        """The tensors of a site, lazily: a variable for each shape."""
        from .variables import variables_of

        def captured() -> NDArray[np.unsignedinteger]:
            found: NDArray[np.unsignedinteger] = self._archive.load(f"{self._group_of(site)}/captured")[:, site.row]
            return found

        return dict(variables_of(self._archive, site, captured=captured, is_shared=self._is_shared))

    def _with_steps(self, dataset: xarray.Dataset) -> xarray.Dataset:
        """Clip to the complete steps and join the coordinates of the loop.

        How the store has its chunks fits neither what is clipped nor what is one row of a table, so it is forgotten:
        the result can be saved anywhere.
        """
        dataset = dataset.drop_encoding()
        if "step" not in dataset.dims:
            return dataset
        clipped = dataset.isel(step=slice(0, self.n_steps))
        return clipped.assign_coords(
            step=np.arange(self.n_steps), timestep=("step", self.timestep), sigma=("step", self.sigma)
        )
