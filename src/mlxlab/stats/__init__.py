"""Statistics of runs: pure functions on arrays. Sentences and pages are made elsewhere."""

LEVEL = 0.95  # confidence level of all intervals
