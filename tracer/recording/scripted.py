"""What is asked of a module's forward, also where the module is TorchScript, which answers Python in its own way."""

from __future__ import annotations

import inspect

import torch
from torch import nn

__all__ = ["is_scripted", "parameter_names"]


def is_scripted(module: nn.Module) -> bool:
    """Whether a module runs as TorchScript: it is called as any other, but what it calls inside nobody sees."""
    return isinstance(module, torch.jit.ScriptModule)


def parameter_names(module: nn.Module) -> list[str]:
    """Names of the parameters of a module's forward in their order, without self; empty where they cannot be told."""
    try:
        if is_scripted(module):
            arguments = module._c._get_method("forward").schema.arguments  # type: ignore[union-attr, operator]
            return [str(argument.name) for argument in arguments][1:]
        return list(inspect.signature(type(module).forward).parameters)[1:]  # without self, whatever it is called
    except Exception:  # noqa: BLE001 — a callable that inspection does not know, a script without a forward
        return []
