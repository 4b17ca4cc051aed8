"""Hold a trace against a run that was watched without a tracer; each function says "right", or what is wrong."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion_xray.tracer import Trace
from diffusion_xray.tracer.info import SiteInfo
from diffusion_xray.tracer.layout import STATISTICS

from .family import Foreign, Sight
from .reference import Attended, Watched, named_modules

__all__ = ["RIGHT", "branches", "judge", "latents", "steps", "values", "words"]

RIGHT = "right"
NONE = "none"
"""There is nothing of the kind, and nothing is said."""
Array = np.ndarray[Any, Any]


def judge(family: Foreign, trace: Trace, seen: Watched, parts: Mapping[str, list[list[bool]]]) -> dict[str, str]:
    """Everything at once.

    Args:
        family: What ran.
        trace: Of its traced run.
        seen: Its untraced run.
        parts: For each denoiser and each of its calls in a step whether its batch's parts depend on the prompt.
    """
    return {
        "steps": steps(trace, seen),
        "branches": branches(trace, seen, parts, provable=family.provable),
        "words": words(family, trace, seen, parts),
        "latents": latents(trace, seen),
        "values": values(family, trace, seen),
    }


def steps(trace: Trace, seen: Watched) -> str:
    """Number, timesteps and levels, and that the run is said to be complete."""
    first = [event for event in seen.steps if event.at[1] == 0]
    said, were = trace.timestep, np.array([event.timestep for event in first])
    if len(said) != len(were):
        return f"{len(said)} steps, were {len(were)}"
    if trace.info.planned_steps != len(were):
        return f"{trace.info.planned_steps} planned, were {len(were)}"
    if not np.array_equal(said, were):
        return f"timesteps {said.tolist()}, were {were.tolist()}"
    sigmas = np.array([event.sigma for event in first])
    if not np.allclose(trace.sigma, sigmas, rtol=1e-6, atol=0, equal_nan=True):
        return f"sigmas {trace.sigma.tolist()}, were {sigmas.tolist()}"
    return RIGHT if trace.info.status == "complete" else f"status {trace.info.status}"


def branches(trace: Trace, seen: Watched, parts: Mapping[str, list[list[bool]]], *, provable: bool = True) -> str:
    """What each part of a batch, or each call, is called."""
    faults, guided = [], False
    for denoiser, calls in parts.items():
        said = trace.info.guidance.get(denoiser, {})
        if all(itertools.chain(*calls)):
            faults += [f"{denoiser}: {said}, was no guidance"] if said else []
            continue
        guided = True
        labels, truth = _labels(trace, denoiser, calls)
        known = ["conditional" if depends else "unconditional" for depends in truth]
        most = max(call.at[1] + 1 for call in seen.calls if call.name == denoiser) if len(calls) > 1 else len(truth)
        wrong = any({label, was} == {"conditional", "unconditional"} for label, was in zip(labels, known, strict=False))
        if wrong or (labels and len(labels) != most):
            faults.append(f"{denoiser}: {labels}, were {known}")
        elif provable and labels[: len(known)] != known:
            faults.append(f"{denoiser}: {labels or said or 'nothing'}, not told: {known}")
    return "; ".join(faults) or (RIGHT if guided else NONE)


def _labels(trace: Trace, denoiser: str, calls: list[list[bool]]) -> tuple[list[str], list[bool]]:
    """What the parts of a batch or the calls in a step are called, and whether those of the first step depend."""
    said = trace.info.guidance.get(denoiser, {})
    if len(calls) > 1:
        return list(said.get("calls", [])), [call[0] for call in calls]
    return list(said.get("batch", [])), calls[0]


def latents(trace: Trace, seen: Watched) -> str:
    """What each step of a scheduler got and returned, bit for bit."""
    for event in seen.steps:
        step, call = event.at
        suffix = f"_call{call}" if call else ""
        for name in ("latents", "model_output", "next_latents", "x0"):
            was = getattr(event, name)
            if was is None:
                continue
            said = trace.step_array(f"{name}{suffix}", step or 0)
            if said is None:
                return f"no {name}{suffix} at step {step}"
            if not _same(said, was):
                return f"{name}{suffix} at step {step} differs: {said.shape}, was {was.shape}"
    return RIGHT


def values(family: Foreign, trace: Trace, seen: Watched) -> str:
    """The outputs of all modules: first tensors bit for bit, further ones by their statistics."""
    calls = [call for call in seen.calls if call.tensors]
    roots = {name.partition(".")[0] for name in named_modules(family.pipeline)}
    tables = {(table.component, table.stepped): table for table in trace.tables()}
    sites: dict[Any, list[SiteInfo]] = {}
    every: dict[Any, list[SiteInfo]] = {}  # a further tensor counts its own calls
    for module in trace.modules.values():
        for site in module.sites:
            if module.component in roots and site.port.startswith("output"):
                every.setdefault((site.name, site.stepped), []).append(site)
                if site.port == "output":
                    sites.setdefault((site.name, site.stepped, site.call), []).append(site)
    faults: list[str] = []
    met = set()
    for call in calls:
        (step, nth), row = call.at, call.at[0] or 0
        key = call.name, step is not None, nth
        met.add((key, row))
        found = sites.get(key, [])
        first = next((site for site in found if site.port == "output"), None)
        if first is None or not tables[first.name.partition(".")[0], first.stepped].captured[row, first.row]:
            faults.append(f"{call.name} at {call.at} is missing")
        elif not first.array or not _same(trace.tensor(first, row), call.tensors[0]):
            faults.append(f"{call.name} at {call.at} differs")
        else:
            table = tables[first.name.partition(".")[0], first.stepped]
            rows = [table.values[row, site.row] for site in every[call.name, step is not None]]
            if any(not any(_describes(entry, tensor) for entry in rows) for tensor in call.tensors):
                faults.append(f"{call.name} at {call.at} has another row of statistics")
    for key, found in sites.items():
        captured = tables[found[0].name.partition(".")[0], found[0].stepped].captured[:, found[0].row]
        faults += [f"{key} at {at} never was" for at in np.flatnonzero(captured) if (key, int(at)) not in met]
    gaps = [str(gap.get("site")) for gap in trace.info.gaps]
    faults += [f"gaps: {', '.join(gaps[:2])}"] if gaps else []
    return f"{len(faults)} of {len(calls)}: {'; '.join(faults[:3])}" if faults else RIGHT


def words(family: Foreign, trace: Trace, seen: Watched, parts: Mapping[str, list[list[bool]]]) -> str:
    """The words of both branches, and the map of one against that of queries and keys as torch received them."""
    sight = family.sight
    if sight is None:
        return NONE
    denoiser = sight.module.partition(".")[0]
    try:
        labels, depends = _labels(trace, denoiser, parts[denoiser])
        texts = family.texts or tuple(family.call["prompt" if d else "negative_prompt"] for d in depends)
        pairs = list(zip(labels, texts, strict=False)) or [("conditional", texts[0])]
        for label, text in dict(reversed(pairs)).items():
            said = [word.text for word in trace.words(branch=label) if not word.special]
            if [word for word in text.split() if word not in said] or (sight.word in said) != (sight.word in text):
                return f"words {said} of {label}, was {text!r}"
        drawn = trace.word_map(sight.word, layers=sight.module)
    except KeyError as error:
        return f"none: {error}"
    expected = _word_map(family, sight, seen, parts[denoiser])
    if drawn.shape != expected.shape:
        return f"map {drawn.shape}, was {expected.shape}"
    worst = float(np.abs(drawn.values - expected).max())
    return RIGHT if worst < 1e-5 else f"map differs by {worst:.2g}"


def _word_map(family: Foreign, sight: Sight, seen: Watched, parts: list[list[bool]]) -> Array:
    """Shares of the word, mean over heads, of the first conditional part of the first conditional call."""
    call = next(at for at, entries in enumerate(parts) if any(entries))
    part, of = parts[call].index(True), len(parts[call])
    encoders = {sight.encoder or seen.token_ids[0][0]: sight.text_at, **sight.also}
    positions = [start + _position(family, sight.word, name, seen) for name, start in encoders.items()]
    found: dict[int, Attended] = {}
    for event in seen.attended:
        step, nth = event.at
        if event.name == sight.module and step is not None and nth == call:
            found[step] = event
    maps = []
    for _, event in sorted(found.items()):
        row = part * (len(event.query) // of)
        scores = event.query[row].astype(np.float64) @ event.key[row].astype(np.float64).swapaxes(-1, -2) * event.scale
        if event.mask is not None:
            mask = np.broadcast_to(event.mask, (len(event.query), *scores.shape))[row]
            scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        count = int(np.prod(sight.grid))
        maps.append(shares[:, sight.image_at : sight.image_at + count, positions].sum(-1).mean(0).reshape(sight.grid))
    return np.stack(maps)


def _position(family: Foreign, word: str, encoder: str, seen: Watched) -> int:
    """Where a word, which is one token, stands among those that an encoder was given."""
    tokenizer = getattr(family.pipeline, encoder.replace("text_encoder", "tokenizer"))
    wanted = {tokenizer.convert_tokens_to_ids(token) for token in (word, f"▁{word}", f"Ġ{word}", f"{word}</w>")}
    wanted.discard(tokenizer.unk_token_id)
    for name, ids in seen.token_ids:
        places = [place for row in ids if name == encoder for place in np.flatnonzero(np.isin(row, list(wanted)))]
        if places:
            return int(places[0])
    raise AssertionError(f"{word!r} was not given to {encoder}")


def _same(said: Array, was: Array) -> bool:
    return said.shape == was.shape and bool(np.array_equal(said, was, equal_nan=said.dtype.kind in "fc"))


def _describes(row: Array, tensor: Array) -> bool:
    """Whether a row of statistics is that of a tensor."""
    is_complex = np.iscomplexobj(tensor)  # whose magnitudes are described; they are rounded
    tensor = np.abs(tensor.astype(np.complex128)) if is_complex else tensor
    finite = tensor[np.isfinite(tensor)].astype(np.float64)
    said = dict(zip(STATISTICS, row.tolist(), strict=False))
    if said["count"] != tensor.size or said["zeros"] != np.count_nonzero(tensor == 0):
        return False
    if not finite.size:
        return bool(np.isnan(said["min"]))
    ends = np.array([said["min"], said["max"]]), np.array([finite.min(), finite.max()])
    return bool(np.allclose(*ends, rtol=1e-6 if is_complex else 0, atol=0)) and bool(
        np.isclose(said["mean"], finite.mean(), rtol=1e-5, atol=1e-7)
    )
