"""Command lines of the programs that mlxlab replaces, as tables of their flags.

A YAML file maps programs, each the name of its script with a subcommand, to

    command: the new command; without one there is no counterpart
    base:    arguments that the program stands for
    fixed:   arguments for what no flag of it set, written with `defaults=true`
    note:    what is different
    flags:   its flags, keys of its configuration files, or operations of its growth schedules, by all their spellings

in the order in which their arguments apply: a later one of the same key wins. A flag is `to` alone, or has

    to:      arguments separated by blanks (a list of options for a growth operation), or these by a regular expression
             of the value; null if there is no counterpart
    of:      what the expressions are matched with, by default the value `{}`; with another flag in it, an empty `to` says
             when this one has no effect
    default: the value without the flag
    always:  whether the new command needs the default too
    sets:    `name=value`: what a growth operation changes for later ones
    note:    what is different

In these a field `{}` is the value, `{1}` a group of the expression, `{list}` the value with commas, `{name}` the value of
another flag, `{a*b//2}` a product of values, in which `//` rounds to at least 1. Double quotation marks enclose text,
which Hydra may have to quote.
"""
