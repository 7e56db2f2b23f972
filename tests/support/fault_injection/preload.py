"""Imports what runs need, and fills their caches, so that a forked process starts in tenths of a second.

Nothing of MLX runs here: it has no threads to lose.
"""

import gc
import importlib
import pkgutil
from collections.abc import Sequence
from contextlib import suppress

# Of every form, so that the parsers of Hydra have their tables: they make them at the first use.
OVERRIDES = (
    [],
    [
        "model=transformer",
        "data=streaming",
        "trainer=optimized",
        "tracking=none",
        "data.source=a.jsonl",
    ],
    [
        "model=cnn_hybrid",
        "trainer=distill",
        "trainer.teachers=[outputs/a-1]",
        "trainer.learning_rate=1e-3",
        "name=a b",
    ],
    [
        "data=instruct",
        "hydra.run.dir=/tmp/run_1/a-b.c",
        "resume=auto",
        "+tags.x='a'",
        "seed=3",
        "no_such_key=1",
    ],
    [
        "data=table",
        "data.target=y",
        "callbacks.growth.operations=[{id: a, op: stack, when: {after: 2}}]",
    ],
)


def preload(packages: Sequence[str], modules: Sequence[str]) -> None:
    import_all(packages, modules)
    _warm_up()


def import_all(packages: Sequence[str], modules: Sequence[str]) -> None:
    """Imports all modules of the named packages of mlxlab, and further modules by their full names."""
    for name in packages:
        package = importlib.import_module(f"mlxlab.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"mlxlab.{name}."):
            importlib.import_module(module.name)
    for name in modules:
        importlib.import_module(name)


def _warm_up() -> None:
    """Fills the caches of parsers, signatures, fonts and rules, and leaves little to collect in a forked process."""
    from mlxlab.config.hydra.compose import compose
    from mlxlab.data.titanic.dataset import load_rules
    from mlxlab.errors import ConfigError
    from mlxlab.tracking import provenance
    from support.caches import cache_results

    cache_results()
    provenance.git()
    for overrides in OVERRIDES:
        with suppress(ConfigError):
            compose(overrides)
    load_rules()
    # What is collected here is not scanned, and so not copied, in each forked process.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
