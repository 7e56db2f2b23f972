"""Where a run is recorded: a journal in its folder, and one process per store that carries it to MLflow."""
