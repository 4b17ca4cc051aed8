"""Tap on the text encoders: the tokens they were given and the embeddings they made of them."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..layout import PROMPTS, array_name
from ..recording.sites import Source
from ..recording.target import Target
from .containers import tensors_in
from .protocol import Emit, Undo

__all__ = ["PromptsTap"]


class PromptsTap:
    """Records prompts as the encoders received them, which is the truth behind any templates and truncation."""

    def attach(self, target: Target, emit: Emit) -> Undo:
        """Hook every component that has a tokenizer of the matching name ("text_encoder_2", "tokenizer_2")."""
        with ExitStack() as undo:
            for name, tokenizer in target.tokenizers.items():
                encoder = target.components.get(name.replace("tokenizer", "text_encoder"))
                if encoder is not None:
                    calls: list[dict[str, Any]] = []
                    path = f"{PROMPTS}.{name.replace('tokenizer', 'text_encoder')}"
                    after = functools.partial(_after, emit, tokenizer, path, calls)
                    undo.callback(emit.watch(encoder, after=after))
            return undo.pop_all().close


def _after(  # noqa: PLR0917 — bound by functools.partial in front of what a call tells
    emit: Emit,
    tokenizer: Any,
    path: str,
    calls: list[dict[str, Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
) -> None:
    """A text encoder has run: record its token ids, their strings, and its embeddings."""
    given = ((name, tensor) for name, tensor in tensors_in((kwargs.get("input_ids"), args)))
    ids = next((tensor for _, tensor in given if tensor.dtype in (torch.int64, torch.int32)), None)
    call = len(calls)
    suffix = array_name("", call)
    dims = (f"prompt{suffix}", f"text_token{suffix}")
    if ids is not None and ids.dim() == 2:
        rows = ids.detach().cpu().tolist()
        tokens = [[str(token) for token in tokenizer.convert_ids_to_tokens(row)] for row in rows]
        text = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
        calls.append({"call": call, "suffix": suffix, "text": text, "tokens": tokens})
        group = path.replace(".", "/")
        emit.describe({"calls": list(calls)}, group=group)
        emit.array(f"{group}/tokens{suffix}", np.array(tokens, dtype=object), dims)
        emit.array(f"{group}/token_ids{suffix}", ids.detach().cpu().numpy(), dims)
    embedding = next((tensor for _, tensor in tensors_in(output) if tensor.dim() == 3), None)
    if isinstance(embedding, Tensor):
        emit(Source(path, "TextEmbedding"), embedding, port="embedding", dims=(*dims, f"embedding{suffix}"))
