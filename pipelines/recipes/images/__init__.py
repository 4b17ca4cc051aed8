"""Recipes that start from a picture."""
