"""Tracking: a run records to a journal in its folder; one process per store uploads journals to MLflow."""
