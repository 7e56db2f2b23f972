"""mlxlab: experiments composed from Hydra config groups, trained with Apple MLX, tracked in one MLflow store."""

__version__ = "0.1.0"
