# Completion of mlxlab in bash.
_mlxlab() {
    local line=${COMP_LINE:0:COMP_POINT} choice prefix=
    local word=${line##*[[:space:]]}
    # Where bash takes `=` for the end of a word, only what follows it is replaced.
    [[ $COMP_WORDBREAKS == *=* && $word == *=* ]] && prefix=${word%"${word##*=}"}
    COMPREPLY=()
    for choice in $(COMP_LINE=$line mlxlab -sc query=bash 2> /dev/null); do
        [[ $choice == "$word"* ]] || continue
        [[ $choice == *[=./] ]] || choice+=" "
        COMPREPLY+=("${choice#"$prefix"}")
    done
}
complete -o nospace -o default -F _mlxlab mlxlab
