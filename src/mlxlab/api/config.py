"""A config in Python: composed of overrides, read and changed by its keys, checked at each change.

The rows of a DataFrame lie in a file, which a run reads and a later one finds again.
"""

import copy
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlxlab.config.paths import project_root
from mlxlab.errors import ConfigError, DataError, NotAllowedError, UserError
from mlxlab.files.atomic import write_atomic
from mlxlab.inference.predict import is_frame
from mlxlab.schema.dotted_keys import join_key, override_name
from mlxlab.terminal.nearest import suggestion
from mlxlab.terminal.redact import has_credentials, redact, why_refused

if TYPE_CHECKING:
    import pandas as pd

FRAMES = "outputs/frames"
T = TypeVar("T")


class Section:
    """The keys of a config below one of them: `config.trainer.epochs` reads a value, an assignment overrides it."""

    _config: "Config"
    _path: str

    def __init__(self, config: "Config", path: str) -> None:
        vars(self).update(_config=config, _path=path)

    def __getitem__(self, key: str) -> Any:
        """The value of a dotted key, as a copy."""
        return copy.deepcopy(self._find(key))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            value = self._find(name)
        except ConfigError as error:
            raise AttributeError(str(error)) from None
        if isinstance(value, dict):
            return Section(self._config, join_key(self._path, name))
        return copy.deepcopy(value)

    def __setattr__(self, name: str, value: object) -> None:
        self[name] = value

    def __setitem__(self, key: str, value: object) -> None:
        """Overrides a dotted key.

        Raises:
            ConfigError: there is no such key, or the value is not one of it; the config stays as it was.
        """
        self._config.override(f"{self._path}.{key}".lstrip("."), value)

    def __dir__(self) -> Iterator[str]:
        yield from super().__dir__()
        yield from self._find("")

    def __str__(self) -> str:
        import yaml

        return str(yaml.safe_dump(self._find(""), sort_keys=False))

    __repr__ = __str__

    def _find(self, key: str) -> Any:
        value: Any = self._config.values
        path = ""
        for name in filter(None, f"{self._path}.{key}".split(".")):
            if not isinstance(value, dict) or name not in value:
                known = value if isinstance(value, dict) else ()
                raise ConfigError(f"{join_key(path, name)}: no such key{suggestion(name, known)}")
            value = value[name]
            path = join_key(path, name)
        return value


class Config(Section):
    """A checked config.

    Attributes:
        overrides: of which it is composed, as on the command line.
        config_dir: a folder of options of your own.
        values: all that it holds, by key.
    """

    overrides: tuple[str, ...]
    config_dir: Path | None
    values: dict[str, Any]

    def __init__(self, overrides: Sequence[str], config_dir: Path | None) -> None:
        super().__init__(self, "")
        vars(self).update(config_dir=config_dir)
        self._compose(overrides)

    def override(self, key: str, value: object) -> None:
        """Replaces the value of a key, or the option of a group.

        Raises:
            ConfigError: as from `compose`.
        """
        others = [each for each in self.overrides if override_name(each) != key]
        self._compose([*others, override_of(key, value)])

    def _compose(self, overrides: Sequence[str]) -> None:
        from mlxlab.config.hydra.compose import compose_checked

        with redacted():
            values = composed(compose_checked, overrides, self.config_dir)
        vars(self).update(overrides=tuple(overrides), values=values)


def compose(
    *overrides: str,
    config_dir: str | os.PathLike[str] | None = None,
    data: "pd.DataFrame | str | Mapping[str, object] | None" = None,
    **keys: object,
) -> Config:
    """The config of `mlxlab train` with these overrides, checked.

    Args:
        overrides: as on the command line: `"model=bert"`, `"trainer.max_steps=100"`.
        config_dir: a folder of options of your own, as with `--config-dir`.
        data: a DataFrame of rows to learn from (by `data=table`, unless another option is named); or as `keys`.
        keys: the same as Python values: `model="bert"`, `trainer={"max_steps": 100}`, `seed=3`.

    Raises:
        ConfigError: the config is invalid; one line per error, with the nearest valid name.
    """
    with redacted():
        folder = None
        if config_dir is not None:
            folder = Path(os.path.realpath(os.path.expanduser(config_dir)))
            if not folder.is_dir():
                raise ConfigError(f"config_dir={config_dir}: not a folder of config files")
        for text in overrides:
            if not isinstance(text, str):
                raise ConfigError(f"{text!r}: expected an override as text, such as 'model=bert'")
            if has_credentials(text):
                raise NotAllowedError(f"{text}: {why_refused(text)}")
    typed = [*overrides, *_overrides_of(keys, "")]
    if is_frame(data):
        typed = with_frame(typed, data)
    elif data is not None:
        typed += _overrides_of({"data": data}, "")
    return Config(typed, folder)


def with_frame(overrides: Sequence[str], frame: "pd.DataFrame") -> list[str]:
    """Overrides whose data are the rows of a frame, which are kept in a file."""
    names = [override_name(text) for text in overrides]
    option = [] if "data" in names else ["data=table"]
    others = [text for text in overrides if override_name(text) != "data.source"]
    return [*option, *others, override_of("data.source", str(store_frame(frame)))]


def override_of(key: str, value: object) -> str:
    from mlxlab.past_runs.rerun import override_text

    return override_text(key, list(value) if isinstance(value, tuple) else value)


def _overrides_of(values: Mapping[str, object], path: str) -> list[str]:
    """An override for each value of nested mappings."""
    texts = []
    for name, value in values.items():
        key = join_key(path, name)
        if isinstance(value, Mapping):
            texts += _overrides_of(value, key)
        else:
            texts.append(override_of(key, value))
    return texts


def composed(
    compose: Callable[[Sequence[str], Path | None], T],
    overrides: Sequence[str],
    config_dir: Path | None,
) -> T:
    """What is composed of overrides and those of the run that they repeat; with options of the resumed run if needed."""
    from mlxlab.run.entry import complete_overrides, resumed_options

    completed = complete_overrides(list(overrides), config_dir)
    try:
        return compose(completed, config_dir)
    except ConfigError:
        options = resumed_options(completed)
        if not options:
            raise
    return compose([*options, *completed], config_dir)


@contextmanager
def redacted() -> Iterator[None]:
    """Removes credentials from messages: they are shown, and notebooks are stored."""
    try:
        yield
    except UserError as error:
        error.args = (redact(str(error)),)
        raise


def store_frame(frame: "pd.DataFrame") -> Path:
    """The file with these rows below `outputs/frames`, named by its content: equal rows are stored once.

    Raises:
        DataError: a column holds values that Parquet has no type for.
    """
    content = _as_parquet(frame)
    path = project_root() / FRAMES / f"{hashlib.sha256(content).hexdigest()[:16]}.parquet"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    return path


def write_frame(frame: "pd.DataFrame", path: Path) -> None:
    """Writes the rows into a file; raises DataError as `store_frame`."""
    path.write_bytes(_as_parquet(frame))


def _as_parquet(frame: "pd.DataFrame") -> bytes:
    import pyarrow

    buffer = io.BytesIO()
    try:
        frame.to_parquet(buffer, index=False)
    except (pyarrow.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"the DataFrame cannot be stored: {str(error)[:300]}") from None
    return buffer.getvalue()
