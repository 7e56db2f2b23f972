"""Memory: of a step, of loaders and of predictions."""
