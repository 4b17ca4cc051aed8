"""Write what is exported, without ever replacing a file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from diffusion_xray.tracer.errors import StoreError

__all__ = ["write_new"]

_MOST: Final = 1000


def write_new(folder: str | Path, stem: str, suffix: str, data: bytes) -> Path:
    """Write a new file, numbered where the name is taken: ``name.png``, ``name-2.png``, ….

    Returns:
        The file; its name differs from `stem` + `suffix` where that was there already.

    Raises:
        StoreError: The folder does not exist, or cannot be written; a file that was begun is removed.
    """
    place = Path(folder).expanduser()
    for number in range(1, _MOST + 1):
        path = place / f"{stem}{f'-{number}' if number > 1 else ''}{suffix}"
        try:
            file = path.open("xb")
        except FileExistsError:
            continue
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot write into {place}: {_reason(error)}; choose another folder") from error
        try:
            with file:
                file.write(data)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise StoreError(f"cannot write {path}: {_reason(error)}") from error
        return path
    raise StoreError(f"{place} holds {_MOST} files called {stem}{suffix}; choose another folder")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
