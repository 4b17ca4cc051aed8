"""The descriptors and the folder of a trace: the run keeps its own, and nothing is written anywhere else."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from diffusion_xray.tracer import StoreExistsError, Tracer, TracerWarning, open_trace
from diffusion_xray.tracer.layout import tensor_spec
from diffusion_xray.tracer.recording import places
from diffusion_xray.tracer.storage.checksum import CHECKSUM_BYTES
from diffusion_xray.tracer.storage.folder import Folder
from diffusion_xray.tracer.storage.open_shards import OpenShards, descriptor_share
from diffusion_xray.tracer.storage.shards import Shard
from diffusion_xray.tracer.storage.store import StoreWriter

from ..networks import Denoiser, denoise

resource = pytest.importorskip("resource")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def descriptors() -> set[int]:
    """Those that this process has open."""
    return {number for number in range(1000) if _is_open(number)}


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def python(code: str, *arguments: str) -> list[str]:
    """What a program in another process prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    return done.stdout.split()


# Descriptors.


def test_thousands_of_arrays_with_few_descriptors(tmp_path: Path) -> None:
    """10 000 arrays are written by a process that may open 256 files, three quarters of which are the run's."""
    shown = python(
        """
        import os, resource, sys
        from pathlib import Path
        import numpy as np
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        from diffusion_xray.tracer.layout import tensor_spec
        from diffusion_xray.tracer.storage.store import StoreWriter, bulk_calls
        bulk_calls()
        before, most = len(os.listdir("/dev/fd")), 0
        own = [os.open(os.devnull, os.O_RDONLY) for _ in range(256 * 3 // 4 - before)]  # the run takes all of its part
        store = StoreWriter(Path(sys.argv[1]), {})
        names = [f"array{number}" for number in range(10_000)]
        for name in names:
            store.add_array(tensor_spec(name, "float32", (2,), ("batch",), steps=2, codec="raw", attributes={}))
        for step in range(2):
            for start in range(0, len(names), 500):
                values = np.full(2, step, np.float32)
                store.append_all([(name, step, values, 0) for name in names[start : start + 500]])
                most = max(most, len(os.listdir("/dev/fd")))
        store.close()
        print(most - before - len(own), len(os.listdir("/dev/fd")) - before - len(own))
        """,
        str(tmp_path / "many.zarr"),
    )
    assert int(shown[0]) <= 64
    assert int(shown[1]) == 0
    for number in (0, 63, 64, 5000, 9999):
        data = (tmp_path / "many.zarr" / f"array{number}" / "c.0.0").read_bytes()
        chunks = np.frombuffer(data[128 * 16 :], [("values", "<f4", 2), ("checksum", "<u4")])
        assert chunks["values"].tolist() == [[0, 0], [1, 1]]


def test_a_run_that_takes_all_descriptors_loses_nothing(tmp_path: Path) -> None:
    """When the process may open nothing more, the trace closes its own files and goes on with what that gives."""
    store = StoreWriter(tmp_path / "run.zarr", {})
    names = [f"array{number}" for number in range(20)]
    for name in names:
        store.add_array(tensor_spec(name, "float32", (2,), ("batch",), steps=4, codec="raw", attributes={}))
    values = np.ones((1, 2), np.float32)
    for name in names[:10]:
        store.append(name, (0,), values)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(descriptors())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
    own = []
    try:
        with pytest.raises(OSError, match="open files"):  # noqa: PT012
            while True:
                own.append(os.open(os.devnull, os.O_RDONLY))
        for name in names:
            store.append(name, (1,), values)
        store.publish()
    finally:
        for descriptor in own:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        store.close()
    for name in names:
        index = np.frombuffer((tmp_path / "run.zarr" / name / "c.0.0").read_bytes()[:64], "<u8").reshape(4, 2)
        assert index[1, 1] == values.nbytes + CHECKSUM_BYTES


def test_stores_share_the_descriptors(tmp_path: Path) -> None:
    """Several traces at once keep no more files open than one, and none once they are closed."""
    gc.collect()  # stores of other tests that nobody has closed
    folder = Folder(tmp_path / "run.zarr")
    shards = [Shard(folder, f"shard{number}", 1) for number in range(2 * descriptor_share())]
    first, second = OpenShards(), OpenShards()
    for shard in shards[::2]:
        shard.open()
        first.keep_or_close(shard)
    for shard in shards[1::2]:
        shard.open()
        second.keep_or_close(shard)
    kept = sum(shard.is_open for shard in shards)
    assert 0 < kept <= descriptor_share() * 3 // 4
    second.end()
    for shard in shards[::2]:
        shard.open()
        first.keep_or_close(shard)
    assert sum(shard.is_open for shard in shards) > kept // 2
    third = OpenShards()
    first.shrink()
    assert sum(shard.is_open for shard in shards) <= descriptor_share() * 3 // 8
    first.end()
    third.end()
    assert not any(shard.is_open for shard in shards)
    folder.close()


def test_after_a_failure_no_descriptor_is_left(tmp_path: Path) -> None:
    """A trace that cannot be written to its end closes its files all the same."""

    class Full(StoreWriter):
        """Has no room for the second step."""

        def poke(self, path: str, position: int, value: float) -> None:
            """Commit the first step only."""
            if position:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().poke(path, position, value)

    model = Denoiser()
    before = descriptors()
    with pytest.warns(TracerWarning, match="No space left"), Tracer(model, tmp_path / "run.zarr", store=Full):
        denoise(model, steps=3)
    assert descriptors() == before


# The folder.


@pytest.mark.parametrize("how", ["link", "folder", "nothing"])
def test_a_folder_that_was_swapped_receives_nothing(tmp_path: Path, how: str) -> None:
    """Whatever takes the place of a trace that is being written stays as it is, and the user is told."""
    model = Denoiser()
    with Tracer(model, tmp_path / "other.zarr", capture="all"):
        denoise(model, steps=3)
    before = contents(tmp_path / "other.zarr")
    path = tmp_path / "run.zarr"

    class Swapped(StoreWriter):
        """Has its folder taken away after the first step."""

        def poke(self, name: str, position: int, value: float) -> None:
            """Commit, then swap."""
            super().poke(name, position, value)
            if (name, position) == ("committed", 0):
                path.rename(tmp_path / "moved.zarr")
                if how == "link":
                    path.symlink_to(tmp_path / "other.zarr")
                elif how == "folder":
                    (tmp_path / "other.zarr").rename(path)

    plain = denoise(model, steps=3)
    warned = pytest.warns(TracerWarning, match=r"run\.zarr is another folder")
    with warned, Tracer(model, path, capture="all", store=Swapped):
        traced = denoise(model, steps=3)
    assert (plain == traced).all()
    assert path.exists() is (how != "nothing")
    if how != "nothing":
        assert contents(path) == before
    moved = open_trace(tmp_path / "moved.zarr")
    assert moved.info.status == "incomplete"
    assert moved.n_steps == 3


def test_a_folder_within_that_was_swapped_receives_nothing(tmp_path: Path) -> None:
    """Folders of modules that become links into another trace during the run lead nowhere: not a byte goes there."""
    model = Denoiser()
    with Tracer(model, tmp_path / "other.zarr", capture="all"):
        denoise(model, steps=3)
    before = contents(tmp_path / "other.zarr")
    path = tmp_path / "run.zarr"

    class Swapped(StoreWriter):
        """Has every folder in it replaced by a link after the first step."""

        def poke(self, name: str, position: int, value: float) -> None:
            """Commit, then swap."""
            super().poke(name, position, value)
            if (name, position) == ("committed", 0):
                for folder in [folder for folder in path.iterdir() if folder.is_dir()]:
                    folder.rename(tmp_path / f"moved-{folder.name}")
                    folder.symlink_to(tmp_path / "other.zarr" / folder.name)

    plain = denoise(model, steps=140)  # more than one shard: files are opened anew
    with pytest.warns(TracerWarning), Tracer(model, path, capture="all", store=Swapped):
        traced = denoise(model, steps=140)
    assert (plain == traced).all()
    assert contents(tmp_path / "other.zarr") == before


@pytest.mark.parametrize("depth", [1, 5, 6, 7, 40])
def test_deep_folders_hold_few_descriptors(tmp_path: Path, depth: int) -> None:
    """However deep files lie, they are found, in any order, with a handful of open folders."""
    before = descriptors()
    files = Folder(tmp_path / "run.zarr")
    names = ["/".join([f"{name}{level}" for level in range(depth)]) for name in "ab"]
    for name in names:
        files.make(name)
    for turn in range(3):
        for name in [*names, *(name.rpartition("/")[0] for name in names)]:
            file = f"{name}/file{turn}".lstrip("/")
            files.replace(file, name.encode())
            assert (tmp_path / "run.zarr" / file).read_bytes() == name.encode()
            assert files.exists(file) and not files.exists(f"{name}/none".lstrip("/"))
            assert len(descriptors()) <= len(before) + 8
    files.remove(f"{names[0]}/file0")
    assert not (tmp_path / "run.zarr" / names[0] / "file0").exists()
    files.close()
    assert descriptors() == before


def test_a_link_within_a_trace_is_not_written_through(tmp_path: Path) -> None:
    """A file of a trace that was replaced by a link to another file leaves that one alone."""
    store = StoreWriter(tmp_path / "run.zarr", {})
    store.add_array(tensor_spec("array", "float32", (2,), ("batch",), steps=4, codec="raw", attributes={}))
    (tmp_path / "run.zarr" / "array").mkdir()
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "run.zarr" / "array" / "c.0.0").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(OSError, match=r"symbolic link|Too many levels"):
        store.append("array", (0,), np.ones((1, 2), np.float32))
    store.close()
    assert (tmp_path / "mine.txt").read_text() == "mine"


# Two processes.


def test_a_trace_whose_writer_lives_is_not_replaced(tmp_path: Path) -> None:
    """`overwrite` refuses a trace that another process is still writing, and names it; once it is gone, it may be."""
    path, model = tmp_path / "run.zarr", Denoiser()
    code = """
        import sys, torch
        from diffusion_xray.tracer import Tracer
        Tracer(torch.nn.Linear(2, 2), sys.argv[1]).__enter__()
        print("ready", flush=True)
        sys.stdin.read()
        import os; os._exit(0)
        """
    other = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdin is not None and other.stdout is not None
    with other:
        assert other.stdout.readline() == "ready\n"
        before = contents(path)
        with pytest.raises(StoreExistsError, match=f"written by process {other.pid}, which still runs"):
            Tracer(model, path, overwrite=True).__enter__()
        assert contents(path) == before
        other.stdin.close()
    with Tracer(model, path, overwrite=True):
        denoise(model, steps=2)
    assert open_trace(path).info.status == "complete"
    assert [file.name for file in tmp_path.iterdir()] == ["run.zarr"]


def test_a_trace_that_came_meanwhile_is_not_deleted(tmp_path: Path) -> None:
    """What another process has put in place since one looked stays."""
    path = tmp_path / "run.zarr"
    path.mkdir()
    seen = places._identity(path)
    path.rename(tmp_path / "older.zarr")
    path.mkdir()
    (path / "new").write_text("new")
    with pytest.raises(StoreExistsError, match="replaced by another process"):
        places._take_away(path, seen)
    assert contents(path) == {"new": b"new"}


def test_a_link_is_not_replaced(tmp_path: Path) -> None:
    """A link to a trace is no trace to delete."""
    model = Denoiser()
    with Tracer(model, tmp_path / "real.zarr"):
        denoise(model, steps=2)
    (tmp_path / "run.zarr").symlink_to(tmp_path / "real.zarr")
    with pytest.raises(StoreExistsError, match="is a link"):
        Tracer(model, tmp_path / "run.zarr", overwrite=True).__enter__()
    assert open_trace(tmp_path / "real.zarr").info.status == "complete"
