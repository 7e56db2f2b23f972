"""The teachers of a run: frozen models that are queried for every batch, or whose soft targets are cached."""

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.data.batch import Batch
from mlxlab.distillation.teacher_cache import CLASSES, VALUES, TeacherCache
from mlxlab.models.ensemble import Ensemble, Router, weighted_mean
from mlxlab.training.device_batch import DeviceBatch, to_device


class SoftTargets(NamedTuple):
    """Logits (..., C) of the teachers; or, with `classes` (..., k), log-probabilities of these and of the tail."""

    values: mx.array  # (..., C), or (..., k + 1): the last is all other classes together
    classes: mx.array | None = None


@dataclass
class Teachers:
    """The teachers of a run; false without any.

    Args:
        ensemble: the models that give soft targets; may be empty.
        residual_base: earlier students whose mean the student completes; may be empty.
        cache: soft targets of the ensemble by content of the row; None queries the ensemble for every batch.
        digests: the digest of each model's weights by its name, for the manifest.
    """

    ensemble: Ensemble = field(default_factory=lambda: Ensemble([]))
    residual_base: Ensemble = field(default_factory=lambda: Ensemble([]))
    cache: TeacherCache | None = None
    digests: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.ensemble)

    @property
    def first(self) -> nn.Module:
        """The model whose layers a student may match; an empty ensemble without teachers."""
        return self.ensemble.members[0].model if self.ensemble else self.ensemble

    def cached(self, batch: Batch, router: Router | None) -> dict[str, np.ndarray]:
        """Soft targets of a batch from the cache, which queries the ensemble on a miss; empty without a cache."""
        if self.cache is None:
            return {}
        return self.cache.soft_targets(batch, lambda: self._logits(to_device(batch), router))

    def soft_targets(self, batch: DeviceBatch, router: Router | None) -> SoftTargets:
        """Soft targets from the annotations of a batch, else from the ensemble."""
        if VALUES in batch.aux:
            return SoftTargets(batch.aux[VALUES].astype(mx.float32), batch.aux.get(CLASSES))
        return SoftTargets(mx.stop_gradient(self._logits(batch, router)))

    def add_residual_base(self, logits: mx.array, batch: DeviceBatch) -> mx.array:
        """The logits (..., C) of the residual base of n members with the student: (n * base + student) / (n + 1)."""
        if not self.residual_base:
            return logits
        base = mx.stop_gradient(self.residual_base(batch.tokens, batch.segment_ids))
        return weighted_mean([base, logits.astype(mx.float32)], [float(len(self.residual_base)), 1.0])

    def digest(self) -> str:
        """SHA-256 of every weight of every model."""
        return hashlib.sha256((self.ensemble.digest() + self.residual_base.digest()).encode()).hexdigest()

    def _logits(self, batch: DeviceBatch, router: Router | None) -> mx.array:
        logits = self.ensemble.member_logits(batch.tokens, batch.segment_ids)
        weights = router(logits=logits, targets=batch.targets) if router is not None else None
        return self.ensemble.combine(logits, weights)
