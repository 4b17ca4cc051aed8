"""What a recipe is handed: the model it runs on, and where its traces, figures and findings go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from tqdm import tqdm

from diffusion_xray.tracer import Tracer
from diffusion_xray.tracer.capture import Capture, Level
from diffusion_xray.tracer.errors import StoreError

from .models import open_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["Finding", "Lab", "Shown"]

T = TypeVar("T")

_FRAME_MS = 160
"""How long a frame of a film stays, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A figure that a recipe has written."""

    file: Path
    caption: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A number that a recipe has found."""

    name: str
    value: float
    unit: str

    @property
    def number(self) -> str:
        """The value with its unit."""
        return f"{self.value:.4g} {self.unit}".strip()

    def __str__(self) -> str:
        return f"{self.name}: {self.number}"


@dataclass(eq=False)
class Lab:
    """One run of a recipe.

    Args:
        folder: Where traces and figures go; made when the first is written.
        model: Hub id or folder of a pipeline; None is the embedded model.
        device: Where models run; None is CUDA where there is one and `model` is given, else the CPU.
        quiet: Show no progress.
    """

    folder: Path
    model: str | None = None
    device: str | None = None
    quiet: bool = False
    figures: list[Shown] = field(default_factory=list, init=False)
    findings: list[Finding] = field(default_factory=list, init=False)
    traces: list[Path] = field(default_factory=list, init=False)
    _opened: Any = field(default=None, init=False, repr=False)

    def pipeline(self, kind: type[Any] | None = None) -> Any:
        """The pipeline that the recipe runs on, with a scheduler of its own; weights are loaded once.

        Args:
            kind: Class of diffusers to make of its components, `StableDiffusionImg2ImgPipeline` say; None is the
                class that was loaded.

        Raises:
            RecipeError: The model cannot be found or loaded, or has not the parts of a `kind`.
        """
        if self._opened is None:
            self._opened = open_model(self.model, device=self.device)
        return self._opened.pipeline(kind, quiet=self.quiet)

    def trace(self, traced: object, name: str = "trace", *, capture: Level | Capture = "attention") -> Tracer:
        """A tracer that writes ``<name>.zarr`` into the folder, in place of the one of an earlier run.

        Raises:
            StoreError: The folder cannot be made.
        """
        path = self._make_folder() / f"{name}.zarr"
        self.traces.append(path)
        return Tracer(traced, path, capture=capture, overwrite=True)

    def figure(self, name: str, picture: Figure | Image | Sequence[Image], caption: str) -> Path:
        """Write a figure.

        Args:
            name: Of the file, without its ending.
            picture: A figure of matplotlib or one picture, for a PNG; the frames of a film, for a GIF.
            caption: What there is to see, in a sentence or two.

        Returns:
            The file.

        Raises:
            StoreError: It cannot be written.
        """
        path = self._make_folder() / f"{name}.{'gif' if isinstance(picture, Sequence) else 'png'}"
        try:
            if isinstance(picture, Sequence):
                first, *others = picture
                first.save(path, save_all=True, append_images=others, duration=_FRAME_MS, loop=0)
            else:
                save = getattr(picture, "savefig", None) or picture.save  # type: ignore[union-attr]
                save(path)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
        self.figures.append(Shown(path, caption))
        return path

    def found(self, name: str, value: float, unit: str = "") -> None:
        """Keep a number: it is printed at the end, stands in the gallery, and is what tests look at."""
        self.findings.append(Finding(name, float(value), unit))

    def __getitem__(self, name: str) -> float:
        """The value of a finding."""
        return next(finding.value for finding in self.findings if finding.name == name)

    def progress(self, things: Iterable[T], title: str) -> tqdm[T]:
        """A progress bar around a long loop; its `set_postfix` writes beside it how the loop fares."""
        return tqdm(things, desc=title, leave=False, disable=self.quiet)

    def _make_folder(self) -> Path:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the folder {self.folder}: {error.strerror or error}") from error
        return self.folder

    @staticmethod
    def generator(seed: int) -> torch.Generator:
        """Random numbers that are the same on every device: drawn on the CPU."""
        return torch.Generator().manual_seed(seed)
