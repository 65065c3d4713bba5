package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

const completionFlag = "--generate-bash-completion"

// arrange puts a command line into the order that package cli wants: the words
// of the command, its options, its operands. People may write options anywhere.
// "help X Y" becomes "X Y --help". After "--" nothing is an option.
//
// args[0] is the program. What arrange does not understand it leaves, for cli to
// complain about.
func arrange(commands []*cli.Command, args []string) []string {
	if len(args) < 2 || args[len(args)-1] == completionFlag {
		return args
	}
	// Options in front are those of the command behind them.
	early, rest := leading(commands, args[1:])
	if len(rest) > 0 && rest[0] == "help" {
		rest = append(slices.Clone(rest[1:]), "--help")
	}
	out := []string{args[0]}
	var leaf *cli.Command
	for len(rest) > 0 {
		i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(rest[0]) })
		if i < 0 {
			break
		}
		leaf, commands = commands[i], commands[i].Subcommands
		out, rest = append(out, rest[0]), rest[1:]
	}
	if leaf == nil || len(leaf.Subcommands) > 0 {
		return slices.Concat(out, early, rest)
	}
	options, operands := split(leaf, rest)
	out = slices.Concat(out, early, options)
	if len(operands) > 0 {
		out = append(append(out, "--"), operands...)
	}
	return out
}

// leading parts words where the options in front of the command end.
func leading(commands []*cli.Command, words []string) (options, rest []string) {
	n := 0
	for n < len(words) && len(words[n]) > 1 && words[n][0] == '-' && words[n] != "--" {
		if slices.ContainsFunc(commands, func(c *cli.Command) bool { return anyTakesValue(c, words[n]) }) {
			n++
		}
		n = min(n+1, len(words))
	}
	return words[:n], words[n:]
}

// anyTakesValue is takesValue for c or any command below it.
func anyTakesValue(c *cli.Command, word string) bool {
	return takesValue(c, word) || slices.ContainsFunc(c.Subcommands, func(sub *cli.Command) bool { return anyTakesValue(sub, word) })
}

// split parts the words behind a command into options, with their values, and
// operands.
func split(c *cli.Command, words []string) (options, operands []string) {
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		switch {
		case word == "--":
			return options, append(operands, words...)
		case word == "-" || !strings.HasPrefix(word, "-"):
			operands = append(operands, word)
		default:
			options = append(options, word)
			if takesValue(c, word) && len(words) > 0 {
				options = append(options, words[0])
				words = words[1:]
			}
		}
	}
	return options, operands
}

// takesValue reports whether the option word of c is followed by its value.
func takesValue(c *cli.Command, word string) bool {
	name := strings.TrimLeft(word, "-")
	if strings.Contains(name, "=") {
		return false
	}
	for _, f := range c.Flags {
		if slices.Contains(f.Names(), name) {
			d, ok := f.(cli.DocGenerationFlag)
			return ok && d.TakesValue()
		}
	}
	return false
}
