"""Numerical operations, each with a readable reference and faster backends of the same signature."""
