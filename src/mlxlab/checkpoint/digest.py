"""The hash that two runs share if and only if they ended in the same state."""

import hashlib
import json
from typing import Any

import mlx.core as mx
import numpy as np


def state_digest(weights: dict[str, mx.array], optimizer: dict[str, mx.array], progress: dict[str, Any]) -> str:
    """SHA-256 over name, dtype, shape and bytes of every array, in sorted order, and over step and data position."""
    digest = hashlib.sha256(json.dumps(progress, sort_keys=True).encode())
    for group in (weights, optimizer):
        for name in sorted(group):
            array = group[name]
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.array(array.reshape(-1).view(mx.uint8)).tobytes())
    return digest.hexdigest()
