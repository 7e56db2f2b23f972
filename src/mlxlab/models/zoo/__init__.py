"""Architectures of the mlx-lm package as backbones."""
