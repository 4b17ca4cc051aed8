"""TorchScript modules, which answer Python's questions in their own way."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["is_scripted", "script_parameters"]


def is_scripted(module: nn.Module) -> bool:
    """Whether a module runs as TorchScript: it is called as any other, but what it calls inside nobody sees."""
    return isinstance(module, torch.jit.ScriptModule)


def script_parameters(module: nn.Module) -> list[str]:
    """Names of the parameters of a script's forward in their order, without self.

    Raises:
        RuntimeError: It has no forward.
        AttributeError: It is none that torch knows in this form.
    """
    arguments = module._c._get_method("forward").schema.arguments  # type: ignore[union-attr, operator]
    return [str(argument.name) for argument in arguments][1:]
