"""A data set, a model, a loss and a callback for mlxlab."""
