"""Texts of overrides as they are written and read, as Hydra reads them."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from mlxlab.config.hydra.job import typed_values
from mlxlab.terminal.program import run_dir_override, text_value

PLAIN = ["outputs/first", "5", "null", "a b", "a=b", "a,b", "(x)", "ü"]
ESCAPED = ["it's mine", "a\\b", "a\\'b", "ends\\", "a${b}c", "\\${b}\\", 'of "two"']


@pytest.mark.parametrize("folder", [*PLAIN, *ESCAPED])
def test_a_path_that_is_written_is_read_again(folder):
    written = run_dir_override(folder)
    [parsed] = OverridesParser.create().parse_overrides([written])
    assert str(OmegaConf.create({"folder": parsed.value()}).folder) == folder
    assert typed_values([written]) == {"hydra.run.dir": folder}
    assert typed_values([f"+data.source={text_value(folder)}"]) == {"data.source": folder}


def test_values_that_are_not_quoted_text_are_those_typed():
    values = typed_values(["a=x\\ y\\,z", "b='${c}'", "++d@e='f'", "~g=h"])
    assert values == {"a": "x y,z", "b": "${c}", "d": "f"}
    as_typed = {"b": "[1,'x']", "c": "'x','y'", "d": "'open", "e": "", "f": "null"}
    as_typed["h"] = f"'x'{'[' * 2000}"
    typed = ["no value", *(f"{key}={value}" for key, value in as_typed.items())]
    assert typed_values([*typed, 'a="it\'s"']) == as_typed | {"a": "it's"}
