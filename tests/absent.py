"""A process in which some of what is installed cannot be imported, as if it were not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

__all__ = ["run_without"]

_WITHOUT = """
import json, sys

class Without:
    def __init__(self, finder, names):
        self.finder, self.names = finder, names

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in self.names else self.finder.find_spec(name, path, target)

names = frozenset(json.loads(sys.argv.pop(1)))
sys.meta_path[:] = [Without(finder, names) for finder in sys.meta_path]
"""
"""Has every finder of modules find none of those that the first argument lists, in JSON."""


def run_without(
    absent: list[str], code: str, *arguments: str, warnings: str = "error"
) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, in which the packages in `absent` are not found.

    Args:
        absent: Names as they are imported.
        code: What runs; `json` and `sys` are imported.
        arguments: `sys.argv[1:]` of it.
        warnings: The filter of warnings.
    """
    return subprocess.run(
        [sys.executable, "-W", warnings, "-c", _WITHOUT + code, json.dumps(absent), *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONUTF8": "1", "DXRAY_DEBUG": ""},
    )
