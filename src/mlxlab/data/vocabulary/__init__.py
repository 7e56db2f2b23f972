"""Training on the most frequent tokens of a vocabulary; all others share one id."""
