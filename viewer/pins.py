"""Pinned layers, kept from one session to the next."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Pins"]

_MOST_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Pins:
    """Names of the layers that the user wants to find again in one trace.

    They lie in the user's own folder, one file a trace, never in the trace, which others read or nobody may write.
    """

    file: Path | None = None
    """Where they are kept; None to keep nothing."""
    trace: str = ""
    """The full path, for who looks into the file."""

    @classmethod
    def of(cls, trace: Path | str) -> Pins:
        """Those of a trace, in the state folder of the XDG specification (``~/.local/state/dxray/pins``)."""
        where = str(trace.resolve()) if isinstance(trace, Path) else trace
        state = Path(os.environ.get("XDG_STATE_HOME", ""))
        base = state if state.is_absolute() else Path("~/.local/state").expanduser()
        name = hashlib.sha256(where.encode("utf-8", errors="surrogateescape")).hexdigest()[:24]
        return cls(base / "dxray" / "pins" / f"{name}.json", where)

    def read(self) -> set[str]:
        """The names; none where nothing was kept, or nothing that can be read."""
        try:
            if self.file is None or self.file.stat().st_size > _MOST_BYTES:
                return set()
            found = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return set()
        layers = found.get("layers") if isinstance(found, dict) else None
        return {name for name in layers if isinstance(name, str)} if isinstance(layers, list) else set()

    def write(self, layers: Iterable[str]) -> str:
        """Keep these instead; the result says why they are not kept, "" where they are."""
        if self.file is None:
            return ""
        document = {"trace": self.trace, "layers": sorted(layers)}
        try:
            if not document["layers"]:
                self.file.unlink(missing_ok=True)
                return ""
            self.file.parent.mkdir(parents=True, exist_ok=True)
            fresh = self.file.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps(document), encoding="utf-8")
            fresh.replace(self.file)
        except OSError as error:
            return str(error)
        return ""
