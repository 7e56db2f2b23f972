"""Moves stores of any MLflow release into the central one: staged as a copy, checked, merged in one transaction."""
