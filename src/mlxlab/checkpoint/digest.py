"""The hash that two runs share exactly when they ended in the same state."""

import hashlib
import json
from typing import Any

import mlx.core as mx
import numpy as np


def state_digest(weights: dict[str, mx.array], optimizer: dict[str, mx.array], place: dict[str, Any]) -> str:
    """SHA-256 over name, dtype, shape and bytes of every array, sorted, and over the place in the run."""
    digest = hashlib.sha256(json.dumps(place, sort_keys=True).encode())
    for group in (weights, optimizer):
        for name in sorted(group):
            array = group[name]
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.array(array.reshape(-1).view(mx.uint8)).tobytes())
    return digest.hexdigest()
