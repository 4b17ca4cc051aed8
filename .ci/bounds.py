"""Say which lower bounds of pyproject.toml are not what is installed: those that ``./dev lowest`` does not test."""

from __future__ import annotations

import sys
from importlib.metadata import requires, version

from packaging.requirements import Requirement
from packaging.version import Version

APART = {
    "torch": "its old builds for Linux on PyPI are gigabytes of CUDA; ./dev says which was taken",
}
"""What may be newer than its bound, and why."""


def main() -> int:
    """Print a line for each bound that is lower than what was installed; 1 where there is one."""
    untrue = []
    for line in sorted(set(requires("diffusion-xray") or ())):
        requirement = Requirement(line)
        extra = next((name for name in ("trace", "remote", "recipes", "serve", "test") if f'"{name}"' in line), "")
        bounds = [clause.version for clause in requirement.specifier if clause.operator == ">="]
        asked = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if bounds and asked and requirement.name not in APART:
            found = version(requirement.name)
            if Version(found) != Version(bounds[0]):
                untrue.append(f"{requirement.name}>={bounds[0]}: the lowest that fits the others is {found}")
    print("\n".join(untrue), file=sys.stderr)
    return bool(untrue)


if __name__ == "__main__":
    sys.exit(main())
