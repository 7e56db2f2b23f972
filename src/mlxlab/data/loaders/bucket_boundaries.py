"""The lengths to which sequences are padded, chosen for the data: few of them, little padding."""

import numpy as np

CANDIDATES = 512  # maximum number of edges to consider; longer data is quantized


def optimal_boundaries(lengths: np.ndarray, count: int) -> np.ndarray:
    """The at most `count` lengths, rising, that pad these lengths least when each is rounded up to one of them."""
    values, counts = np.unique(np.maximum(lengths, 1), return_counts=True)
    if len(values) > CANDIDATES:
        step = -(-int(values[-1]) // CANDIDATES)
        values, counts = np.unique(
            np.minimum(-(-np.maximum(lengths, 1) // step) * step, values[-1]), return_counts=True
        )
    below = np.concatenate([[0], np.cumsum(counts)])  # examples shorter than each value
    costs = values * below[1:].astype(float)  # token slots, if a single edge covers all values up to this one
    chosen = [np.zeros(len(values), int)]  # by number of edges: where the last but one lies, plus 1; 0: nowhere
    for _ in range(min(count, len(values)) - 1):
        # With one more edge: the last one covers the values i+1..j, the others do 0..i as well as they can.
        candidate_costs = costs[:, None] + values[None] * (below[1:][None] - below[1:][:, None])
        candidate_costs[np.tril_indices(len(values))] = np.inf
        best = candidate_costs.argmin(axis=0)
        better = candidate_costs.min(axis=0) < costs
        chosen.append(np.where(better, best + 1, 0))
        costs = np.where(better, candidate_costs.min(axis=0), costs)
    edges, last = [], len(values) - 1
    for layer in reversed(chosen[1:]):
        if layer[last]:
            edges.append(values[last])
            last = int(layer[last]) - 1
    return np.array([*edges, values[last]][::-1])
