"""Caches for a session of tests: parsed overrides and interpolations, and the commit of the checkout."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import _utils, base, grammar_parser

from mlxlab.tracking import provenance

ROOT = Path(__file__).resolve().parents[2]


def cache_results() -> None:
    """The suite composes thousands of configs of the same texts: parsing them is a fifth of that."""
    _cache_overrides()
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
