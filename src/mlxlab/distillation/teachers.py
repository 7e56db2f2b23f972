"""What a student learns from beside the targets: frozen models, asked with every batch or remembered."""

import hashlib
from dataclasses import dataclass, field

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.data.batch import Batch
from mlxlab.distillation.cache import CLASSES, VALUES, TeacherCache
from mlxlab.distillation.divergence import SoftTargets
from mlxlab.models.ensemble import Ensemble, Router, add_residual_base
from mlxlab.training.device_batch import DeviceBatch, to_device


@dataclass
class Teachers:
    """The teachers of a run.

    Args:
        ensemble: those who teach; empty for none.
        beneath: earlier students: this one learns what is still missing on top of them. Empty for none.
        cache: what the ensemble said before; None asks it every time.
        names: the hash of each by its name, for the record.
    """

    ensemble: Ensemble = field(default_factory=lambda: Ensemble([]))
    beneath: Ensemble = field(default_factory=lambda: Ensemble([]))
    cache: TeacherCache | None = None
    names: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.ensemble)

    @property
    def first(self) -> nn.Module:
        """The model whose layers a student may match; without teachers there are none."""
        return self.ensemble.members[0].model if self.ensemble else self.ensemble

    def extra(self, batch: Batch, router: Router | None) -> dict[str, np.ndarray]:
        """What the cache has to say about a batch, asking the ensemble for what it lacks; nothing without one."""
        if self.cache is None:
            return {}
        return self.cache.extra(batch, lambda: self._logits(to_device(batch), router))

    def answer(self, batch: DeviceBatch, router: Router | None) -> SoftTargets:
        """What the teachers say about a batch: kept in it, or asked for now."""
        if VALUES in batch.extra:
            return SoftTargets(batch.extra[VALUES].astype(mx.float32), batch.extra.get(CLASSES))
        return SoftTargets(mx.stop_gradient(self._logits(batch, router)))

    def with_those_beneath(self, logits: mx.array, batch: DeviceBatch) -> mx.array:
        """The student's logits as the ensemble would give them once it has joined."""
        if not self.beneath:
            return logits
        mean = mx.stop_gradient(self.beneath(batch.tokens, batch.mask))
        return add_residual_base(logits.astype(mx.float32), mean, len(self.beneath))

    def hash(self) -> str:
        """Of every weight of every model here."""
        return hashlib.sha256((self.ensemble.hash() + self.beneath.hash()).encode()).hexdigest()

    def _logits(self, batch: DeviceBatch, router: Router | None) -> mx.array:
        answers = self.ensemble.answers(batch.tokens, batch.mask)
        weights = router(answers=answers, targets=batch.targets) if router is not None else None
        return self.ensemble.mix(answers, weights)
