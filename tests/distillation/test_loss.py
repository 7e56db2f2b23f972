"""Laws of the distillation loss: its divergences, teachers, schedules and sums."""

from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from scipy.special import log_softmax as oracle

from mlxlab.distillation.loss import DistillationLoss, soft_target_divergence
from mlxlab.distillation.teachers import DistillationReport, SoftTargets, Teachers
from mlxlab.models.ensemble import Ensemble, FrozenModel, true_class_confidence
from mlxlab.training.device_batch import to_device
from mlxlab.training.evaluate import evaluate
from mlxlab.training.losses.loss import FocalLoss
from mlxlab.training.losses.weighted_sum import LinearCoefficient, WeightedSumLoss
from mlxlab.training.steps.step import weighted_sum
from support.models import (
    TASK,
    FixedBatches,
    RandomBatches,
    fit,
    make_model,
    make_run,
    make_trainer,
    weights_of,
)

SETTINGS = {
    "alpha": 0.5,
    "temperature": 3.0,
    "scale_by_t2": True,
    "divergence": "forward",
    "label_smoothing": 0.0,
    "router": None,
}


def distill(
    *teachers: nn.Module, residual_base=(), cache=None, task=TASK, **changes
) -> DistillationLoss:
    loaded = Teachers(
        Ensemble([FrozenModel(m) for m in teachers], kind=task.kind),
        Ensemble([FrozenModel(m) for m in residual_base]),
        cache,
    )
    return DistillationLoss(**(SETTINGS | changes), loaded_teachers=loaded, task=task)


def make_batch():
    return to_device(RandomBatches().batch(np.arange(8)))


def gradients(loss, model, batch):
    compute = nn.value_and_grad(model, lambda: weighted_sum(loss, model, batch)[0])
    total, tree = compute()
    return total.item(), np.concatenate([np.array(g).ravel() for _, g in tree_flatten(tree)])


def test_the_loss_equals_its_formula():
    student, teacher, batch = make_model(dropout=0.0), make_model(seed=1, dropout=0.0), make_batch()
    z, t = (
        np.array(model(batch.tokens, batch.segment_ids), np.float64) for model in (student, teacher)
    )
    y, T = np.array(batch.targets), 3.0
    p, q = oracle(t / T, axis=-1), oracle(z / T, axis=-1)
    kl = (np.exp(p) * (p - q)).sum(axis=-1)
    ce = -oracle(z, axis=-1)[np.arange(len(y)), y]
    loss = distill(teacher, alpha=0.3)(student, batch)
    np.testing.assert_allclose(loss.total, 0.3 * ce + 0.7 * T**2 * kl, rtol=2e-5)
    np.testing.assert_allclose(loss.terms["kl"], kl, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(loss.terms["cross_entropy"], ce, rtol=1e-5)
    unscaled = distill(teacher, alpha=0.3, scale_by_t2=False)(student, batch)
    np.testing.assert_allclose(unscaled.total, 0.3 * ce + 0.7 * kl, rtol=2e-5)


@pytest.mark.parametrize("classes", [5, 300])
def test_each_divergence_and_the_gradient_of_forward_equal_their_formulas(classes):
    rng = np.random.default_rng(0)
    z, t = rng.normal(size=(2, 3, classes)).astype(np.float32) * 4
    targets = SoftTargets(mx.array(t))
    p, q = oracle(t / 2, axis=-1), oracle(z / 2, axis=-1)
    m = np.log((np.exp(p) + np.exp(q)) / 2)

    def kl(a, b):
        return (np.exp(a) * (a - b)).sum(axis=-1)

    expected = {
        "forward": kl(p, q),
        "reverse": kl(q, p),
        "jensen_shannon": (kl(p, m) + kl(q, m)) / 2,
    }
    for divergence, values in expected.items():
        actual = soft_target_divergence(targets, mx.array(z), 2.0, divergence)
        np.testing.assert_allclose(actual, values, rtol=1e-4, atol=1e-6)
    forward = partial(soft_target_divergence, targets, temperature=2.0, kind="forward")
    slope = mx.grad(lambda z: forward(z).sum())(mx.array(z))
    np.testing.assert_allclose(slope, (np.exp(q) - np.exp(p)) / 2, rtol=1e-3, atol=1e-6)
    assert not np.any(np.array(forward(mx.array(t))))


def test_training_changes_no_teacher_and_adds_no_weight_to_the_student():
    teacher = make_model(seed=1, dropout=0.9)
    loss, batch = distill(teacher), make_batch()
    before = loss.teachers.ensemble.digest()
    assert np.array_equal(
        *(np.array(loss.teachers.soft_targets(batch, None).values) for _ in range(2))
    )
    run = make_run()
    names = weights_of(run.model).keys()
    report = DistillationReport(loss.teachers, FixedBatches(), TASK, None)
    fit(make_trainer(loss=loss), run, [report])
    assert run.state.history.reference.keys() == {"student", "teacher"}
    outputs = [evaluate(model, FixedBatches(), TASK).outputs for model in (run.model, teacher)]
    same = np.mean(outputs[0].argmax(axis=1) == outputs[1].argmax(axis=1))
    assert run.state.history.reference["student"]["agreement"] == same
    assert loss.teachers.ensemble.digest() == before
    assert weights_of(run.model).keys() == names
    teacher.out.weight = teacher.out.weight + 1e-7
    assert loss.teachers.ensemble.digest() != before


def test_the_router_weights_each_teacher_by_its_confidence_in_the_true_class():
    batch, models = make_batch(), [make_model(seed=n, dropout=0.0) for n in (1, 2)]
    z = [np.array(model(batch.tokens, batch.segment_ids), np.float64) for model in models]
    y = np.array(batch.targets)
    c = [np.exp(oracle(logits, axis=-1))[np.arange(8), y][:, None] + 1e-6 for logits in z]
    loss = distill(*models, router=true_class_confidence)
    expected = (c[0] * z[0] + c[1] * z[1]) / (c[0] + c[1])
    np.testing.assert_allclose(
        loss.teachers.soft_targets(batch, loss.router).values, expected, rtol=1e-4, atol=1e-6
    )


def test_distillation_in_a_weighted_sum_equals_the_sum_of_the_losses():
    student = make_model(dropout=0.0)
    teacher = make_model(seed=1, dropout=0.0)
    batch = RandomBatches().batch(np.arange(8))
    calls = []

    class Counted(nn.Module):
        def __call__(self, tokens, mask):
            calls.append(1)
            return student(tokens, mask)

    focal = FocalLoss(None, 2.0, 0.0)
    losses = {
        "distillation": distill(teacher, alpha=LinearCoefficient(0.0, 1.0, 1.0)),
        "focal": focal,
    }
    loss = WeightedSumLoss(losses, {"distillation": 2.0, "focal": LinearCoefficient(0.0, 4.0, 1.0)})
    annotated = to_device(batch._replace(aux=loss.annotate(batch, 0.5)))
    actual = loss(Counted(), annotated)
    assert len(calls) == 1
    device = to_device(batch)
    expected = (
        2 * distill(teacher, alpha=0.5)(student, device).total + 2 * focal(student, device).total
    )
    np.testing.assert_allclose(actual.total, expected, rtol=1e-5)
    assert {"cross_entropy", "kl", "loss_distillation", "loss_focal"} == actual.terms.keys()
