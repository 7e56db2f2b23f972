"""The page of the Python API, made from the signatures and docstrings of what `import mlxlab` offers."""

import ast
import inspect
import re
from collections.abc import Iterator
from textwrap import dedent
from types import FunctionType

import mlxlab
from documentation.tables import cell, code, key_table, table
from mlxlab import api, errors
from mlxlab.cli.args import option_help
from mlxlab.inference.generate import GenerationConfig
from mlxlab.inference.loaded_model import LoadedModel
from mlxlab.inference.sampling import SamplingParams

RESULTS = {
    "config": api.Config,
    "run": api.TrainedRun,
    "model": LoadedModel,
}  # by the name in the example
GENERATION = (GenerationConfig, SamplingParams)  # whose fields are options of `generate`
TITLES = {"Args": "argument", "Attributes": "attribute", "Raises": "error"}
HEAD = """# Python API

`import mlxlab` takes no time; what it offers is imported when it is first used. The three functions do in this process
what the commands `train`, `predict` and `generate` do:

```python
from mlxlab import compose, load, train
from mlxlab.errors import UserError

config = compose("data=text_classification", "data.source=my.csv", "data.text_column=Name", "data.label_column=Sex")
config["trainer.learning_rate"]  # 0.0003
run = train(config)
run.metrics["valid/accuracy"]
model = load(run.folder)
model.predict(["Allen, Miss. Elisabeth"])  # [{"label": "female", "probability_female": ..., "probability_male": ...}]
try:
    compose("trainer.max_stps=100")
except UserError as error:
    print(error.exit_code, error)  # 2 trainer.max_stps=100: unknown key; did you mean trainer.max_steps?
```

Other modules are not part of the API and may change without notice, except `mlxlab.errors` and what a
[component of your own](../how_to/extending.md) implements.
"""
ERRORS = """## Errors

Every error that the caller can correct is a `mlxlab.errors.UserError`; in a notebook it is one line. `str(error)` is
the message that the command would print, `error.exit_code` the [exit code](exit_codes.md) with which it would end.
Anything else is a bug.
"""


def python_api_page() -> str:
    return "\n\n".join([HEAD.strip(), *_functions(), *_results(), *_errors()]) + "\n"


def public_methods(kind: type) -> dict[str, FunctionType]:
    """Methods and properties of a class, and the operators that have a docstring."""
    members = {name: getattr(member, "fget", member) for name, member in vars(kind).items()}
    functions = {
        name: member for name, member in members.items() if isinstance(member, FunctionType)
    }
    return {
        name: each for name, each in functions.items() if not name.startswith("_") or each.__doc__
    }


def error_kinds() -> list[type[errors.UserError]]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return [kind for kind in kinds if issubclass(kind, errors.UserError)]


def _functions() -> Iterator[str]:
    for name, function in vars(api).items():  # in the order of the module
        if name in mlxlab.__all__:
            yield f"## `{name}`"
            yield from _described(f"mlxlab.{_signature(function)}", function.__doc__)


def _results() -> Iterator[str]:
    for example, kind in RESULTS.items():
        yield f"## `{kind.__name__}`"
        yield from _described("", kind.__doc__)
        for name, method in public_methods(kind).items():
            yield f"### `{example}[key]`" if name == "__getitem__" else f"### `{example}.{name}`"
            yield from _described(_call(kind, name, example), method.__doc__)
            if name == "generate":
                yield key_table(
                    [row for target in GENERATION for row in _options(target)], "option"
                )


def _errors() -> Iterator[str]:
    yield ERRORS.strip()
    rows = []
    for kind in error_kinds():
        fixed = kind.exit_code if "exit_code" in vars(kind) and kind is not errors.UserError else ""
        is_stop = issubclass(kind, errors.RunInterrupted)
        rows.append(
            [code(kind.__name__), "" if is_stop else str(fixed), cell(inspect.getdoc(kind) or "")]
        )
    yield table(["class", "`exit_code`", "meaning"], rows)


def _options(target: type) -> Iterator[list[str]]:
    for name, default, expected, description in option_help(
        f"{target.__module__}.{target.__name__}"
    ):
        yield [
            code(name),
            "*required*" if default is None else code(default),
            cell(expected),
            cell(description),
        ]


def _described(signature: str, doc: str | None) -> Iterator[str]:
    """A signature, the text of a docstring, and a table for each of its sections."""
    if signature:
        yield f"```python\n{signature}\n```"
    text, *sections = re.split(
        r"^(Args|Attributes|Raises):$", inspect.cleandoc(doc or ""), flags=re.MULTILINE
    )
    parts = text.strip().split("`")  # an entity in code would be shown as it is
    yield "`".join(
        [part.replace("<", "&lt;") if n % 2 == 0 else part for n, part in enumerate(parts)]
    )
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        entries = re.findall(
            r"^(\w[\w, ]*): (.*(?:\n +.*)*)", dedent(body.strip("\n")), re.MULTILINE
        )
        yield table(
            [TITLES[title], "meaning"], [[code(name), cell(text)] for name, text in entries]
        )


def _call(kind: type, name: str, example: str) -> str:
    """How a method is called on an object that is named like the example."""
    signature = _signature(public_methods(kind)[name])
    if name == "__getitem__":
        return f"{example}{signature.removeprefix(name).replace('(', '[', 1).replace(')', ']', 1)}"
    is_property = isinstance(vars(kind)[name], property)
    return f"{example}.{signature.replace('() ->', ':') if is_property else signature}"


def _signature(function: FunctionType) -> str:
    """As it is written in the source, without `self` and quotes around types."""
    [definition] = ast.parse(dedent(inspect.getsource(function))).body
    assert isinstance(definition, ast.FunctionDef)
    arguments = definition.args
    arguments.args = [argument for argument in arguments.args if argument.arg != "self"]
    for argument in (*arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument is not None and argument.annotation is not None:
            argument.annotation = _unquoted(argument.annotation)
    assert definition.returns is not None
    return f"{definition.name}({ast.unparse(arguments)}) -> {ast.unparse(_unquoted(definition.returns))}"


def _unquoted(annotation: ast.expr) -> ast.expr:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return ast.parse(annotation.value, mode="eval").body
    return annotation
