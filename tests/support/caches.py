"""Caches for a session of tests and its fork servers: parsed texts, and the commit of the checkout."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal import defaults_list
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, _utils, base, grammar_parser

from mlxlab.tracking import provenance

ROOT = Path(__file__).resolve().parents[2]


def cache_results() -> None:
    """The suite composes thousands of configs: what is computed here again and again is a third of that."""
    _cache_overrides()
    _skip_unused_choices()
    # A parse tree is only read. What cannot be parsed raises each time.
    grammar_parser.parse = base.parse = _utils.parse = cache(grammar_parser.parse)
    _cache_commit()


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
