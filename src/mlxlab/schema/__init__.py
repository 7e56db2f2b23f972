"""Rules for values: bounds in signatures, keys of nested mappings, names of metrics."""
