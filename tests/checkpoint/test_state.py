"""The history of a run."""

from mlxlab.checkpoint.state import History


def test_the_last_evaluation_of_a_step_counts_and_the_best_follows():
    history, at_step = History(), {}
    for step, loss in ((3, 0.5), (6, 0.4), (6, 0.6)):
        metrics = {"valid/loss": loss, "valid/accuracy": 1 - loss}
        history.add_metrics(step, {"train/loss": 0.1, **metrics})
        history.add_evaluation(step, metrics, "valid/loss")
        at_step[step] = metrics
    assert history.evaluations == [(3, 0.5), (6, 0.6)]
    assert (history.best, history.best_step, history.best_metrics) == (0.5, 3, at_step[3])


def test_without_another_evaluation_there_is_no_best():
    history = History()
    history.add_evaluation(3, {"valid/loss": 0.5}, "valid/loss")
    history.discard_evaluation(3, "valid/loss")
    assert history == History()
    history.add_evaluation(3, {"valid/loss": 0.6}, "valid/loss")
    assert (history.best, history.best_step, history.best_metrics) == (0.6, 3, {"valid/loss": 0.6})
