"""Caches for a session of tests and its fork servers: parsed texts, compositions, and the commit."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import astuple, replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.defaults_list import DefaultsList
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, _utils, base, grammar_parser

from mlxlab.record import provenance

ROOT = Path(__file__).resolve().parents[2]


def cache_results() -> None:
    """The suite composes thousands of configs: what is computed here again and again is a third of that."""
    _cache_overrides()
    _skip_unused_choices()
    _cache_files()
    _cache_compositions()
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


def _cache_files() -> None:
    """Each file is parsed once, and put into its package once. Hydra's store, which only it reads, is not copied."""
    load, load_into_package = ConfigRepository.load_config, ConfigLoaderImpl._load_single_config
    files: dict[object, bytes] = {}

    def cached(key: object, read: Callable[[], ConfigResult | None]) -> Any:
        if key not in files:
            files[key] = pickle.dumps(read())
        return pickle.loads(files[key])

    def cached_load(repo: ConfigRepository, config_path: str) -> ConfigResult | None:
        if (sources := _sources(repo)) is None:
            return load(repo, config_path)
        return cached((sources, config_path), lambda: load(repo, config_path))

    def cached_package(
        loader: ConfigLoaderImpl, default: ResultDefault, repo: IConfigRepository
    ) -> ConfigResult:
        if (sources := _sources(repo)) is None:
            return load_into_package(loader, default, repo)
        return cached((sources, astuple(default)), lambda: load_into_package(loader, default, repo))

    ConfigRepository.load_config = cached_load  # type: ignore[method-assign]
    ConfigLoaderImpl._load_single_config = cached_package  # type: ignore[method-assign]
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]


def _cache_compositions() -> None:
    """The files of `conf/` are composed once for the same options; typed values are set in copies."""
    choose, compose = (
        config_loader_impl.create_defaults_list,
        ConfigLoaderImpl._compose_config_from_defaults_list,
    )
    chosen: dict[object, DefaultsList] = {}
    composed: dict[object, bytes] = {}

    def cached_choice(
        repo: IConfigRepository,
        config_name: str | None,
        overrides_list: list[Override],
        *more: bool,
        **named: bool,
    ) -> DefaultsList:
        if (sources := _sources(repo)) is None:
            return choose(repo, config_name, overrides_list, *more, **named)
        typed = [each for each in overrides_list if not each.is_sweep_override()]
        values = [
            each
            for each in typed
            if isinstance(each.value(), dict) or not repo.group_exists(each.key_or_group)
        ]
        options = [each.input_line for each in typed if each not in values]
        key = (sources, config_name, *more, *named.values(), *options)
        if key not in chosen:
            chosen[key] = choose(repo, config_name, overrides_list, *more, **named)
        return replace(chosen[key], config_overrides=values)

    def cached_composition(
        loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository
    ) -> Any:
        if (sources := _sources(repo)) is None:
            return compose(loader, defaults, repo)
        key = (sources, *map(astuple, defaults))
        if key not in composed:
            config = compose(loader, defaults, repo)
            OmegaConf.clear_cache(config)  # of the time of day
            composed[key] = pickle.dumps(config)
        return pickle.loads(composed[key])

    config_loader_impl.create_defaults_list = cached_choice  # type: ignore[assignment]
    ConfigLoaderImpl._compose_config_from_defaults_list = cached_composition  # type: ignore[method-assign]


def _sources(repo: IConfigRepository) -> tuple[object, ...] | None:
    """What a repository reads; None if that is more than what no test changes."""
    sources = repo.get_sources()
    if any(source.scheme() == "file" and Path(source.path) != ROOT / "conf" for source in sources):
        return None
    return tuple((type(source), source.provider, source.path) for source in sources)


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
