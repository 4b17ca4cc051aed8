"""Pictures that show two things: one noise estimate made of two."""
