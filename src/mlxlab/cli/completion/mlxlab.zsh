# Completion of mlxlab in zsh.
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u }
_mlxlab() {
    local -a choices
    choices=(${=$(COMP_LINE="${(j: :)words[1,CURRENT]}" mlxlab -sc query=bash 2> /dev/null)})
    compadd -S '' -- ${(M)choices:#*[=./]}
    compadd -- ${choices:#*[=./]}
    (( $#choices )) || _files
}
compdef _mlxlab mlxlab
