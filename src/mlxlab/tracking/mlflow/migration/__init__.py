"""Moves stores of any MLflow release into the central one: MLflow converts a copy, which is then merged."""
