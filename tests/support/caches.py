"""Caches for a session of tests and its fork servers: parsed texts, plots, and the commit of the checkout."""

import copy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal import defaults_list
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, _utils, base, grammar_parser

from mlxlab.callbacks import plots
from mlxlab.tracking import provenance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
RENDER_PNG = plots.render_png


def cache_results() -> None:
    """The suite composes thousands of configs: what is computed here again and again is a third of that."""
    _cache_overrides()
    _skip_unused_choices()
    # A parse tree is only read. What cannot be parsed raises each time.
    grammar_parser.parse = base.parse = _utils.parse = cache(grammar_parser.parse)
    _cache_commit()
    _cache_plots()


def _cache_overrides() -> None:
    parse_rule = OverridesParser.parse_rule
    parsed: dict[tuple[str, str], Any] = {}

    def cached(parser: OverridesParser, text: str, rule: str) -> Any:
        if (text, rule) not in parsed:
            parsed[text, rule] = parse_rule(parser, text, rule)
        return copy.deepcopy(parsed[text, rule])

    OverridesParser.parse_rule = cached  # type: ignore[method-assign]


def _skip_unused_choices() -> None:
    """Hydra gathers the choices of all groups for each file, also where no entry of `defaults` refers to one."""
    gather, unused = defaults_list._create_interpolation_map, DictConfig({})

    def gather_if_used(overrides: Any, defaults: Any, self_added: bool) -> DictConfig:
        is_used = any(default.is_interpolation() for default in defaults)
        return gather(overrides, defaults, self_added) if is_used else unused

    defaults_list._create_interpolation_map = gather_if_used


def _cache_commit() -> None:
    run_git, outputs = provenance._git, dict[tuple[str, ...], str]()

    def cached(folder: Path, *args: str) -> str | None:
        if folder != ROOT:  # of a test, which changes it
            return run_git(folder, *args)
        if args not in outputs:
            output = run_git(folder, *args)
            if output is None:
                return None
            outputs[args] = output
        return outputs[args]

    provenance._git = cached


def _cache_plots() -> None:
    """A quarter of a short run: the first plot with these labels is drawn, and stands for the others.

    Tests of plots have each one drawn, by the fixture `drawn_plots`.
    """
    drawn: dict[tuple[object, ...], bytes] = {}

    def cached(figure: "Figure") -> bytes:
        labels = [(axis.get_xlabel(), axis.get_ylabel()) for axis in figure.axes]
        kind = (*labels, *figure.get_size_inches())
        if kind not in drawn:
            drawn[kind] = RENDER_PNG(figure)
        return drawn[kind]

    plots.render_png = cached
