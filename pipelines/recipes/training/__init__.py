"""A network of our own, trained on small digits and traced while it learns."""
