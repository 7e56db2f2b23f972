"""Sweeps: launchers, searches, verdicts."""
