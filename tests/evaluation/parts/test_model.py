"""The bound of a run's memory is below what its steps take, and not far below where weights take the most."""

import gc

import mlx.core as mx
import pytest

from mlxlab.config.hydra.compose import compose_checked
from mlxlab.models import memory_bound
from mlxlab.run.resume.start import Start
from mlxlab.run.session import build_session
from mlxlab.training.device_batch import to_device

TASKS = {
    "bert": ["model=bert"],
    "cnn_hybrid": ["model=cnn_hybrid"],
    "transformer": ["model=transformer", "data=streaming", "data.seq_len=32"],
}
STEPS = {
    "nano": [],
    "tiny": ["trainer=optimized", "trainer.step.activation_checkpointing=true"],
    "small": ["trainer=optimized", "trainer.step.accumulate=2"],
}


def session_of(folder, family, *overrides):
    args = [*TASKS[family], "tracking=none", "data.prefetch=0", *overrides]
    if family == "transformer":
        source = folder / "text.txt"
        source.write_text("".join(f"line {n} of a text\n" for n in range(3000)))
        args.append(f"data.source={source}")
    config = compose_checked(args)
    return build_session(Start(config), folder)


def peak_of_the_second_step(session):
    """The first one has no optimizer state yet."""
    state = session.init_state()
    step = session.trainer.make_step(state)
    state.model.train()
    batch = session.trainer.annotate(next(iter(session.data.train)), 0.0)
    step(to_device(batch))
    mx.reset_peak_memory()
    step(to_device(batch))
    return mx.get_peak_memory()


@pytest.mark.parametrize(
    "size", ["nano", "tiny", pytest.param("small", marks=pytest.mark.fault_injection)]
)
@pytest.mark.parametrize("family", TASKS)
def test_a_run_that_fits_is_not_refused(family, size, tmp_path, monkeypatch):
    bounds = []
    monkeypatch.setattr(
        memory_bound, "refuse_beyond_memory", lambda needed, sizes: bounds.append(needed)
    )
    gc.collect()
    before = mx.get_active_memory()
    overrides = [f"model/size={size}", "data.batch_size=2", *STEPS[size]]
    peak = peak_of_the_second_step(session_of(tmp_path, family, *overrides)) - before
    assert 0.5 * peak < max(bounds) <= peak
