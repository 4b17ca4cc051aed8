"""What the user has set for every trace: other keys, and a theme."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Settings", "load_settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The contents of the file, as far as they make sense."""

    keys: Mapping[str, str] = field(default_factory=dict)
    """Keys by the ids that `dxray keys` prints, in Textual's names; several with commas."""
    theme: str = ""
    """Name of a theme; "" for the usual one."""
    problem: str = ""
    """What of the file is not understood."""


def load_settings(file: Path | None = None) -> Settings:
    """Read the settings.

    Args:
        file: A TOML file; ``~/.config/dxray/config.toml``, or what the XDG specification says, when it is None.
    """
    if file is None:
        config = Path(os.environ.get("XDG_CONFIG_HOME", ""))
        file = (config if config.is_absolute() else Path("~/.config").expanduser()) / "dxray" / "config.toml"
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError) as error:
        return Settings(problem=f"{file}: {error}")
    keys, theme = found.get("keys", {}), found.get("theme", "")
    if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
        return Settings(problem=f'{file}: [keys] takes lines such as "step.on" = "ctrl+right"')
    if not isinstance(theme, str):
        return Settings(keys, problem=f'{file}: theme takes a name such as "textual-light"')
    other = sorted(found.keys() - {"keys", "theme"})
    return Settings(
        keys, theme, f"{file}: {', '.join(other)} means nothing; there is [keys] and theme" if other else ""
    )
