"""Experiments to learn from, each in one readable file and each traced; ``dxray run`` lists them."""
