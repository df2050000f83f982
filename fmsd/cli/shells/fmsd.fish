# Completes fmsd in fish; for every new shell, put into ~/.config/fish/config.fish: fmsd completion fish | source
function __fmsd_complete
    set -l words (commandline -opc)
    set -l word (commandline -ct | string unescape)
    @FMSD@ _complete fish $words[2..-1] "$word" 2>/dev/null
end
complete -c fmsd -f -a '(__fmsd_complete)'
