"""The part of the main screen that holds the selection and the view shown, and hands both to the widgets."""

from __future__ import annotations

from collections.abc import Hashable

from textual import on
from textual.binding import Binding, BindingsMap
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import ContentSwitcher

from diffusion_xray.tracer.info import SiteInfo, printable

from ..loader import Answer, Loader
from ..look import Look
from ..model import Snapshot
from ..opening import Opening
from ..previews import Previews
from ..scene import Scene
from ..views.protocol import Missing, Request
from ..views.registry import Registry
from ..widgets.canvas import Canvas
from ..widgets.explanation import Explanation
from .feed import FeedScreen
from .keys import KEYS, LAST, page_keys, tab_keys

__all__ = ["StageScreen"]


class StageScreen(FeedScreen):
    """Knows views by their protocol alone. Pages are made when they are first shown, into ``#pages``."""

    def __init__(
        self, loader: Loader, snapshot: Snapshot, opening: Opening, views: Registry, *, shade: bool = False
    ) -> None:
        super().__init__(loader)
        self.snapshot = snapshot
        self.views = views
        self._layer = opening.layer
        self._site = opening.site
        self._step = opening.step
        self._view = views[opening.tab]
        self._wishes: dict[str, Hashable] = {} if opening.wish is None else {opening.tab: opening.wish}
        self._look = Look(shade=shade)
        self._answer: Answer | None = None
        self._previews = Previews()
        self._waiting = True
        self._following = snapshot.is_live and opening.step >= snapshot.steps - 1
        self._followed_to = snapshot.steps
        self._player: Timer | None = None
        self._told = ""
        self._own_bindings = self._bindings.copy()

    @property
    def scene(self) -> Scene:
        """What is on show."""
        answer = self._answer
        looking_back = self.snapshot.is_live and not self._following
        return Scene(
            snapshot=self.snapshot,
            site=self._site,
            step=self._step,
            view=self._view,
            views=self.views,
            look=self._look,
            wish=self._wishes.get(self._view.id),
            found=answer.found if answer else None,
            error=answer.error if answer else "",
            previews=self._previews,
            loading=self._waiting,
            playing=self._player is not None,
            following=self._following,
            unseen=max(self.snapshot.steps - self._followed_to, 0) if looking_back else 0,
        )

    @property
    def holds_keys(self) -> bool:
        """Whether the next key is for the view, which is about to take the focus with what is read for it."""
        return self._waiting and any(getattr(page, "wants_keys", False) for page in self.query(f"#{self._view.id}"))

    @property
    def request(self) -> Request:
        """What is to be read for what is on show."""
        return Request(self._site, self._step, self.snapshot.steps, self._wishes.get(self._view.id))

    def all_keys(self) -> list[Binding]:
        """The keys that hold now: those of the screen, of the tabs and of the view shown."""
        return [*KEYS, *tab_keys(self.views.values()), *page_keys(self._view)]

    async def open_page(self, tab: str) -> bool:
        """Make a view the one shown; False where it cannot be made, which is told."""
        view = self.views[tab]
        if not self.query(f"#{tab}"):
            try:
                page = view.widget()
            except Exception as error:
                if tab not in self.views.foreign:
                    raise
                self.tell(f"{type(error).__name__}: {error}", title=f"View {tab!r} cannot be opened")
                return await self.open_page(next(iter(self.views))) if view is self._view else False
            for canvas in page.walk_children(Canvas, with_self=True):
                canvas.forgiving = tab in self.views.foreign
            await self.query_one("#pages", ContentSwitcher).add_content(page, id=tab)
        self._view, self._answer = view, None
        self._bindings = self._own_bindings.copy()
        for more in (tab_keys(self.views.values()), page_keys(view)):  # the view's win over the screen's
            self._bindings.key_to_bindings.update(BindingsMap(more).key_to_bindings)
        keys = self._bindings.key_to_bindings
        for key in [key for key, bound in keys.items() if any(binding.id in LAST for binding in bound)]:
            keys[key] = keys.pop(key)
        self.show()
        self.refresh_bindings()
        return True

    async def action_page(self, action: str) -> None:
        """Do what a key of the view says."""
        try:
            await self.app.run_action(action, self.page)
        except Exception as error:
            if self._view.id not in self.views.foreign:
                raise
            self.tell(f"{type(error).__name__}: {error}", title=f"View {self._view.id!r} failed")

    @property
    def page(self) -> Widget:
        """The widget of the view shown."""
        return self.query_one(f"#{self._view.id}")

    def tell(self, error: str, *, title: str) -> None:
        """Show an error, once for all times it comes in a row."""
        if error != self._told:
            self._told = error
            self.notify(printable(error), title=printable(title), severity="error", markup=False)

    def select(self, site: SiteInfo | None, step: int) -> None:
        """Show another tensor, or another step of it."""
        if site is not self._site:
            self._site = site
            self._layer = site.name if site else ""
            self._answer = None
        self._step = step
        self._waiting = True
        self.show()
        missing = self._missing(self.scene) is not None
        if not missing or self.snapshot.has_previews:
            self.read_soon(None if missing else self._view, self.request)

    def show(self) -> None:
        """Hand what is on show to the widgets that are to be seen."""
        scene = self.scene
        missing = self._missing(scene)
        self.query_one("#missing", Explanation).missing = missing
        pages = self.query_one("#pages", ContentSwitcher)
        pages.current = self._view.id if missing is None else "missing"
        self.set_class(self._view.with_previews, "-previewed")
        self.set_class(self.snapshot.has_previews, "-previews")
        hidden = {page for page in pages.children if page is not pages.visible_content}
        for canvas in self.query(Canvas):
            if hidden.isdisjoint(canvas.ancestors_with_self):
                canvas.scene = scene

    def _missing(self, scene: Scene) -> Missing | None:
        try:
            return self._view.missing(scene)
        except Exception as error:
            if self._view.id not in self.views.foreign:
                raise
            return Missing(f"? This view failed: {type(error).__name__}: {error}")

    @on(FeedScreen.Read)
    def _arrived(self, message: FeedScreen.Read) -> None:
        if message.view not in (None, self._view) or message.request != self.request:
            return
        self._previews, self._waiting = message.answer.previews, False
        if message.view is not None:
            self._answer = message.answer
        if message.answer.error:
            self.tell(message.answer.error, title="Not readable")
        self.show()

    @on(Canvas.Wished)
    def _wished(self, message: Canvas.Wished) -> None:
        self._wishes[self._view.id] = message.wish
        self.select(self._site, self._step)

    @on(Canvas.Looked)
    def _looked(self, message: Canvas.Looked) -> None:
        self._look = message.look
        self.show()

    @on(Canvas.Failed)
    def _failed(self, message: Canvas.Failed) -> None:
        self.tell(message.error, title=f"View {self._view.id!r} failed")
