"""Features outside the core of mlxlab, each in a folder that can be removed together with its YAML.

Nothing outside imports them. A config reaches an extension by a `_target_`, the core by a protocol that it
implements, and the command line by the name of a module in its folder `commands`.
"""
