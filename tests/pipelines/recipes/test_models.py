"""Models by id and folder: what is loaded, and one clear line where it cannot be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionXLPipeline
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from diffusion_xray.pipelines.recipes.loading import load_weights
from diffusion_xray.pipelines.recipes.models import open_model
from diffusion_xray.tracer.cli import main
from diffusion_xray.tracer.errors import RecipeError

from ...families import FAMILIES

HUB = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion, saved."""
    folder = tmp_path_factory.mktemp("saved") / "sd"
    FAMILIES["sd"]().pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """The same, to be broken."""
    return shutil.copytree(saved, tmp_path / "sd")


def refusal(model: str | Path, **options: Any) -> str:
    """The line that says why a model does not open."""
    with pytest.raises(RecipeError) as caught:
        open_model(str(model), device="cpu", **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def raising(error: BaseException, *, behind: BaseException | None = None) -> Any:
    """A loader that fails as the hub's client or diffusers do, which wrap what happened."""

    def load(model: str, device: str, without: Sequence[str]) -> Any:
        raise error from behind

    return load


def answer(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    """An error that the hub has answered with."""
    response: Any = SimpleNamespace(headers={}, request=None, status_code=status)
    return kind(f"{status} Client Error.\nAccess to the model is restricted.", response=response)


def test_a_folder_is_loaded_in_full_precision(saved: Path) -> None:
    """A saved pipeline opens with its class, in float32 on the CPU; what is not needed is left out."""
    pipe = open_model(str(saved), device="cpu").pipeline()
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    assert pipe.unet.dtype == torch.float32
    bare = load_weights(str(saved), "cpu", ("vae",))
    assert bare.vae is None and bare.unet is not None


def test_half_precision_files_are_used_where_there_are_some(saved: Path, tmp_path: Path) -> None:
    """For CUDA weights are float16, from files of that kind or from others; bfloat16 for transformers."""
    FAMILIES["sd"]().pipeline.to(dtype=torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
    FAMILIES["flux"]().pipeline.save_pretrained(tmp_path / "flux")
    assert not list((tmp_path / "half" / "unet").glob("diffusion_pytorch_model.safetensors"))
    assert load_weights(str(tmp_path / "half"), "cuda").unet.dtype == torch.float16
    assert load_weights(str(saved), "cuda").unet.dtype == torch.float16
    assert load_weights(str(tmp_path / "flux"), "cuda").transformer.dtype == torch.bfloat16


def test_pipelines_of_one_model_do_not_disturb_each_other(saved: Path) -> None:
    """Each has a scheduler of its own and shares the weights; another kind needs its parts."""
    model = open_model(str(saved), device="cpu")
    first, second = model.pipeline(), model.pipeline(StableDiffusionImg2ImgPipeline)
    first.scheduler.set_timesteps(3)
    assert second.scheduler.num_inference_steps is None and first.unet is second.unet
    with pytest.raises(RecipeError, match=r"a StableDiffusionXLPipeline needs text_encoder_2, tokenizer_2, which .*sd"):
        model.pipeline(StableDiffusionXLPipeline)


def test_no_such_folder(tmp_path: Path) -> None:
    """What can only be a path is told of as one."""
    assert refusal(tmp_path / "nowhere") == f"there is no folder '{tmp_path / 'nowhere'}'"
    assert refusal("./nowhere") == "there is no folder './nowhere'"


def test_a_file(copied: Path) -> None:
    """A file is no pipeline, whatever is in it."""
    assert refusal(copied / "model_index.json").endswith(
        "is a file: give the folder of a pipeline, or the id of one on the hub"
    )


def test_a_folder_without_a_pipeline(tmp_path: Path) -> None:
    """An empty folder lacks what save_pretrained writes."""
    assert f"the folder '{tmp_path}' holds no pipeline: it has no model_index.json" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"])
def test_a_damaged_index(copied: Path, content: bytes) -> None:
    """An index that is no JSON is told of."""
    (copied / "model_index.json").write_bytes(content)
    assert "is damaged: its model_index.json cannot be read; download it again" in refusal(copied)


@pytest.mark.parametrize("index", [[], {}])
def test_an_index_of_nothing(copied: Path, index: Any) -> None:
    """An index that names no pipeline is told of."""
    (copied / "model_index.json").write_text(json.dumps(index))
    assert "its model_index.json names no pipeline" in refusal(copied)


def test_an_unknown_pipeline(copied: Path) -> None:
    """A pipeline that diffusers does not have is named."""
    (copied / "model_index.json").write_text(json.dumps({"_class_name": "NoSuchPipeline"}))
    assert refusal(copied).startswith(f"the folder '{copied}' cannot be loaded, AttributeError: ")


def test_missing_parts(copied: Path) -> None:
    """Parts that the index names and that are not there, or empty, are listed; one that is not needed may be absent."""
    shutil.rmtree(copied / "unet")
    for file in (copied / "tokenizer").iterdir():
        file.unlink()
    assert refusal(copied) == f"the folder '{copied}' lacks tokenizer/, unet/: download it again, all of it"
    shutil.copytree(copied / "vae", copied / "unet")
    assert open_model(str(copied), device="cpu", without=("tokenizer", "unet")).loaded.unet is None


def test_missing_and_damaged_weights(copied: Path) -> None:
    """A part without its weights, or with what is left of them, is told of in one line, and what to do."""
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    for content in (weights.read_bytes()[:1000], b"", b"version https://git-lfs.github.com/spec/v1"):
        weights.write_bytes(content)
        told = f"is damaged: its {weights.relative_to(copied)} cannot be read; download it again"
        assert refusal(copied).endswith(told)
    weights.unlink()
    assert "diffusion_pytorch_model" in refusal(copied)


def test_offline(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Where HF_HUB_OFFLINE is set, as in tests, a model of the hub is asked for in one line, with exit code 2."""
    assert main(["run", "text-to-image", "--model", HUB, "--out", str(tmp_path), "--device", "cpu"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == (
        f"dxray: {HUB} is not on this computer and HF_HUB_OFFLINE is set: unset it, or first hf download {HUB}"
    )


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (raising(answer(GatedRepoError, 403)), f"accept it at https://huggingface.co/{HUB}, then hf auth login"),
        (raising(OSError("no file"), behind=answer(GatedRepoError, 401)), "then hf auth login"),
        (raising(answer(HfHubHTTPError, 401)), "then hf auth login"),
        (raising(answer(RepositoryNotFoundError, 401)), f"the hub has no model '{HUB}' that you may read"),
        (raising(answer(RemoteEntryNotFoundError, 404)), "is no pipeline of diffusers: it has no model_index.json"),
        (raising(LocalEntryNotFoundError("not cached")), f"hf download {HUB} where there is network"),
        (raising(OSError("cannot load"), behind=ConnectionError("refused")), "the hub cannot be reached"),
        (raising(OSError("cannot load"), behind=OfflineModeIsEnabled("offline")), "HF_HUB_OFFLINE is set"),
        (raising(ImportError("needs protobuf\n\nsee there")), f"cannot load {HUB}, ImportError: needs protobuf"),
        (raising(ValueError()), f"cannot load {HUB}, ValueError"),
    ],
)  # fmt: skip
def test_what_the_hub_may_answer(load: Any, told: str) -> None:
    """Licences, accounts, wrong ids and no network are each told of with what to do, however wrapped."""
    assert told in refusal(HUB, load=load)


def test_a_timeout_of_any_http_library() -> None:
    """The hub's client has changed its HTTP library before: errors are known by the names of their classes."""

    class TransportError(Exception):
        pass

    class ProxyError(TransportError):
        pass

    assert "the hub cannot be reached" in refusal(HUB, load=raising(ProxyError("timed out")))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nGPU 0"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_out_of_memory(error: BaseException) -> None:
    """A model that does not fit is told of with a way out."""
    assert refusal(HUB, load=raising(error)).startswith(f"'{HUB}' does not fit into the memory of cpu: try")


def test_no_such_device() -> None:
    """A device that is not there is told of before anything is loaded."""
    with pytest.raises(RecipeError, match="nothing can run on the device 'quantum' here: there is cpu"):
        open_model(HUB, device="quantum", load=raising(AssertionError("loaded")))
