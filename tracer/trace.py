"""Read a trace: lazy, without torch, also while it is being written."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np

from .attention.reader import AttentionReader
from .errors import SiteNotFoundError, near_matches
from .info import printable
from .layout import LATENTS, MEASURED, STATISTICS
from .prompts import Prompt
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


class Trace(AttentionReader):
    """What was recorded of one run. Made by `open_trace`.

    ``trace["unet.mid_block"]`` is a lazy `xarray.Dataset`; `statistics`, `steps`, `prompts`, `images` and `tree` give
    the rest, `attention` and `word_map` what looked where. `table`, `tensor` and `histogram` are the plain numpy way to
    the same data.
    """

    def __getitem__(self, name: str) -> xarray.Dataset:
        """Everything recorded of one module, lazily: its tensors and its statistics along the steps.

        Raises:
            SiteNotFoundError: (a `KeyError`) no such module; the message lists near matches.
        """
        import xarray

        if name not in self.modules:
            raise SiteNotFoundError(f"no module {name!r} in {self.path}.{near_matches(name, self.modules)}")
        module = self.modules[name]
        variables: dict[str, Any] = {}
        for site in module.sites:
            prefix = "" if site is module.site else f"{site.array_name}_"
            table = self._archive.dataset(self._table_groups()[module.component, site.stepped])
            rows = table.isel(site=site.row)
            for statistic in MEASURED:
                column = rows["statistics"].isel(statistic=STATISTICS.index(statistic))
                variables[prefix + statistic] = column.drop_vars(["site", "statistic"], errors="ignore")
            variables[prefix + "histogram"] = rows["histogram"].drop_vars("site", errors="ignore")
            if site.array:
                group, _, variable = site.array.rpartition("/")
                tensor = self._archive.dataset(group)[variable]
                variables[site.array_name] = tensor.assign_attrs(call=site.call, branch=site.branch)
        dataset = xarray.Dataset(variables, attrs={"module": name, "class": module.module_class})
        return self._with_steps(dataset)

    def statistics(self, component: str) -> xarray.DataArray:
        """Statistics of every site of a component, dimensions (step, site, statistic)."""
        import xarray

        table = self.table(component)
        array = xarray.DataArray(
            table.values[:, :, : len(MEASURED)],
            dims=("step", "site", "statistic"),
            coords={"site": [site.key for site in table.sites], "statistic": list(MEASURED)},
            name=component,
        )
        if not table.stepped:
            return array.isel(step=0)
        coordinates = {"step": np.arange(len(self)), "timestep": ("step", self.timestep), "sigma": ("step", self.sigma)}
        return array.assign_coords(coordinates)

    @property
    def steps(self) -> xarray.Dataset:
        """What the scheduler saw, lazily: latents, model_output, next_latents, x0 and the previews, along `step`."""
        import xarray

        group = self._archive.dataset(LATENTS) if LATENTS in self._archive else xarray.Dataset()
        return self._with_steps(group)

    @property
    def tree(self) -> xarray.DataTree:
        """The whole store as xarray sees it."""
        return self._archive.tree()

    def __repr__(self) -> str:
        info = self.info
        stored = sum(module.stored for module in self.modules.values())
        lines = [
            f"<Trace {printable(self.name)}> {printable(info.pipeline)} · {printable(info.status)}",
            f"  steps    {len(self)}" + (f" of {info.planned_steps}" if len(self) < info.planned_steps else ""),
            f"  modules  {len(self.modules)}, tensors of {stored}",
        ]
        lines += [f"  {printable(name):8} {printable(kind)}" for name, kind in info.components.items()]
        lines += [f"  prompt   {printable(prompt)!r}" for prompt in [info.call.get("prompt")] if prompt]
        return "\n".join(lines)

    def _repr_html_(self) -> str:

        return f"<pre>{html.escape(repr(self))}</pre>"

    def _with_steps(self, dataset: xarray.Dataset) -> xarray.Dataset:
        """Clip to the complete steps and join the coordinates of the loop."""
        if "step" not in dataset.dims:
            return dataset
        clipped = dataset.isel(step=slice(0, len(self)))
        return clipped.assign_coords(
            step=np.arange(len(self)), timestep=("step", self.timestep), sigma=("step", self.sigma)
        )
