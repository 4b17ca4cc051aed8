"""The part of the main screen that walks through the steps: by key, by mouse, by itself, or along with a run."""

from __future__ import annotations

from typing import Final

from textual import on

from ..model import Snapshot
from ..opening import find_opening
from ..widgets.layer_tree import LayerTree
from ..widgets.timeline import Timeline
from .feed import FeedScreen
from .stage import StageScreen

__all__ = ["WalkScreen"]

_FRAMES_PER_SECOND: Final = 6


class WalkScreen(StageScreen):
    """Has one step shown, and follows a run that is being written until the user goes back."""

    def go_to_step(self, step: int) -> None:
        """Show a step; one that does not exist is taken as the nearest that does."""
        last = max(self.snapshot.steps - 1, 0)
        self._following = self.snapshot.is_live and step >= last
        if self._following:
            self._followed_to = self.snapshot.steps
        self.select(self._site, min(max(step, 0), last))

    @on(Timeline.Chosen)
    def _step_chosen(self, message: Timeline.Chosen) -> None:
        self.go_to_step(message.step)

    def action_step(self, by: int) -> None:
        """Go some steps on or back."""
        self.go_to_step(self._step + by)

    def action_step_to(self, step: int) -> None:
        """Go to a step, negative from the end."""
        self.go_to_step(step if step >= 0 else self.snapshot.steps + step)

    def action_play(self) -> None:
        """Walk through the steps by itself, or stop."""
        if self._player is not None:
            self._player.stop()
            self._player = None
        elif self.snapshot.steps > 1:
            if self._step >= self.snapshot.steps - 1:
                self.go_to_step(0)
            self._player = self.set_interval(1 / _FRAMES_PER_SECOND, self._play_on)
        self.show()

    def action_follow(self) -> None:
        """Go to the newest step, and stay with it."""
        if self.snapshot.is_live:
            self.go_to_step(self.snapshot.steps - 1)
        else:
            self.notify("Nothing to follow: this trace is not being written.")

    def _play_on(self) -> None:
        if self._step + 1 < self.snapshot.steps:
            self.go_to_step(self._step + 1)
        elif self._player is not None:
            self.action_play()

    @on(FeedScreen.Refreshed)
    def _refreshed(self, message: FeedScreen.Refreshed) -> None:
        fresh, old = message.snapshot, self.snapshot
        if fresh is not None and fresh is not old:
            self._take(fresh)
        if self.snapshot.is_live:
            self.look_again(busy=self.snapshot is not old)

    def _take(self, fresh: Snapshot) -> None:
        """Show what a run wrote since the last look."""
        self.snapshot = fresh
        layer = fresh.layers.get(self._layer)
        sites = layer.module.sites if layer and layer.module else ()
        key = self._site.key if self._site else ""
        site = next((site for site in sites if site.key == key), None)
        if site is None:
            site = find_opening(fresh).site
        step = fresh.steps - 1 if self._following else self._step
        if self._following:
            self._followed_to = fresh.steps
        first = not self._layer
        self.select(site, max(step, 0))
        self.query_one(LayerTree).choose(self._layer, unfold=first)
