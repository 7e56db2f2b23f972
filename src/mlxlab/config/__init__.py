"""Configuration: checked against the signatures of its targets, then instantiated."""
