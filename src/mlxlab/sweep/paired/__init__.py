"""Paired runs of a baseline and a change of it, for a verdict on the change."""
