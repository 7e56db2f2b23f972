"""The checks that a comparison and a sweep share: enough repetitions, better than the baselines."""

from mlxlab.stats.ranking import MIN_SEEDS
from mlxlab.terminal.wording import counted
from mlxlab.views.checks import Check, State
from mlxlab.views.render import phrase
from mlxlab.views.verdict import Judgement


def repetition_check(count: int, noun: str) -> Check:
    """Whether what has the fewest results has enough of them."""
    state: State = "warning" if count < MIN_SEEDS else "good"
    return Check("repetitions", state, f"{counted(count, noun)} each (minimum {MIN_SEEDS})")


def baseline_check(judgement: Judgement) -> Check:
    title = phrase("compared", judgement)
    if not judgement.ranked:
        return Check("baselines", "unknown", "baselines are not known")
    if judgement.is_bad:
        return Check("baselines", "bad", title)
    state: State = "good" if judgement.verdict == "better" else "warning"
    return Check("baselines", state, title)
