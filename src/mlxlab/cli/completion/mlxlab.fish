# Completion of mlxlab in fish.
function __mlxlab_complete
    set -lx COMP_LINE (commandline -cp)
    mlxlab -sc query=bash 2> /dev/null | string split -n ' '
end
# Paths are completed too, but not where a command is expected.
complete -c mlxlab -n 'test (count (commandline -opc)) -eq 1' -f -a '(__mlxlab_complete)'
complete -c mlxlab -n 'test (count (commandline -opc)) -gt 1' -a '(__mlxlab_complete)'
