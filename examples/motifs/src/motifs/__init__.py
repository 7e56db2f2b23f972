"""Binding sites in DNA sequences, as parts of mlxlab experiments."""
