"""Files like those of MNIST, with few pictures of noise."""

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def idx_file(array: NDArray[np.uint8]) -> bytes:
    """A file of MNIST's format."""
    head = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return head + array.tobytes()


def write_mnist(folder: Path) -> Path:
    """The four files, 40 pictures and 20; some packed, some named as in other copies."""
    random = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 20)):
        pictures = random.integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_file(pictures)))
        (folder / f"{part}-labels.idx1-ubyte").write_bytes(idx_file(labels))
    return folder
