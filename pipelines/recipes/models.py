"""Open the model that a recipe runs on: the embedded one, or real weights by hub id or folder."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer.errors import RecipeError

from .loading import folder_fault, load_weights, why_not

__all__ = ["Model", "open_model"]


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded pipeline, of whose parts others can be made."""

    name: str
    loaded: Any
    """As it was loaded; nothing may change it."""

    def pipeline(self, kind: type[Any] | None = None, *, quiet: bool = True) -> Any:
        """A pipeline of the same weights with a scheduler of its own.

        Raises:
            RecipeError: The model has not the parts of a `kind`.
        """
        kind = kind or type(self.loaded)
        parts = {name: copy.deepcopy(part) if name == "scheduler" else part for name, part in self._parts().items()}
        parameters = inspect.signature(kind).parameters
        needed = [name for name, it in parameters.items() if it.default is inspect.Parameter.empty]
        if missing := [name for name in needed if name not in parts]:
            raise RecipeError(f"a {kind.__name__} needs {', '.join(missing)}, which {self.name} does not have")
        pipeline = kind(**{name: part for name, part in parts.items() if name in parameters})
        pipeline.set_progress_bar_config(leave=False, disable=quiet)
        return pipeline

    def _parts(self) -> dict[str, Any]:
        settings = {name: value for name, value in self.loaded.config.items() if not name.startswith("_")}
        return {**settings, "feature_extractor": None, **self.loaded.components}


def open_model(
    model: str | None = None,
    *,
    device: str | None = None,
    without: Sequence[str] = (),
    load: Callable[[str, str, Sequence[str]], Any] = load_weights,
) -> Model:
    """Load a pipeline.

    Args:
        model: Hub id or folder; None is the embedded model, which runs on the CPU.
        device: Where it runs; None is CUDA where there is one and `model` is given, else the CPU. On CUDA weights are
            of half precision, else float32.
        without: Components that are not needed: they are None.
        load: Loads weights by model, device and what to leave out.

    Raises:
        RecipeError: It cannot be found or loaded; the message says what to download or to log in to.
    """
    if model is not None and not model.strip():
        raise RecipeError(f"{model!r} is no model: give an id of the hub or the folder of a pipeline")
    device = _usable(device or ("cuda" if model is not None and torch.cuda.is_available() else "cpu"))
    if model is None:
        return Model("the embedded model", load_pipeline().to(device))
    if Path(model).is_dir() and (fault := folder_fault(Path(model), without)):
        raise RecipeError(fault)  # diffusers would make do with some parts that are empty
    try:
        return Model(model, load(model, device, without).to(device))
    except Exception as error:
        raise RecipeError(why_not(model, device, error)) from error


def _usable(device: str) -> str:
    """`device`, if something can be put there."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        known = ["cpu", *(["cuda"] if torch.cuda.is_available() else ())]
        known += ["mps"] if torch.backends.mps.is_available() else []
        raise RecipeError(f"nothing can run on the device {device!r} here: there is {', '.join(known)}") from error
    return device
