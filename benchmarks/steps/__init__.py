"""Seconds of a training step, compared with PyTorch, mlx-lm and MLX as installed."""
