"""Keep the libraries' loading bars and notes about optional packages off the screen."""

from __future__ import annotations

__all__ = ["quieten"]


def quieten() -> None:
    """Show errors only."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
