"""Tokens that are unusually frequent or rare."""

import numpy as np

FENCE = 1.5  # Interquartile ranges (Tukey 1977).


def token_outliers(counts: np.ndarray) -> dict[str, np.ndarray]:
    """The ids of the outliers at both ends, the outermost first; of equal counts the smaller id.

    Outliers lie outside Tukey's fences of the logarithms of the counts: more than 1.5
    interquartile ranges above the upper or below the lower quartile of the tokens that occur.

    Args:
        counts: (V,), not all 0.
    """
    ids = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    logs = np.log(counts[ids])
    low, high = np.quantile(logs, [0.25, 0.75])
    margin = FENCE * (high - low) + 1e-9  # The addend keeps rounding from making outliers.
    rare = ids[logs < low - margin]
    return {"frequent": ids[logs > high + margin], "rare": rare[::-1]}
