"""Sampling loops, written out."""
