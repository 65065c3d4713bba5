package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// completions are what each shell runs to complete a command line. All of them
// ask the program itself: called with the words so far and one option more, it
// prints what could come next, one a line.
var completions = map[string]string{
	"bash": `_postern() {
	local words=("${COMP_WORDS[@]:0:COMP_CWORD}") current=${COMP_WORDS[COMP_CWORD]}
	[[ $current == -* ]] && words+=("$current")
	local IFS=$'\n'
	COMPREPLY=($(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$current"))
}
complete -o default -F _postern postern
`,
	"zsh": `#compdef postern
_postern() {
	local -a before answers
	before=("${(@)words[1,CURRENT-1]}")
	[[ ${words[CURRENT]} == -* ]] && before+=("${words[CURRENT]}")
	answers=("${(@f)$("${(@)before}" --generate-bash-completion 2>/dev/null)}")
	if [[ -n ${answers[1]} ]]; then
		compadd -- "${(@)answers}"
	else
		_files
	fi
}
compdef _postern postern
`,
	"fish": `function __postern_answers
	set -l words (commandline -opc)
	set -l current (commandline -ct)
	string match -q -- '-*' $current; and set -a words $current
	$words --generate-bash-completion 2>/dev/null
end
complete -c postern -a '(__postern_answers)'
`,
	"powershell": `Register-ArgumentCompleter -Native -CommandName postern -ScriptBlock {
	param($current, $ast, $position)
	$words = @($ast.CommandElements | ForEach-Object { $_.ToString() })
	if ($current -and -not $current.StartsWith('-')) { $words = $words[0..($words.Count - 2)] }
	$rest = @($words | Select-Object -Skip 1) + '--generate-bash-completion'
	& $words[0] @rest 2>$null | Where-Object { $_ -like "$current*" } |
		ForEach-Object { [System.Management.Automation.CompletionResult]::new($_) }
}
`,
}

func completionCommand() *cli.Command {
	shells := slices.Sorted(maps.Keys(completions))
	return &cli.Command{
		Name: "completion", ArgsUsage: strings.Join(shells, "|"), Usage: "print what a shell needs to complete commands",
		UsageText: "source <(postern completion bash)\n" +
			"postern completion zsh > ~/.zfunc/_postern\n" +
			"postern completion fish > ~/.config/fish/completions/postern.fish",
		Action: func(c *cli.Context) error {
			words, err := operands(c, "SHELL")
			if err != nil {
				return err
			}
			script, ok := completions[words[0]]
			if !ok {
				return misuse("choose one of "+strings.Join(shells, ", "), "no completion for the shell %q", words[0])
			}
			_, err = fmt.Fprint(c.App.Writer, script)
			return err
		},
	}
}
