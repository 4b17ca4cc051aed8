"""Cascades: a small picture first, then a larger one from it."""
