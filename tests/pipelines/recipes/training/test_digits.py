"""Digits to train on, and the classifier that reads them."""

import gzip
import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_xray.pipelines.recipes.training.digits import (
    CLASSES,
    Digits,
    batches,
    load_digits,
    recognised,
    train_classifier,
)
from diffusion_xray.tracer.errors import RecipeError

from .mnist_files import idx_file, write_mnist


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A folder with MNIST's four files, of few pictures."""
    return write_mnist(tmp_path)


def test_bundled_digits() -> None:
    """scikit-learn's digits come as pictures in [0, 1], a fifth of them held out, none in both parts."""
    training, held_out = load_digits()
    assert training.pictures.shape == (1437, 1, 8, 8) and held_out.pictures.shape == (360, 1, 8, 8)
    assert training.pictures.min() == 0 and training.pictures.max() == 1
    assert set(training.labels.tolist()) == set(held_out.labels.tolist()) == set(range(CLASSES))
    assert torch.cdist(held_out.pictures.flatten(1), training.pictures.flatten(1)).min() > 0


def test_mnist_from_a_folder(mnist: Path) -> None:
    """MNIST's files are read, packed or not, as they are written."""
    training, held_out = load_digits(mnist)
    written = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)
    assert training.pictures.shape == (40, 1, 28, 28) and training.size == 28 and len(held_out) == 20
    np.testing.assert_array_equal((training.pictures[:, 0] * 255).round().numpy(), written)
    assert training.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] * 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte.gz", None, "has no train-images-idx3-ubyte"),
        ("train-images-idx3-ubyte.gz", b"<html>not found</html>", "cannot read"),
        ("train-images-idx3-ubyte.gz", gzip.compress(bytes(1000), mtime=0)[:-20], "cannot read"),
        ("train-images-idx3-ubyte.gz", gzip.compress(b"\0\0", mtime=0), "is not a file of MNIST"),
        ("t10k-labels.idx1-ubyte", b"", "is not a file of MNIST"),
        ("t10k-labels.idx1-ubyte", idx_file(np.zeros(20, np.uint8))[:-1], "not all of it"),
        ("t10k-labels.idx1-ubyte", idx_file(np.zeros(21, np.uint8)), "20 pictures of 28×28 pixels and 21 labels"),
        ("t10k-labels.idx1-ubyte", idx_file(np.full(20, 10, np.uint8)), "labels"),
    ],
)
def test_what_is_not_mnist_is_named(mnist: Path, name: str, content: bytes | None, message: str) -> None:
    """A file that is missing, torn or of another kind is named in one line."""
    (mnist / name).unlink()
    if content is not None:
        (mnist / name).write_bytes(content)
    with pytest.raises(RecipeError, match=re.escape(message)) as caught:
        load_digits(mnist)
    assert str(mnist) in str(caught.value) and "\n" not in str(caught.value)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is missing, the message says what to install."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(RecipeError, match=r"pip install .*recipes"):
        load_digits()
    with pytest.raises(RecipeError, match=r"pip install .*recipes"):
        train_classifier(Digits(torch.zeros(1, 1, 8, 8), torch.zeros(1)))


def test_an_epoch_shows_each_picture_once() -> None:
    """Batches are shuffled anew in every epoch, and pictures stay with their labels."""
    digits = Digits(torch.arange(12.0)[:, None, None, None], torch.arange(12))
    drawn = list(itertools.islice(batches(digits, 4, torch.Generator().manual_seed(0)), 6))
    assert all(torch.equal(pictures.flatten(), labels.float()) for pictures, labels in drawn)
    first, second = (torch.cat([labels for _, labels in drawn[part]]).tolist() for part in (slice(3), slice(3, 6)))
    assert sorted(first) == sorted(second) == list(range(12)) and first != second
    few = next(batches(digits, 100, torch.Generator().manual_seed(0)))
    assert len(few[0]) == 12


def test_the_classifier_reads_digits() -> None:
    """It recognises nearly all true digits held out, and next to none that are asked for as another."""
    training, held_out = load_digits()
    classifier = train_classifier(training)
    assert recognised(classifier, held_out.pictures, held_out.labels) > 0.97
    assert recognised(classifier, held_out.pictures, (held_out.labels + 1) % CLASSES) < 0.03
