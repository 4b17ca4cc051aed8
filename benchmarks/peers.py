"""Other recorders on the same loop: each is called as its own guide says, set to keep the outputs of all modules.

A peer is a function of a loop and an empty folder, whose parent is its own, too. It runs the loop once and returns
the latents with a function that counts, off the clock, what is kept.
"""

# ruff: noqa: INP001 (beside the scripts that import it, no package)
from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loops import Loop
from torch import Tensor, nn

__all__ = ["PEERS", "Kept", "Peer"]


@dataclass(frozen=True, slots=True)
class Kept:
    """What a peer holds after a loop."""

    modules: int | None
    """Modules told apart, or None where operators are recorded instead."""
    nbytes: int
    """Bytes of tensors in memory, or of files."""
    where: str
    """ "memory" or "disk"."""


Peer = Callable[[Loop, Path], tuple[Tensor, Callable[[], Kept]]]


def clones(loop: Loop, folder: Path) -> tuple[Tensor, Callable[[], Kept]]:  # noqa: ARG001
    """Forward hooks that clone every output: the least that keeping values in memory can cost."""
    kept: dict[str, list[Any]] = {}

    def hook(name: str, module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001
        kept.setdefault(name, []).append([tensor.clone() for tensor in _tensors(output)])

    handles = [
        module.register_forward_hook(functools.partial(hook, name)) for name, module in loop.unet.named_modules()
    ]
    try:
        latents = loop.run()
    finally:
        for handle in handles:
            handle.remove()
    return latents, lambda: Kept(len(kept), _nbytes(kept), "memory")


def nnsight(loop: Loop, folder: Path) -> tuple[Tensor, Callable[[], Kept]]:  # noqa: ARG001
    """``tracer.cache()``, which saves every module's output; on a CPU it keeps references, not copies."""
    from nnsight import NNsight

    model, caches = NNsight(loop.unet), []

    def denoise(*args: Any, **kwargs: Any) -> Any:
        with model.trace(*args, **kwargs) as tracer:
            cache = tracer.cache().save()
            output = model.output.save()
        caches.append(cache)
        return output

    latents = loop.run(denoise)
    return latents, lambda: Kept(
        len(caches[0].keys()),
        _nbytes([cache[name].output for cache in caches for name in cache.keys()]),  # noqa: SIM118 — not a mapping
        "memory",
    )


def torchlens_trace(loop: Loop, folder: Path) -> tuple[Tensor, Callable[[], Kept]]:  # noqa: ARG001
    """``torchlens.trace`` with the outputs of all operators, its full log of a forward pass."""
    import torchlens

    logs: list[Any] = []

    def denoise(*args: Any, **kwargs: Any) -> Any:
        # Without a seed of its own it would draw one; nothing here is random.
        capture = torchlens.options.CaptureOptions(layers_to_save="all", random_seed=0)
        logs.append(torchlens.trace(loop.unet, list(args), kwargs, capture=capture))
        return [logs[-1][logs[-1].output_layers[0]].out]

    latents = loop.run(denoise)
    return latents, lambda: Kept(len(logs[0].modules), sum(int(log.saved_activation_memory) for log in logs), "memory")


def torchlens_record(loop: Loop, folder: Path) -> tuple[Tensor, Callable[[], Kept]]:  # noqa: ARG001
    """``torchlens.record`` with all operators and modules, its faster way without the graph."""
    import torchlens

    recordings: list[Any] = []

    def denoise(*args: Any, **kwargs: Any) -> Any:
        output, recording = torchlens.record(
            loop.unet, list(args), kwargs, default_op=True, default_module=True, return_output=True
        )
        recordings.append(recording)
        return output

    latents = loop.run(denoise)

    def count() -> Kept:
        payloads = [record.ram_payload for recording in recordings for record in recording.records]
        return Kept(len(recordings[0].by_address), _nbytes(payloads), "memory")

    return latents, count


def msprobe(loop: Loop, folder: Path, *, task: str) -> tuple[Tensor, Callable[[], Kept]]:
    """`PrecisionDebugger` at level L0, that of modules, for outputs only (its default adds inputs and parameters)."""
    dump = _msprobe_dump(folder.parent, task)
    from msprobe.pytorch import PrecisionDebugger

    def denoise(*args: Any, **kwargs: Any) -> Any:
        PrecisionDebugger.start(loop.unet)
        output = loop.unet(*args, **kwargs)
        PrecisionDebugger.stop()
        PrecisionDebugger.step()
        return output

    latents = loop.run(denoise)

    def count() -> Kept:
        calls = json.loads(min(dump.rglob("dump.json")).read_text())["data"]  # "Module.conv_in.Conv2d.forward.0"
        kept = Kept(len({call.rsplit(".", 2)[0] for call in calls}), _on_disk(dump), "disk")
        for step in dump.iterdir():
            shutil.rmtree(step)
        return kept

    return latents, count


@functools.cache
def _msprobe_dump(folder: Path, task: str) -> Path:
    """Make the debugger, of which there is one a process, and return the folder of its files, one folder a step."""
    from msprobe.pytorch import PrecisionDebugger

    config, dump = folder / "config.json", folder / "dump"
    data = {"scope": [], "list": [], "data_mode": ["forward", "output"], "summary_mode": "statistics"}
    config.write_text(json.dumps({"task": task, "rank": [], "step": [], "level": "L0", task: data}))
    PrecisionDebugger(config_path=str(config), dump_path=str(dump))
    return dump


def transformers_debugger(loop: Loop, folder: Path) -> tuple[Tensor, Callable[[], Kept]]:
    """`model_addition_debugger_context` of transformers with tensors as files: inputs of all, outputs of leaves."""
    from transformers.model_debugging_utils import model_addition_debugger_context

    current = [folder]

    def next_folder(step: int, _: Tensor) -> None:
        current[0] = folder / str(step)  # it names its files after the modules alone, so each step needs a folder

    def denoise(*args: Any, **kwargs: Any) -> Any:
        with model_addition_debugger_context(
            loop.unet, debug_path=str(current[0]), do_prune_layers=False, use_repr=False
        ):
            return loop.unet.forward(*args, **kwargs)

    latents = loop.run(denoise, next_folder)

    def count() -> Kept:
        tree = json.loads(next((folder / "0").glob("*_SUMMARY.json")).read_text())
        return Kept(len(set(_paths(tree))), _on_disk(folder), "disk")

    return latents, count


def debug_mode(loop: Loop, folder: Path, *, outputs: bool) -> tuple[Tensor, Callable[[], Kept]]:  # noqa: ARG001
    """`DebugMode` of torch with modules named: a norm of each operator's outputs, or a clone of them."""
    from torch.utils._debug_mode import DebugMode

    values = DebugMode.record_outputs() if outputs else DebugMode.log_tensor_hashes("norm")
    with DebugMode(record_nn_module=True) as mode, values:
        latents = loop.run()
    return latents, lambda: Kept(None, _nbytes([getattr(call, "record", None) for call in mode.operators]), "memory")


PEERS: Mapping[str, tuple[str, Peer]] = {
    "hooks that clone": ("torch", clones),
    "nnsight, cache": ("nnsight", nnsight),
    "torchlens, trace": ("torchlens", torchlens_trace),
    "torchlens, record": ("torchlens", torchlens_record),
    "msprobe, statistics": ("mindstudio-probe", functools.partial(msprobe, task="statistics")),
    "msprobe, tensor": ("mindstudio-probe", functools.partial(msprobe, task="tensor")),
    "transformers debugger": ("transformers", transformers_debugger),
    "DebugMode, norms": ("torch", functools.partial(debug_mode, outputs=False)),
    "DebugMode, outputs": ("torch", functools.partial(debug_mode, outputs=True)),
}
"""Distribution and function of each."""


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _nbytes(value: Any) -> int:
    """Bytes of the distinct storages below `value`."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in _tensors(value)}
    return sum(storage.nbytes() for storage in storages.values())


def _on_disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _paths(node: Mapping[str, Any]) -> Iterator[str]:
    yield node["module_path"]
    for child in node.get("children", ()):
        yield from _paths(child)
