"""The command palette: every key of the screen as a command, every layer and step as a place to go to."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.types import IgnoreReturnCallbackType

from diffusion_xray.tracer.info import printable

if TYPE_CHECKING:
    from .screens.main import MainScreen

__all__ = ["Actions", "Layers", "NamedSteps", "Steps"]

_MOST = 50
_Entry = tuple[str, str, IgnoreReturnCallbackType]


class _Places(Provider):
    """Entries whose text holds every word typed. The stock matcher takes a blank for a letter to be found."""

    def entries(self, query: str) -> Iterator[_Entry]:
        """Text, help and command of each entry that may match."""
        raise NotImplementedError

    @property
    def main(self) -> MainScreen:
        """The screen that the palette was opened on."""
        return cast("MainScreen", self.screen)

    @property
    def is_here(self) -> bool:
        """Whether the palette was opened on a screen of one trace; others have entries of their own."""
        return hasattr(self.screen, "snapshot")

    async def discover(self) -> Hits:
        if not self.is_here:
            return
        for place, (text, note, command) in enumerate(self.entries("")):
            if place >= _MOST:
                return
            yield DiscoveryHit(Content(printable(text)), command, text=printable(text), help=_literal(note))

    async def search(self, query: str) -> Hits:
        if not self.is_here:
            return
        words = query.lower().split()
        found = 0
        for text, note, command in self.entries(query):
            if all(word in text.lower() for word in words):
                found += 1
                yield Hit(
                    1 - found / 1000, Content(printable(text)), command, text=printable(text), help=_literal(note)
                )
            if found >= _MOST:
                return


class Layers(_Places):
    """Layers to go to."""

    def entries(self, query: str) -> Iterator[_Entry]:
        """The layers that hold the words."""
        for layer in self.main.snapshot.matching(query):
            kind = layer.module.module_class if layer.module else ""
            yield layer.name, kind, partial(self.main.go_to_layer, layer.name)


class Steps(_Places):
    """Steps to go to, found by number or timestep."""

    def entries(self, query: str) -> Iterator[_Entry]:
        """All steps, that of the very number first."""
        snapshot, words = self.main.snapshot, query.split()
        for step in sorted(range(snapshot.steps), key=lambda step: str(step) not in words):
            text = f"step {step}  t={snapshot.timestep[step]:g}"
            yield text, "", partial(self.main.go_to_step, step)


class NamedSteps(Steps):
    """The same among everything else: only once something of a step is typed."""

    async def discover(self) -> Hits:
        """Nothing: there may be thousands."""
        return
        yield

    async def search(self, query: str) -> Hits:
        """The steps that hold the words, if there is a figure in them."""
        if any(character.isdigit() for character in query):
            async for hit in super().search(query):
                yield hit


class Actions(_Places):
    """What the keys do, and the two ways to go somewhere."""

    def entries(self, query: str) -> Iterator[_Entry]:  # noqa: ARG002 - the words are matched by the caller
        """Going somewhere first, then the keys in their order."""
        yield "Go to layer…", "Choose a layer by words of its name", partial(self._open, Layers, "layer …")
        yield "Go to step…", "Choose a step by its number or timestep", partial(self._open, Steps, "step …")
        yield (
            "Most changed layer",
            "The layer whose statistic changes most over the steps",
            partial(self._run, "changed"),
        )
        yield "Largest absmax", "The layer with the largest value at any step", partial(self._run, "largest")
        yield "First value large for float16", "An eighth of what float16 can hold, or more", self.main.action_narrow
        yield "Reload", "Look at the trace again", self.main.reload
        yield "Debug info", "Terminal, colours, versions", self._tell_versions
        for binding in self.main.all_keys():
            action = partial(self.main.run_action, binding.action)
            yield binding.description, f"{binding.tooltip} ({binding.key_display or binding.key})", action

    def _tell_versions(self) -> None:
        import os
        import platform
        from importlib.metadata import version

        names = ("diffusion-xray", "textual", "zarr", "numpy")
        parts = [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)]
        parts += [f"{name}={os.environ.get(name, '')}" for name in ("TERM", "COLORTERM", "NO_COLOR")]
        parts += [f"colours: {self.app.console.color_system}", f"{self.app.size.width}×{self.app.size.height}"]
        self.app.notify(printable(" · ".join(parts)), title="Debug info", timeout=15, markup=False)

    def _run(self, order: str) -> None:
        self.main.action_extreme(order)

    def _open(self, provider: type[Provider], placeholder: str) -> None:
        self.app.push_screen(CommandPalette(providers=[provider], placeholder=placeholder))


def _literal(text: str) -> str | None:
    """Text that the palette, which takes it for markup, shows as it is."""
    return printable(text).replace("[", "\\[") or None
