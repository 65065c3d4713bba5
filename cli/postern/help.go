package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// helpWidth is what every terminal has.
const helpWidth = 80

// printHelp writes the help of an App or a Command: what it is, how it is
// called, what it can be told, and, from UsageText, examples.
func printHelp(w io.Writer, _ string, data any) {
	var b strings.Builder
	switch d := data.(type) {
	case *cli.App:
		fmt.Fprintf(&b, "%s - %s\n\n", d.Name, d.Usage)
		fmt.Fprintf(&b, "Usage:\n  %s COMMAND [OPTIONS]\n\n%s\n", d.Name, d.Description)
		helpCommands(&b, d.Commands)
		helpExamples(&b, d.UsageText)
		fmt.Fprintf(&b, "\n`%s COMMAND --help` tells more of a command.\n", d.Name)
	case *cli.Command:
		helpCommand(&b, d)
	default:
		panic(fmt.Sprintf("postern: help of a %T", data))
	}
	io.WriteString(w, b.String())
}

func helpCommand(b *strings.Builder, c *cli.Command) {
	name := cmp.Or(c.HelpName, "postern "+c.Name)
	b.WriteString(wrap(name+" - "+c.Usage, 2) + "\n\nUsage:\n  " + name)
	switch {
	case len(c.Subcommands) > 0:
		b.WriteString(" COMMAND [OPTIONS]\n")
	case c.ArgsUsage != "":
		b.WriteString(" " + c.ArgsUsage + " [OPTIONS]\n")
	default:
		b.WriteString(" [OPTIONS]\n")
	}
	if c.Description != "" {
		b.WriteString("\n" + wrap(c.Description, 0) + "\n")
	}
	helpCommands(b, c.Subcommands)
	if len(c.Subcommands) == 0 {
		helpFlags(b, c.VisibleFlags())
	}
	helpExamples(b, c.UsageText)
}

func helpCommands(b *strings.Builder, commands []*cli.Command) {
	if len(commands) == 0 {
		return
	}
	b.WriteString("\nCommands:\n")
	var rows [][2]string
	for _, c := range commands {
		if !c.Hidden {
			rows = append(rows, [2]string{strings.Join(c.Names(), ", "), c.Usage})
		}
	}
	helpColumns(b, rows)
}

func helpFlags(b *strings.Builder, flags []cli.Flag) {
	b.WriteString("\nOptions:\n")
	var rows [][2]string
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		usage, value := unquote(d.GetUsage())
		name := ""
		for _, n := range f.Names() {
			if len(n) == 1 {
				name = "-" + n + ", " + name
			} else {
				name += "--" + n
			}
		}
		if d.TakesValue() {
			name += " " + value
		}
		if text := strings.Trim(d.GetDefaultText(), `"`); d.TakesValue() && text != "" && text != "0" && text != "0s" {
			usage += " (default " + text + ")"
		}
		for _, env := range d.GetEnvVars() {
			usage += " [$" + env + "]"
		}
		rows = append(rows, [2]string{name, usage})
	}
	helpColumns(b, rows)
}

// unquote takes the value's name out of the usage of an option, where it stands
// in back quotes, as in package flag. In the text it is a word like others, but
// in front, before a colon, it only names the value and is left out.
func unquote(usage string) (text, value string) {
	before, rest, _ := strings.Cut(usage, "`")
	value, after, ok := strings.Cut(rest, "`")
	if !ok {
		return usage, "VALUE"
	}
	if label, found := strings.CutPrefix(after, ": "); found && before == "" {
		return label, value
	}
	word := strings.ToLower(value)
	if value == "URL" || len(value) == 1 {
		word = value
	}
	return before + word + after, value
}

// helpColumns writes names and what they mean beside each other, or below where
// a name is long.
func helpColumns(b *strings.Builder, rows [][2]string) {
	const longest = 24
	width := 0
	for _, r := range rows {
		if len(r[0]) <= longest {
			width = max(width, len(r[0]))
		}
	}
	for _, r := range rows {
		text := wrap(r[1], width+4)
		if len(r[0]) > longest {
			fmt.Fprintf(b, "  %s\n%*s%s\n", r[0], width+4, "", text)
			continue
		}
		fmt.Fprintf(b, "  %-*s  %s\n", width, r[0], text)
	}
}

func helpExamples(b *strings.Builder, text string) {
	if text == "" {
		return
	}
	b.WriteString("\nExamples:\n")
	for line := range strings.Lines(text) {
		b.WriteString("  " + line)
	}
	b.WriteString("\n")
}

// wrap breaks text at spaces so that no line, indented by indent columns from
// the second on, is wider than helpWidth. Line ends in text stay.
func wrap(text string, indent int) string {
	var b strings.Builder
	for i, line := range strings.Split(text, "\n") {
		if i > 0 {
			b.WriteString("\n" + strings.Repeat(" ", indent))
		}
		column := indent
		for j, word := range strings.Fields(line) {
			n := len([]rune(word))
			switch {
			case j == 0:
			case column+1+n > helpWidth:
				b.WriteString("\n" + strings.Repeat(" ", indent))
				column = indent
			default:
				b.WriteString(" ")
				column++
			}
			b.WriteString(word)
			column += n
		}
	}
	return b.String()
}
