"""The trace as files: written without a Zarr library on the way, and read back; needs no torch."""
