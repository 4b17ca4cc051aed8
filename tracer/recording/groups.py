"""In which group an array lies, so that no two clash: not over a dimension's size, nor by one lying above another."""

from __future__ import annotations

from collections.abc import Sequence

from ..layout import IO_GROUP, beside, encode_segment, shape_group

__all__ = ["Groups"]


class Groups:
    """Places arrays in the groups of their modules, or beside them where a Zarr reader would stumble otherwise.

    xarray refuses a group in which a dimension has two sizes, and a tree in which it has another size further up.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, dict[str, int]] = {}
        """Dimensions of each group that has arrays."""
        self._above: set[str] = set()
        """Every group that has a group with arrays below it."""
        self._homes: dict[str, str] = {}

    def home(self, group: str) -> str:
        """The group for arrays that are meant for `group`: that one, unless arrays lie in a group above or below it.

        A module without children, whose arrays lie in its own group, may get some later, such as those of an adapter.
        """
        known = self._homes.get(group)
        if known is None:
            known = self._homes[group] = self._free(group)
            self._take(known)
        return known

    def array(self, group: str, name: str, number: int) -> str:
        """Path of the `number`-th array of a tensor called `name`, see `shape_group`."""
        home = self.home(group)
        if number:
            home = shape_group(home, number)
            self._take(home)
        return f"{home}/{encode_segment(name)}"

    def dims(self, group: str, array: str, names: Sequence[str], shape: Sequence[int]) -> tuple[str, ...]:
        """Dimension names of an array that no other array of the group uses with another size."""
        sizes = self._sizes.setdefault(group, {})
        free: list[str] = []
        for name, size in zip(names, shape, strict=True):
            chosen = name if sizes.get(name, size) == size and name not in free else f"{array}_{name}"
            sizes[chosen] = size
            free.append(chosen)
        return tuple(free)

    def _free(self, group: str) -> str:
        while True:
            if group in self._above:
                group = f"{group}/{IO_GROUP}"
            parts = group.split("/")
            above = next((path for end in range(1, len(parts)) if (path := "/".join(parts[:end])) in self._sizes), None)
            if above is None:
                return group
            group = beside(group, above)

    def _take(self, group: str) -> None:
        if group not in self._sizes:
            self._sizes[group] = {}
            parts = group.split("/")
            self._above.update("/".join(parts[:end]) for end in range(1, len(parts)))
