"""Memory: of a step, of loaders, of predictions, and as `info` estimates it."""
