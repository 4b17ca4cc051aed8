"""Load a pipeline by hub id or folder, and say in one line why it cannot be loaded and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError, safe_open

__all__ = ["folder_fault", "is_out_of_memory", "load_weights", "why_not"]

_INDEX = "model_index.json"
"""What a folder of a pipeline has at its top."""
_LONGEST = 240
"""Characters of another library's message that are shown."""
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def load_weights(model: str, device: str, without: Sequence[str] = ()) -> Any:
    """Load a pipeline of diffusers for a device, on which it is not yet.

    Args:
        model: Hub id or folder.
        device: On CUDA weights are float16, from their float16 files where there are such; bfloat16 where the denoiser
            is a transformer, which float16 overflows in. Elsewhere they are float32.
        without: Components that are not loaded, and not downloaded either.
    """
    parts = dict.fromkeys(without)
    if not device.startswith("cuda"):
        return DiffusionPipeline.from_pretrained(model, dtype=torch.float32, **parts)
    has_transformer = "transformer" in DiffusionPipeline.load_config(model)
    dtype = torch.bfloat16 if has_transformer else torch.float16
    try:
        return DiffusionPipeline.from_pretrained(model, dtype=dtype, variant="fp16", **parts)
    except ValueError as error:
        if "variant" not in str(error):
            raise
    return DiffusionPipeline.from_pretrained(model, dtype=dtype, **parts)


def why_not(model: str, device: str, error: BaseException) -> str:
    """One line that says why a pipeline was not loaded, and what to download, to accept or to mend."""
    if is_out_of_memory(error):
        return f"{model!r} does not fit into the memory of {device}: try a smaller model, or --device cpu"
    if Path(model).is_dir():
        fault = folder_fault(Path(model)) or _weights_fault(Path(model))
        return fault or f"the folder '{model}' cannot be loaded, {_first_line(error)}"
    if Path(model).exists():
        return f"{model!r} is a file: give the folder of a pipeline, or the id of one on the hub"
    if model.startswith((".", "/", "~")) or "\\" in model or model.count("/") > 1:
        return f"there is no folder {model!r}"
    return _about_hub(model, list(_chain(error)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the device or of the computer."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(sign in str(error).lower() for sign in _NO_MEMORY)


def folder_fault(folder: Path, without: Sequence[str] = ()) -> str:
    """What a folder lacks to be a pipeline; "" where all its parts are there."""
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"the folder '{folder}' holds no pipeline: it has no {_INDEX}, as save_pretrained writes it"
    except (OSError, ValueError):
        return f"the folder '{folder}' is damaged: its {_INDEX} cannot be read; download it again"
    if not isinstance(index, dict) or not index.get("_class_name"):
        return f"the folder '{folder}' is damaged: its {_INDEX} names no pipeline; download it again"
    needed = [name for name, part in index.items() if isinstance(part, list) and any(part) and name not in without]
    missing = [f"{name}/" for name in needed if not (folder / name).is_dir() or not any((folder / name).iterdir())]
    return f"the folder '{folder}' lacks {', '.join(missing)}: download it again, all of it" if missing else ""


def _weights_fault(folder: Path) -> str:
    """Which file of weights cannot be read, as after a download that was cut off; "" where all can."""
    for file in sorted(folder.glob("*/*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError):
            return f"the folder '{folder}' is damaged: its {file.relative_to(folder)} cannot be read; download it again"
    return ""


def _about_hub(model: str, errors: Sequence[BaseException]) -> str:
    def met(*kinds: type[BaseException]) -> bool:
        return any(isinstance(error, kinds) for error in errors)

    page = f"https://huggingface.co/{model}"
    refused = any(_status(error) in (401, 403) for error in errors)
    if met(GatedRepoError) or (refused and not met(RepositoryNotFoundError)):
        return f"{model} is given out under a licence: accept it at {page}, then hf auth login"
    if met(RepositoryNotFoundError):
        return f"the hub has no model {model!r} that you may read: check the id; for a private one, hf auth login"
    if met(OfflineModeIsEnabled):
        return f"{model} is not on this computer and HF_HUB_OFFLINE is set: unset it, or first hf download {model}"
    if met(RemoteEntryNotFoundError):
        return f"{model} on the hub is no pipeline of diffusers: it has no {_INDEX}"
    if met(LocalEntryNotFoundError, ConnectionError, TimeoutError) or any(map(_is_of_network, errors)):
        return (
            f"the hub cannot be reached and {model} is not on this computer: hf download {model} where there is network"
        )
    return f"cannot load {model}, {_first_line(errors[0])}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it; libraries wrap what happened in words of their own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    return getattr(error.response, "status_code", None) if isinstance(error, HfHubHTTPError) else None


def _is_of_network(error: BaseException) -> bool:
    """Whether it is one of the HTTP library's, which is another from one version of the hub's client to the next."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"ConnectionError", "NetworkError", "TimeoutException", "Timeout", "TransportError"})


def _first_line(error: BaseException) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    line = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
