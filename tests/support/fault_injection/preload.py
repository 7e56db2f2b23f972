"""Imports what runs need, and fills their caches, so that a forked process starts in tenths of a second.

Nothing of MLX runs here: it has no threads to lose.
"""

import gc
import importlib
import io
import pkgutil
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress

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
# The choices of most runs: `train` composes them with the config of Hydra itself, which `compose` leaves out.
CHOICES = (
    ["tracking=none"],
    ["model=bert", "tracking=none"],
    ["model=cnn_hybrid", "tracking=none"],
    ["model=transformer", "tracking=none"],
    ["tracking=mlflow"],
)


def preload(packages: Sequence[str], modules: Sequence[str]) -> None:
    import_all(packages, modules)
    _warm_up()


def import_all(packages: Sequence[str], modules: Sequence[str]) -> None:
    """Imports all modules of the named packages of mlxlab, and further modules by their full names."""
    for name in packages:
        package = importlib.import_module(f"mlxlab.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"mlxlab.{name}."):
            with suppress(ModuleNotFoundError):  # It needs an extra.
                importlib.import_module(module.name)
    for name in modules:
        importlib.import_module(name)


def _warm_up() -> None:
    """Fills the caches of parsers, configs, templates and rules, and leaves little to collect in a fork."""
    from mlxlab.config.hydra.compose import compose
    from mlxlab.config.instantiate import instantiate
    from mlxlab.errors import ConfigError
    from mlxlab.record import provenance
    from support.caches import cache_results

    cache_results()
    provenance.git()
    provenance.dependency_versions()
    for overrides in OVERRIDES:
        with suppress(ConfigError):
            compose(overrides)
    instantiate(compose([]).data)  # It compiles the rules and the sentences of the Titanic.
    _print_configs()
    _load_templates()
    # What is collected here is not scanned, and so not copied, in each forked process.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _print_configs() -> None:
    from mlxlab.cli import train

    for choices in CHOICES:
        with redirect_stdout(io.StringIO()):
            assert train.main([*choices, "--cfg", "job"]) == 0


def _load_templates() -> None:
    from mlxlab.views import render

    outputs = ("html", "md", "txt")
    for template in render.FOLDER.iterdir():
        for output in outputs if template.name == "words.html" else (template.suffix[1:],):
            render._environment(output).get_template(template.name)
