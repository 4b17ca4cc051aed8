"""The text encoder by itself."""

import numpy as np
import pytest

from diffusion_xray.pipelines.recipes.components.text_embeddings import text_embeddings
from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.tracer import open_trace
from diffusion_xray.tracer.errors import RecipeError


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The recipe, run once."""
    lab = Lab(tmp_path_factory.mktemp("text"), quiet=True)
    text_embeddings(lab)
    return lab


def test_prompts_of_a_kind_are_alike(lab: Lab) -> None:
    """They are far more alike than others, and the nearest of each is one of its kind."""
    assert lab["mean similarity of prompts of a kind"] > lab["mean similarity of prompts of two kinds"] + 0.7
    assert lab["prompts whose nearest is of their kind"] == 1


def test_the_encoder_is_given_token_and_position(lab: Lab) -> None:
    """What enters the transformer is the sum of the two tables' rows, padding included."""
    trace = open_trace(lab.traces[0])
    token, position = (trace[f"records.{name}_embedding"]["output"].values for name in ("token", "position"))
    assert token.shape == (12, 20, 64) and position.shape == (20, 64)
    entered = trace["text_encoder.embeddings"]["output"].values
    np.testing.assert_allclose(entered, token + position, atol=1e-6)


def test_the_similarity_is_that_of_the_words_outputs(lab: Lab) -> None:
    """Computed again from the output of the encoder's last module and the prompts' tokens, it is the same."""
    trace = open_trace(lab.traces[0])
    outputs = trace["text_encoder.final_layer_norm"]["output"].values.astype(np.float64)
    tokens = trace.prompts[0].tokens
    vectors = np.stack(
        [
            output[1 : 1 + sum(not token.startswith("<|") for token in words)].mean(0)
            for output, words in zip(outputs, tokens, strict=True)
        ]
    )
    vectors -= vectors.mean(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = trace["records.similarity"]["output"].values
    np.testing.assert_allclose(similarity, vectors @ vectors.T, atol=1e-5)


def test_kinds_must_be_whole(tmp_path: object) -> None:
    """Prompts that do not divide into kinds are refused."""
    with pytest.raises(RecipeError, match="2 prompts are not several kinds of 2"):
        text_embeddings(Lab(tmp_path, quiet=True), prompts=("a", "b"), of_a_kind=2)  # type: ignore[arg-type]
