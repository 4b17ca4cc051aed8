"""Handwritten digits: those that scikit-learn brings, or MNIST from a folder; and a classifier that reads them."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_xray.tracer.errors import RecipeError

__all__ = ["CLASSES", "Digits", "batches", "load_digits", "recognised", "train_classifier"]

CLASSES = 10

_HELD_OUT = 360
"""Of scikit-learn's 1797 digits, a fifth."""
_CLASSIFIER_DIGITS = 5000
"""A support vector machine takes time with the square of what it is shown; more tells it little."""
_INSTALL = 'pip install "diffusion-xray[recipes]"'


@dataclass(frozen=True, slots=True)
class Digits:
    """Pictures of digits, and which they are."""

    pictures: Tensor
    """(digit, 1, y, x), float32 in [0, 1], ink is 1."""
    labels: Tensor
    """(digit,), int64."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> int:
        """Height and width of a picture, in pixels."""
        return self.pictures.shape[-1]

    def of_each_class(self, count: int) -> Digits:
        """The first `count` pictures of every digit, 0 to 9, one digit after the other."""
        chosen = torch.cat([(self.labels == label).nonzero()[:count, 0] for label in range(CLASSES)])
        return Digits(self.pictures[chosen], self.labels[chosen])


def load_digits(mnist: Path | None = None, *, device: str | None = None) -> tuple[Digits, Digits]:
    """The digits to train on, and those held out.

    Args:
        mnist: Folder with MNIST's four files as they are distributed, gzipped or not, 28×28 pixels; None is
            scikit-learn's `load_digits`, 1797 pictures of 8×8 pixels (Alpaydin & Kaynak 1998, UCI Machine Learning
            Repository, https://doi.org/10.24432/C50P49), of which a fifth is held out.
        device: Where they go; None is the CPU.

    Raises:
        RecipeError: scikit-learn is not installed; a file is missing or is not what it should be.
    """
    if mnist is not None:
        pairs = [(_idx(mnist, f"{part}-images", 3), _idx(mnist, f"{part}-labels", 1)) for part in ("train", "t10k")]
        (pictures, labels), (held_pictures, held_labels) = pairs
        for some, theirs in pairs:
            if len(some) != len(theirs) or not len(some) or some.shape[1] != some.shape[2] or theirs.max() >= CLASSES:
                raise RecipeError(
                    f"{mnist} is not MNIST: it has {len(some)} pictures of {some.shape[1]}×{some.shape[2]} pixels "
                    f"and {len(theirs)} labels"
                )
        return _digits(pictures / 255, labels, device), _digits(held_pictures / 255, held_labels, device)
    try:
        from sklearn.datasets import load_digits as bundled
    except ImportError as error:
        raise RecipeError(f"the digits come with scikit-learn: {_INSTALL}, or give --mnist a folder") from error
    images, labels = bundled(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))  # as they are, they are sorted by writers
    images, labels = images[order].reshape(-1, 8, 8) / 16, labels[order]
    held = slice(None, _HELD_OUT)
    rest = slice(_HELD_OUT, None)
    return _digits(images[rest], labels[rest], device), _digits(images[held], labels[held], device)


def batches(digits: Digits, size: int, random: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures and labels, `size` at a time, shuffled anew in each epoch, without end."""
    size = min(size, len(digits))
    while True:
        order = torch.randperm(len(digits), generator=random)
        for first in range(0, len(digits) - size + 1, size):
            chosen = order[first : first + size]
            yield digits.pictures[chosen], digits.labels[chosen]


def train_classifier(digits: Digits) -> Any:
    """A support vector machine that reads digits: scikit-learn's `SVC`.

    Raises:
        RecipeError: scikit-learn is not installed.
    """
    try:
        from sklearn.svm import SVC
    except ImportError as error:
        raise RecipeError(f"the classifier is scikit-learn's: {_INSTALL}") from error
    shown = slice(None, _CLASSIFIER_DIGITS)
    return SVC(C=10).fit(_flat(digits.pictures[shown]), digits.labels[shown].cpu().numpy())


def recognised(classifier: Any, pictures: Tensor, labels: Tensor) -> float:
    """The share of pictures, 0 to 1, that the classifier takes for what they are meant to be."""
    return float((classifier.predict(_flat(pictures)) == labels.cpu().numpy()).mean())


def _flat(pictures: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = pictures.flatten(1).cpu().numpy()
    return array


def _digits(pictures: NDArray[Any], labels: NDArray[Any], device: str | None) -> Digits:
    shown = torch.from_numpy(pictures.astype(np.float32))[:, None]
    return Digits(shown.to(device or "cpu"), torch.from_numpy(labels.astype(np.int64)).to(device or "cpu"))


def _idx(folder: Path, name: str, rank: int) -> NDArray[np.uint8]:
    """Read a file of MNIST: two zero bytes, the type 8, the rank, the sizes as big-endian int32, then the bytes.

    Its name is "train-images-idx3-ubyte" as published, or with a dot in place of the second hyphen.
    """
    names = [f"{name}{mark}idx{rank}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    path = next((folder / each for each in names if (folder / each).is_file()), None)
    if path is None:
        raise RecipeError(f"{folder} has no {names[0]} (or .gz): give --mnist the folder with MNIST's four files")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise RecipeError(f"cannot read {path}: {error}") from error
    head = 4 + 4 * rank
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, head, 4))
    if data[:4] != bytes((0, 0, 8, rank)) or len(data) != head + math.prod(shape):
        raise RecipeError(f"{path} is not a file of MNIST, or not all of it: download it again")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)
