"""Two runs side by side: where they part, and by how much; needs no torch."""
