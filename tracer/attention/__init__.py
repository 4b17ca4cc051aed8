"""Where attention looks, read back from queries and keys; needs no torch."""
