"""Train, distil and compare models with Apple MLX: Hydra configs, exact resume, MLflow tracking."""

__version__ = "0.1.0"
