"""The `triton` backend."""
