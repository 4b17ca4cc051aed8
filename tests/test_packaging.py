"""What pyproject.toml promises and what the folders hold agree."""

import importlib
import re
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .checkout import ROOT, files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES: list[str] = PROJECT["tool"]["setuptools"]["packages"]
TOP_FOLDERS = ("pipelines", "tracer", "viewer")
ENTRY_POINTS = [
    EntryPoint(name, value, group)
    for group, entries in {
        "console_scripts": PROJECT["project"]["scripts"],
        **PROJECT["project"]["entry-points"],
    }.items()
    for name, value in entries.items()
]
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|Users|root|work|mnt|opt|scratch)/\w|\b[A-Z]:\\Users\\")


def by_kind(name: str) -> tuple[bool, bool, str]:
    """Constants first, then classes, then functions: the order ruff keeps `__all__` in (RUF022)."""
    return not name.isupper(), not name[0].isupper(), name


def test_every_package_is_listed() -> None:
    """Folders holding an __init__.py are exactly the packages that setuptools is told to install."""
    folders = {init.parent.relative_to(ROOT) for top in TOP_FOLDERS for init in (ROOT / top).rglob("__init__.py")}
    assert sorted(".".join(("diffusion_xray", *folder.parts)) for folder in folders) == PACKAGES


def test_every_data_file_is_installed() -> None:
    """Each file beside the code that is no code matches a pattern of package-data, so no wheel lacks it."""
    patterns = [
        (PurePosixPath(*([] if package == "*" else package.split(".")[1:])), pattern)
        for package, listed in PROJECT["tool"]["setuptools"]["package-data"].items()
        for pattern in listed
    ]

    def is_installed(path: Path) -> bool:
        return any(path.match(pattern) for folder, pattern in patterns if folder == PurePosixPath(".")) or any(
            path in set((ROOT / folder).glob(pattern)) for folder, pattern in patterns if folder != PurePosixPath(".")
        )

    data = [path for path in files() if path.relative_to(ROOT).parts[0] in TOP_FOLDERS and path.suffix != ".py"]
    assert [path.relative_to(ROOT).as_posix() for path in data if not is_installed(path)] == []


@pytest.mark.parametrize("entry_point", ENTRY_POINTS, ids=lambda entry: f"{entry.group}:{entry.name}")
def test_entry_point_loads(entry_point: EntryPoint) -> None:
    """Each entry point names a module that exists and something callable in it."""
    path = ROOT.joinpath(*entry_point.module.split(".")[1:]).with_suffix(".py")
    assert path.is_file()
    assert callable(entry_point.load())


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names(package: str) -> None:
    """The `__all__` of a package is sorted, and every name in it can be had."""
    module = importlib.import_module(package)
    names: list[str] = getattr(module, "__all__", [])
    assert names == sorted(names, key=by_kind)
    assert [name for name in names if not hasattr(module, name)] == []


def requirements(extra: str = "") -> list[Requirement]:
    """What an extra asks for, without the extras of our own that it names; of the base install by default."""
    project = PROJECT["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return [it for it in map(Requirement, lines) if it.name != "diffusion-xray"]


def test_the_test_extra_names_nothing_twice() -> None:
    """It brings the other extras by their names, so that a bound stands in one place."""
    (own,) = (it for it in map(Requirement, PROJECT["project"]["optional-dependencies"]["test"]) if it.extras)
    assert own.name == "diffusion-xray" and own.extras == {"trace", "remote", "recipes", "serve"}
    names = [it.name for extra in ("", "test", *own.extras) for it in requirements(extra)]
    assert sorted(names) == sorted(set(names))


def test_constraints_are_within_the_bounds() -> None:
    """Each dependency but those of the benchmarks is pinned to a version that its bound allows."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    for extra in ("", "trace", "remote", "recipes", "serve", "test", "dev"):
        for it in requirements(extra):
            assert it.specifier.contains(pinned[canonicalize_name(it.name)]), f"{it} is pinned otherwise"


def test_no_file_names_a_machine_path() -> None:
    """No text file of the repository names a folder of the machine it was written on."""
    home_or_checkout = [str(path) for path in (ROOT, Path.home()) if len(path.parts) > 2]
    found = []
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        match = MACHINE_PATH.search(text)
        if match or any(folder in text for folder in home_or_checkout):
            found.append(f"{path.relative_to(ROOT)}: {match[0] if match else 'the checkout or the home folder'}")
    assert found == []
