"""Data sets as batches of NumPy arrays: order, splits, sentences, tokens. No MLX in this room."""
