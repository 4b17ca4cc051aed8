"""Past the page cache."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np
import pytest

from diffusion_xray.tracer.storage.direct import PAGE, Pace, aligned_memory, open_direct


@pytest.mark.parametrize("nbytes", [1, PAGE, 5 * PAGE + 17])
def test_memory_begins_on_a_page(nbytes: int) -> None:
    """Memory of any size begins on a page boundary and can be written to."""
    memory = aligned_memory(nbytes)
    memory[:] = 7
    assert memory.shape == (nbytes,) and memory.ctypes.data % PAGE == 0 and memory.sum() == 7 * nbytes


def test_no_memory_is_no_error() -> None:
    """Nothing asked for, nothing given."""
    assert aligned_memory(0).shape == (0,)


def test_a_direct_write_is_read_at_once(tmp_path: Path) -> None:
    """What was written past the page cache is there for readers through it, before and after what was not."""
    file = tmp_path / "shard"
    file.write_bytes(b"head" * 10)
    direct = open_direct(file)
    if direct < 0:
        pytest.skip("this disk has no direct writes")
    memory = aligned_memory(2 * PAGE)
    memory[:] = np.arange(2 * PAGE) % 251
    assert os.pwrite(direct, memory.data, PAGE) == 2 * PAGE
    os.close(direct)
    read = file.read_bytes()
    assert read[:40] == b"head" * 10 and read[40:PAGE] == bytes(PAGE - 40) and read[PAGE:] == memory.tobytes()


def test_where_there_is_no_direct_writing_nothing_is_opened(tmp_path: Path) -> None:
    """A file that cannot be opened so is no error: the page cache takes its chunks."""
    assert open_direct(tmp_path / "missing") == -1


@pytest.mark.parametrize(
    ("nbytes", "seconds", "slow"), [(0, 0, False), (1 << 20, 9, False), (1 << 30, 1, False), (1 << 30, 11, True)]
)
def test_a_slow_disk_shows_after_a_while(nbytes: int, seconds: int, slow: bool) -> None:
    """Only a disk that has been given enough to do, and took long for it, is left to the page cache."""
    pace = Pace()
    (ctypes.c_int64 * 2).from_address(pace.address)[:] = [nbytes, seconds * 1_000_000_000]
    assert pace.is_slow is slow
