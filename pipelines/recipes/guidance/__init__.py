"""Guidance by something other than the prompt."""
