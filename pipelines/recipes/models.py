"""Open the model that a recipe runs on: the embedded one, or real weights by hub id or folder."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer.errors import RecipeError

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


def open_model(model: str | None = None, *, device: str | None = None) -> Model:
    """Load a pipeline.

    Args:
        model: Hub id or folder; None is the embedded model, which runs on the CPU.
        device: Where it runs; None is CUDA where there is one and `model` is given, else the CPU. On CUDA weights are
            float16, else float32.

    Raises:
        RecipeError: It cannot be found or loaded; the message says what to download or to log in to.
    """
    if model is None:
        return Model("the embedded model", load_pipeline().to(device or "cpu"))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    try:
        loaded = DiffusionPipeline.from_pretrained(model, dtype=dtype)
    except (OSError, ValueError) as error:
        where = "the folder" if Path(model).exists() else "the hub's model"
        raise RecipeError(f"cannot load {where} {model!r}: {str(error).splitlines()[0]}") from error
    return Model(model, loaded.to(device))
