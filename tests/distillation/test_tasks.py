"""Laws of distillation that hold for every kind of task; what is special of labels and numbers."""

from functools import partial
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from scipy.special import expit, log_expit, softmax

from distillation.test_loss import SETTINGS, distill, gradients
from mlxlab.data.batch import Task
from mlxlab.data.labelled.encoder import LabelledEncoder
from mlxlab.data.labelled.labels import Labels
from mlxlab.data.labelled.renderer import RowRenderer
from mlxlab.data.labelled.types import ColumnType
from mlxlab.distillation.load_teachers import LoadedTeacher, TeacherLoader
from mlxlab.distillation.loss import DistillationLoss
from mlxlab.distillation.options import DistillationOptions
from mlxlab.distillation.teacher_cache import TeacherCache
from mlxlab.distillation.teachers import Teachers
from mlxlab.errors import NotAllowedError
from mlxlab.models.ensemble import Ensemble, FrozenModel
from mlxlab.training.device_batch import to_device
from mlxlab.training.losses.task_loss import TaskLoss
from mlxlab.training.losses.weighted_sum import LinearCoefficient
from mlxlab.training.optim.optimizers import adamw
from mlxlab.training.steps.step import PlainStep
from support.models import TASKS, RandomBatches, assert_same, make_model, weights_of


def model_of(kind, seed=0):
    return make_model(seed, dropout=0.0, classes=TASKS[kind].num_classes)


def rows_of(kind, rows=8):
    return RandomBatches(kind=kind).batch(np.arange(rows))


def outputs_of(model, batch):
    return np.array(model(batch.tokens, batch.segment_ids), np.float64)


def train(loss, kind, steps=3):
    """The weights of a student after some steps, with dropout."""
    model = make_model(0, classes=TASKS[kind].num_classes)
    optimizer = adamw(0.01, [0.9, 0.999], 1e-8, learning_rate=1e-2)
    optimizer.init(model.trainable_parameters())
    step = PlainStep(1.0, model=model, loss=loss, optimizer=optimizer)
    for number in range(steps):
        mx.random.seed(number)
        batch = rows_of(kind)
        step(to_device(batch._replace(aux=loss.annotate(batch, None))))
    return weights_of(model)


@pytest.mark.parametrize("kind", TASKS)
def test_distillation_without_teachers_or_with_alpha_1_is_the_loss_of_the_task_bit_for_bit(kind):
    task = TASKS[kind]
    plain = train(TaskLoss(0.0, "mse", 1.0, task=task), kind)
    for loss in (distill(task=task), distill(model_of(kind, 1), alpha=1.0, task=task)):
        assert_same(train(loss, kind), plain)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("divergence", ["forward", "reverse", "jensen_shannon"])
def test_a_student_equal_to_its_teacher_has_zero_divergence_and_zero_gradient(kind, divergence):
    loss = distill(model_of(kind), alpha=0.0, divergence=divergence, task=TASKS[kind])
    batch = to_device(rows_of(kind))
    total, terms = loss(model_of(kind), batch)
    assert (total.shape, total.dtype) == (batch.targets.shape, mx.float32)
    np.testing.assert_allclose(
        list(terms.values())[1], 0, atol=3e-8 if divergence == "jensen_shannon" else 0
    )
    assert np.abs(gradients(loss, model_of(kind), batch)[1]).max() < 1e-6


def test_each_divergence_of_labels_equals_its_formula():
    student = model_of("multi_label")
    teacher = model_of("multi_label", 1)
    batch = to_device(rows_of("multi_label"))
    for model in (student, teacher):
        model.out.weight = 10 * model.out.weight  # divergences far above the resolution of float32
    z, t = outputs_of(student, batch), outputs_of(teacher, batch)
    y, T = np.array(batch.targets), 3.0

    def kl(a, b):  # of probabilities that a label holds
        return a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))

    p, q = expit(t / T), expit(z / T)
    expected = {
        "forward": kl(p, q),
        "reverse": kl(q, p),
        "jensen_shannon": (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2,
    }
    cross_entropy = -y * log_expit(z) - (1 - y) * log_expit(-z)
    for divergence, values in expected.items():
        loss = distill(teacher, alpha=0.3, divergence=divergence, task=TASKS["multi_label"])(
            student, batch
        )
        np.testing.assert_allclose(loss.terms["kl"], values, rtol=1e-3, atol=3e-7)
        np.testing.assert_allclose(loss.terms["cross_entropy"], cross_entropy, rtol=1e-5)
        np.testing.assert_allclose(loss.total, 0.3 * cross_entropy + 0.7 * T**2 * values, rtol=1e-4)


def test_the_loss_of_a_regression_is_the_squared_error_to_target_and_teacher_at_any_temperature():
    student = model_of("regression")
    teacher = model_of("regression", 1)
    batch = to_device(rows_of("regression"))
    z, t = outputs_of(student, batch)[:, 0], outputs_of(teacher, batch)[:, 0]
    errors = (z - np.array(batch.targets)) ** 2, (z - t) ** 2
    for temperature in (1.0, 5.0):
        loss = distill(teacher, alpha=0.3, temperature=temperature, task=TASKS["regression"])(
            student, batch
        )
        np.testing.assert_allclose(
            loss.total, 0.3 * errors[0] + 0.7 * errors[1], rtol=1e-5, atol=1e-8
        )
        assert list(loss.terms) == ["squared_error", "teacher_squared_error"]


@pytest.mark.parametrize("kind", TASKS)
def test_the_loss_follows_its_coefficient_schedules(kind):
    student, teacher, batch = model_of(kind), model_of(kind, 1), rows_of(kind)
    schedules = {
        "alpha": LinearCoefficient(1.0, 0.2, 0.5),
        "temperature": LinearCoefficient(4.0, 2.0, 1.0),
    }
    loss = distill(teacher, **schedules, task=TASKS[kind])
    annotated = to_device(batch._replace(aux=loss.annotate(batch, 0.25)))
    expected = distill(teacher, alpha=0.6, temperature=3.5, task=TASKS[kind])(
        student, to_device(batch)
    )
    np.testing.assert_allclose(loss(student, annotated).total, expected.total, rtol=1e-5)


@pytest.mark.parametrize("kind", TASKS)
def test_a_residual_student_is_completed_by_the_earlier_ones(kind):
    student = model_of(kind)
    below = [model_of(kind, n) for n in (1, 2)]
    batch = to_device(rows_of(kind))
    z = sum(outputs_of(model, batch) for model in (student, *below)) / 3
    expected = TaskLoss(0.0, "mse", 1.0, task=TASKS[kind])(
        lambda tokens, mask: mx.array(z), batch
    ).total
    loss = distill(residual_base=below, task=TASKS[kind])
    np.testing.assert_allclose(loss(student, batch).total, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", TASKS)
def test_an_ensemble_is_the_weighted_mean_of_logits_or_probabilities_and_of_numbers(kind):
    models = [model_of(kind, n) for n in (1, 2)]
    batch = to_device(rows_of(kind))
    outputs = [outputs_of(model, batch) for model in models]
    read = {"classification": partial(softmax, axis=-1), "multi_label": expit}
    for mean in ("logits", "probabilities"):
        actual = outputs_of(Ensemble(models, [1.0, 3.0], mean, kind), batch)
        to_average = np.array
        tolerance = 1e-7
        if mean == "probabilities" and kind in read:
            to_average = read[kind]
            tolerance = 0
        expected = (to_average(outputs[0]) + 3 * to_average(outputs[1])) / 4
        np.testing.assert_allclose(to_average(actual), expected, rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize("kind", TASKS)
def test_training_with_cached_outputs_equals_training_without_a_cache_bit_for_bit(tmp_path, kind):
    task, teacher = TASKS[kind], Ensemble([FrozenModel(model_of(kind, 1))], kind=kind)

    def train_with(cache):
        loss = DistillationLoss(
            **SETTINGS, loaded_teachers=Teachers(teacher, cache=cache), task=task
        )
        return train(loss, kind)

    online = train_with(None)
    for misses in (8, 0):
        cache = TeacherCache(
            task.num_classes, "float32", folder=tmp_path, num_classes=task.num_classes
        )
        assert_same(train_with(cache), online)
        cache.flush()
        assert cache.misses == misses


def loader(**changes):
    defaults = (["a"], None, "logits", "float32", "same", None, 1, "fresh", "teacher", [])
    options = dict(zip(DistillationOptions.__annotations__, defaults, strict=True)) | changes
    return TeacherLoader(DistillationOptions(**options), None)


def align(
    teacher, task, of, tokenizers=("same", "same"), encoders=(None, None), num_logits=20, **changes
):
    student, own = (
        SimpleNamespace(fingerprint=name, vocab_size=20, inner=SimpleNamespace(id_to_token=str))
        for name in tokenizers
    )
    loaded = LoadedTeacher("a", teacher, of, own, None, "", 20, encoders[1])
    data = SimpleNamespace(task=task, tokenizer=student, encoder=encoders[0])
    return loader(**changes)._align(loaded, data, 0, num_logits)


def test_the_teacher_of_a_regression_answers_in_the_unit_of_the_student():
    teacher, batch = model_of("regression", 1), to_device(rows_of("regression"))
    its_task = Task("regression", 1, target_mean=-5.0, target_deviation=12.0)
    student_task = TASKS["regression"]  # mean 2, deviation 3
    values = 12.0 * outputs_of(teacher, batch) - 5.0
    aligned = align(teacher, student_task, its_task)
    np.testing.assert_allclose(outputs_of(aligned, batch), (values - 2.0) / 3.0, rtol=1e-5)
    same = align(teacher, student_task, student_task)
    np.testing.assert_array_equal(outputs_of(same, batch), outputs_of(teacher, batch))


def test_labels_of_a_teacher_are_mapped_by_name_or_refused():
    teacher, batch = model_of("multi_label", 1), to_device(rows_of("multi_label"))
    task, of = Task("multi_label", 2, ("blue", "red")), TASKS["multi_label"]
    aligned = align(teacher, task, of, vocab_mapping="subset")
    np.testing.assert_array_equal(outputs_of(aligned, batch), outputs_of(teacher, batch)[:, [2, 0]])
    refuse = partial(pytest.raises, NotAllowedError)
    with refuse(match="expected the student's 2 labels, got 3; .*vocab_mapping=subset"):
        align(teacher, task, of)
    with refuse(match="expected the student's tokenizer"):
        align(teacher, of, of, tokenizers=("one", "another"))
    with refuse(match="expected 2 classes, got 3"):
        align(teacher, Task("multi_label", 2), Task("multi_label", 3), vocab_mapping="subset")
    with refuse(match="expected multi_label, got regression"):
        align(teacher, of, TASKS["regression"])


def test_a_teacher_of_tokens_fits_the_logits_of_its_student_or_is_refused():
    teacher, task = model_of("regression"), Task("language_modelling", 20)
    assert align(teacher, task, task)._table is None
    assert align(
        teacher, task, task, num_logits=18, vocab_mapping="subset"
    )._table.tolist() == list(range(18))
    refuse = partial(pytest.raises, NotAllowedError)
    with refuse(match="expected the student's 18 tokens, got 20; .*vocab_mapping=subset"):
        align(teacher, task, task, num_logits=18)
    with refuse(match="lacks 2 of the student's 22 tokens, for example 20"):
        align(teacher, task, task, num_logits=22, vocab_mapping="subset")
    others = {"tokenizers": ("one", "another"), "vocab_mapping": "subset"}
    assert align(teacher, task, task, **others)._table.tolist() == list(range(20))
    with refuse(match="lacks 2 of the student's 22 tokens, for example 20"):
        align(teacher, task, task, num_logits=22, **others)


def test_a_teacher_that_read_other_texts_is_refused():
    teacher, task = model_of("regression", 1), TASKS["regression"]
    rows = [
        RowRenderer({"x": ColumnType("number")}, False, {"x": bounds}, 2)
        for bounds in ([1.0, 2.0], [1.0, 3.0])
    ]
    texts = [
        RowRenderer(dict.fromkeys(names, ColumnType("text")), True, {}, 2)
        for names in ("a", "b", "ab")
    ]
    renderers = [*rows, *texts]
    labels = Labels("regression", ColumnType("number"))
    tokenizer = SimpleNamespace(end_id=1)
    encoders = [LabelledEncoder(each, labels, "y", tokenizer, 8) for each in renderers]
    for student, its in [(0, 0), (2, 2)]:
        align(teacher, task, task, encoders=(encoders[student], encoders[its]))
    for student, its in [(0, 1), (0, 2), (2, 3), (2, 4)]:
        with pytest.raises(NotAllowedError, match="reads a row in another form than the student"):
            align(teacher, task, task, encoders=(encoders[student], encoders[its]))
