# Completes fmsd in zsh; for every new shell, put into ~/.zshrc: eval "$(fmsd completion zsh)"
_fmsd() {
    local reply
    local -a whole open
    for reply in "${(@f)$(@FMSD@ _complete zsh "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}"; do
        if [[ $reply == *' ' ]]; then
            whole+=("${reply% }")
        elif [[ -n $reply ]]; then
            open+=("$reply")
        fi
    done
    (( $#whole )) && compadd -- "${whole[@]}"
    (( $#open )) && compadd -S '' -- "${open[@]}"
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
compdef _fmsd fmsd
