"""Which columns a data set reads, by the keys of `data` that name them."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlxlab.data.labelled.renderer import (
    Template,
    column_template,
    default_template,
    parse_template,
)
from mlxlab.data.labelled.rows import plain_columns
from mlxlab.data.sources.block import Source
from mlxlab.data.sources.messages import MissingColumnError, require_columns
from mlxlab.errors import ConfigError, DataError


@dataclass(frozen=True)
class ColumnChoice:
    """The columns of a labelled data set.

    Args:
        target: the column to predict.
        texts: columns that are a text of their own, one or two; without any, a text of all columns is written.
        columns, exclude, template: as the keys of `LabelledDataset`.
        special: columns that split, by their keys.
    """

    target: str
    texts: Sequence[str]
    columns: Sequence[str] | None
    exclude: Sequence[str]
    template: str | None
    special: dict[str, str]

    def templates(self, source: Source) -> list[Template]:
        """The texts to write; reads the names of all columns where no key says which.

        Raises:
            ConfigError: the keys do not go together, or the model would read the target.
            DataError: a column does not exist.
        """
        self._refuse_combinations()
        templates = self._own_templates()
        named = self._named_columns(templates)
        _require_columns(source, named)
        if templates:
            return templates
        special = [name for names in named.values() for name in names]
        others = [name for name in plain_columns(source) if name not in special]
        if not others:
            got = f"expected a column other than {', '.join(special)} to predict from"
            raise ConfigError(f"{source.name}: {got}")
        return [default_template(others)]

    def _refuse_combinations(self) -> None:
        keys = {
            "text_column": self.texts,
            "template": self.template,
            "columns": self.columns,
            "exclude": self.exclude,
        }
        typed = [key for key, value in keys.items() if value]
        if len(typed) > 1:
            raise ConfigError(f"data.{typed[1]} has no effect with data.{typed[0]}")
        names = list(self.columns or ())
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"data.columns: {name} is given twice")

    def _own_templates(self) -> list[Template]:
        """Those that the keys give; none if all columns are to be written."""
        if self.columns is not None:
            return [default_template(self.columns)]
        if self.template is not None:
            return [parse_template(self.template)]
        return [column_template(name) for name in self.texts]

    def _named_columns(self, templates: Sequence[Template]) -> dict[str, list[str]]:
        """The columns that each key names; raises ConfigError if one has two meanings."""
        keys = {f"text_column[{number}]": name for number, name in enumerate(self.texts)}
        if len(self.texts) == 1:
            keys = {"text_column": self.texts[0]}
        keys |= {"target": self.target, **self.special}
        seen: dict[str, str] = {}
        for key, name in keys.items():
            if name in seen:
                raise ConfigError(f"data.{key}={name}: this column is data.{seen[name]} already")
            seen[name] = key

        named = {key: [name] for key, name in keys.items()}
        named["exclude"] = list(self.exclude)
        if templates and not self.texts:
            key = "template" if self.columns is None else "columns"
            named[key] = list(templates[0].fields)
            if self.target in named[key]:
                message = f"{self.target} is data.target: the model must not read it"
                raise ConfigError(f"data.{key}: {message}")
        return named


def _require_columns(source: Source, named: dict[str, list[str]]) -> None:
    """Raises DataError with the keys of `data` that name columns which do not exist."""
    names = [name for each in named.values() for name in each]
    try:
        require_columns(names, source.columns(), source.name)
    except MissingColumnError as error:
        typed: list[str] = []
        for key, each in named.items():
            if not set(each).isdisjoint(error.missing):
                typed.append(f"data.{key}={each[0]}" if len(each) == 1 else f"data.{key}")
        raise DataError(f"{', '.join(typed)}: {error}") from None
