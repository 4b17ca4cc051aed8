"""The attention page: words on the left, the map beside them, the share over the steps below."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Final, Literal

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical

from ..export.sheet import Taken
from ..scene import Scene
from ..views.attention_seen import Offer, Seen
from ..views.attention_taken import attention_taken
from ..views.attention_wish import Wish
from .attention_map import AttentionMap
from .attention_steps import ShareOverSteps
from .attention_title import entry_text, heads_text
from .attention_words import WordList, percent
from .layer_tree import LayerTree

__all__ = ["AttentionPage"]

_WIDE: Final = 79
_HIGH: Final = 24
_HEADS: Final[dict[str, Literal["mean", "max", "single"]]] = {"mean": "max", "max": "single", "single": "mean"}


class AttentionPage(Vertical):
    """Holds what is wished for; the canvases draw from the scene, and tell the page of keys and clicks."""

    INNER_BINDINGS: ClassVar[list[BindingType]] = [*WordList.BINDINGS, *AttentionMap.BINDINGS]
    """Keys of its parts, for the help."""

    DEFAULT_CSS = """
    AttentionPage {
        height: 1fr;
        & > #attention-body { height: 1fr; }
        & #attention-map { width: 1fr; }
        & #attention-words { width: 32; margin-right: 1; display: none; }
        &.-words #attention-words, &.-tokens #attention-words { display: block; }
        &.-slim #attention-words { width: 27; }
        & > #attention-steps { height: 5; display: none; }
        &.-low > #attention-steps { height: 3; }
        &.-words > #attention-steps { display: block; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._wish: Wish | None = None
        self._entered = False
        self._kind = ""

    def compose(self) -> ComposeResult:
        """Lay out the three."""
        with Horizontal(id="attention-body"):
            yield WordList(self, id="attention-words")
            yield AttentionMap(self, id="attention-map")
        yield ShareOverSteps(id="attention-steps")

    @property
    def seen(self) -> Seen | None:
        """What was read last."""
        return self._map.seen

    @property
    def wants_keys(self) -> bool:
        """Whether it takes the focus with what is read for it."""
        return self._entered

    @property
    def wish(self) -> Wish:
        """What is asked for; the screen may lag a key behind."""
        if self._wish is None:
            scene = self._map.scene
            self._wish = scene.wish if scene is not None and isinstance(scene.wish, Wish) else Wish()
        return self._wish

    @property
    def _map(self) -> AttentionMap:
        return self.query_one(AttentionMap)

    def taken(self) -> Taken | None:
        """The map, for whoever exports it; None where there is none to come."""
        scene = self._map.scene
        if scene is None:
            return None
        seen = self.seen
        about = ", ".join(filter(None, (heads_text(seen), entry_text(seen)))) if seen is not None else ""
        return attention_taken(scene, self.wish, about, unit=percent, opacity=self._map.map_opacity)

    def ask(self, **changes: Any) -> None:
        """Have something else read."""
        seen = self.seen
        wish = self.wish
        if not wish.word and seen is not None and seen.chosen and seen.mass is not None and "round" not in changes:
            # what was chosen for the user stays
            wish = replace(wish, word=seen.names[seen.chosen[0]])
        self._wish = replace(wish, **{"round": 0, **changes})
        self._map.post_message(AttentionMap.Wished(self._wish))

    def on_resize(self, event: events.Resize) -> None:
        """Leave the picture as much room as there is."""
        self.set_class(event.size.width < _WIDE, "-slim")
        self.set_class(event.size.height < _HIGH, "-low")

    def on_show(self) -> None:
        """Take the keys, now or with the first answer."""
        self._entered = True
        scene = self._map.scene
        if scene is not None:
            self._enter(scene)

    def on_hide(self) -> None:
        """Leave the keys to the layers."""
        self._entered = False
        focused = self.screen.focused
        if focused is None or self in focused.ancestors_with_self:
            for tree in self.screen.query(LayerTree):
                tree.focus()

    def take(self, scene: Scene) -> None:
        """Show the parts that belong to what was read, and have the rest of it read where it came in part."""
        found = scene.found
        if found is None and scene.loading:
            return
        kind = found.kind if isinstance(found, Seen) else ""
        if kind != self._kind:  # where the keys are of no more use
            self._kind = kind
            focused = self.screen.focused
            self._entered = self._entered or (focused is not None and self in focused.ancestors)
        self.set_class(kind == "words", "-words")
        self.set_class(kind == "tokens", "-tokens")
        self._enter(scene)
        if isinstance(found, Seen) and found.further and not scene.loading and found.wish == self.wish:
            self.ask(round=found.wish.round + 1)

    def choose(self, name: str, *, add: bool = False) -> None:
        """Look at a word; or add it to the one looked at, or take it out again."""
        wish = self.wish
        if not add:
            self.ask(word=name)
        elif name in wish.added:
            self.ask(added=tuple(other for other in wish.added if other != name))
        else:
            self.ask(added=(*wish.added, name))

    def action_head(self, by: int) -> None:
        """Another head, alone."""
        self.ask(heads="single", head=self.wish.head + (by if self.wish.heads == "single" else 0))

    def action_heads(self) -> None:
        """Mean, largest, or one."""
        self.ask(heads=_HEADS[self.wish.heads])

    def action_spread(self, over: Literal["heads", "layers"]) -> None:
        """Small maps, or one."""
        if self.seen is not None and self.seen.kind == "tokens":
            self.notify("Tokens have no maps: the bars are of one head with , and .", timeout=3)
            return
        self.ask(spread="" if self.wish.spread == over else over)
        self._map.focus()

    def action_wide(self) -> None:
        """All layers, or one."""
        if self.seen is not None and self.seen.kind == "tokens":
            self.notify("Layers are averaged where an image looks.", timeout=3)
            return
        self.ask(wide=not self.wish.wide)

    def action_reverse(self) -> None:
        """The other direction."""
        if self.seen is not None and self.seen.kind == "words":
            self.notify("A map of a word shows who looks at it; the other direction is of self-attention.", timeout=3)
            return
        self.ask(reverse=not self.wish.reverse)

    def action_places(self) -> None:
        """Words or places."""
        if self.seen is not None and len(self.seen.kinds) < 2:
            self.notify("Only in joint attention are keys both words and places.", timeout=3)
            return
        self.ask(places=not self.wish.places)
        (self._map if self.wish.places else self.query_one(WordList)).focus()

    def action_overlay(self) -> None:
        """More or less of the picture."""
        self._map.next_opacity()

    def action_entry(self, by: int) -> None:
        """Another entry of the batch."""
        if self.seen is not None:
            self.ask(entry=(self.seen.entry + by) % self.seen.entries)

    def action_frame(self, by: int) -> None:
        """Another frame."""
        if self.seen is not None and len(self.seen.grid) == 3:
            self.ask(frame=(self.seen.frame + by) % self.seen.grid[0])

    def action_go(self) -> None:
        """To the layer that is offered, or the head under the cursor."""
        scene = self._map.scene
        if scene is not None and isinstance(scene.found, Offer):
            calls = scene.found.calls
            self._go_to(calls[self.wish.item % len(calls)].module)
            return
        tile = self._map.tile
        if tile is not None:
            layer, head = tile
            own = self.seen.call.module if self.seen else ""
            self.ask(spread="", heads="single", head=head, wide=False)
            if layer and layer != own:
                self._go_to(layer)

    def _enter(self, scene: Scene) -> None:
        found = scene.found
        if self._entered and found is not None:
            self._entered = False
            listed = isinstance(found, Seen) and found.kind != "places" and not found.wish.spread
            if listed:
                self.query_one(WordList).focus()
            elif isinstance(found, Seen | Offer):
                self._map.focus()

    def _go_to(self, layer: str) -> None:
        go = getattr(self.screen, "go_to_layer", None)
        if go is not None:
            go(layer.partition(":")[0])
