"""How well probabilities agree with frequencies."""

from typing import NamedTuple

import numpy as np

BINS = 15  # equally wide, as in Guo et al. (2017)


class Reliability(NamedTuple):
    """Predictions by their confidence, in bins of equal width; an empty bin has count 0 and NaN means."""

    counts: np.ndarray  # (BINS,)
    confidence: np.ndarray  # (BINS,) mean
    accuracy: np.ndarray  # (BINS,) fraction that holds

    @property
    def error(self) -> float:
        """The expected calibration error (Naeini et al. 2015): the mean gap, weighted by count; NaN without any."""
        total = self.counts.sum()
        gaps = np.abs(self.confidence - self.accuracy)[self.counts > 0]
        return float((gaps * self.counts[self.counts > 0]).sum() / total) if total else float("nan")


def reliability(confidence: np.ndarray, holds: np.ndarray) -> Reliability:
    """Bins predictions by confidence (N,) in [0, 1]; `holds` (N,): which were right. Bins include their upper end."""
    bins = np.searchsorted(np.arange(1, BINS) / BINS, confidence)
    counts = np.bincount(bins, minlength=BINS)
    totals = (np.bincount(bins, values, BINS) for values in (confidence, holds))
    means = (np.where(counts > 0, total / np.maximum(counts, 1), np.nan) for total in totals)
    return Reliability(counts, *means)
