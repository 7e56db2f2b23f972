"""Prints a JSON schema of config files, by which editors complete and check them.

    mlxlab schema > schema.json
    mlxlab schema group=model > model.json

The first one is that of files with `# @package _global_`, which set keys of the whole config, such as
conf/experiment/mine.yaml; the second one of options of a group, such as conf/model/mine.yaml.

Example: the first line of a file, for editors with the YAML language server
    # yaml-language-server: $schema=../../schema.json
"""

from mlxlab.cli.print_json import print_json
from mlxlab.config.option_files import groups
from mlxlab.config.paths import conf_dir
from mlxlab.config.plugins import plugins
from mlxlab.config.schema.json_schema import json_schema
from mlxlab.errors import ConfigError
from mlxlab.terminal.nearest import suggestion


def schema(group: str = "") -> None:
    """Prints the schema.

    Args:
        group: of which options are described; by default the whole config.
    """
    known = groups([conf_dir(), *plugins().values()])
    if group and group not in known:
        raise ConfigError(f"group={group}: no config group{suggestion(group, known)}")
    print_json(json_schema(group))
