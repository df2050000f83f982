# Completes fmsd in bash; for every new shell, put into ~/.bashrc: eval "$(fmsd completion bash)"
_fmsd() {
    local reply
    COMPREPLY=()
    while IFS= read -r reply; do
        COMPREPLY+=("$reply")
    done < <(@FMSD@ _complete bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
}
# nospace: a reply ends with a blank itself, unless it goes on
complete -o nospace -F _fmsd fmsd
