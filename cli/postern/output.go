package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// outputFlags are the options of every command that shows something.
func outputFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "`FORMAT`: table, wide, json or yaml"},
		&cli.BoolFlag{Name: "json", Usage: "the same as -o json"},
	}
}

func watchFlag() cli.Flag {
	return &cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "show it again every 2 s"}
}

// outputFormat returns table, json or yaml; table for commands without the options, and
// for wide, which is one.
func outputFormat(c *cli.Context) (string, error) {
	format := c.String("output")
	switch {
	case c.Bool("json") && c.IsSet("output") && format != "json":
		return "", misuse("leave one of the two away", "--json and -o %s contradict each other", format)
	case c.Bool("json"):
		return "json", nil
	case format == "table", format == "json", format == "yaml":
		return format, nil
	case format == "", format == "wide":
		return "table", nil
	}
	return "", misuse("choose table, wide, json or yaml", "unknown output format %q", format)
}

// show prints v as the command's options want it; asTable writes the table.
func show[T any](c *cli.Context, v T, asTable func(*table, T)) error {
	format, err := outputFormat(c)
	if err != nil {
		return err
	}
	return write(c.App.Writer, format, v, func(t *table, v T) {
		t.wide = c.String("output") == "wide"
		asTable(t, v)
	})
}

func write[T any](w io.Writer, format string, v T, asTable func(*table, T)) error {
	if format == "table" {
		t := &table{now: time.Now(), colour: hasColour(w)}
		asTable(t, v)
		_, err := io.WriteString(w, t.String())
		return err
	}
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if format == "yaml" {
		if data, err = yaml.JSONToYAML(data); err != nil {
			return err
		}
	}
	_, err = w.Write(data)
	return err
}

// watchInterval is how often --watch asks again.
const watchInterval = 2 * time.Second

// list fetches and shows a list, once, or, with --watch, until it is
// interrupted. On a terminal each showing takes the place of the last one;
// elsewhere they follow each other. Only the first fetch may fail: what an
// operator watches may well be a coordinator's restart.
func list[T any](c *cli.Context, fetch func(context.Context) ([]T, error), asTable func(*table, []T)) error {
	rows, err := fetch(c.Context)
	if err != nil {
		return err
	}
	if !c.Bool("watch") {
		return show(c, orEmpty(rows), asTable)
	}
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for first := true; ; first = false {
		switch {
		case isTerminal(c.App.Writer):
			io.WriteString(c.App.Writer, "\x1b[H\x1b[2J\x1b[3J")
		case !first && !isData(c):
			io.WriteString(c.App.Writer, "\n")
		}
		if err != nil {
			message, hint, _ := explain(err)
			fmt.Fprintf(c.App.ErrWriter, "postern: error: %s\npostern: hint: %s\n", message, hint)
		} else if err := show(c, orEmpty(rows), asTable); err != nil {
			return err
		}
		select {
		case <-c.Context.Done():
			return nil
		case <-tick.C:
		}
		rows, err = fetch(c.Context)
		if c.Context.Err() != nil {
			return nil
		}
	}
}

// orEmpty makes an absent list an empty one, which JSON shows as [].
func orEmpty[T any](rows []T) []T {
	if rows == nil {
		return []T{}
	}
	return rows
}

// isData reports whether the command's output is for a program to read.
func isData(c *cli.Context) bool {
	format, _ := outputFormat(c)
	return format != "table"
}

// note tells a person on standard error what standard output is no place for.
// It is silent when a program reads the output.
func note(c *cli.Context, format string, args ...any) {
	if !isData(c) {
		fmt.Fprintf(c.App.ErrWriter, format+"\n", args...)
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// hasColour reports whether w is a terminal whose user did not ask for no
// colour (no-color.org).
func hasColour(w io.Writer) bool {
	return isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// ago returns t as people say it, from now: "3m ago", "in 23h", "never" for the
// zero time.
func ago(now, t time.Time) string {
	switch d := now.Sub(t); {
	case t.IsZero():
		return "never"
	case d < 0:
		return "in " + span(-d)
	case d < time.Second:
		return "now"
	default:
		return span(d) + " ago"
	}
}

// span returns d in its largest unit, rounded down.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d/time.Minute))
	case d < 2*day:
		return fmt.Sprintf("%dh", int(d/time.Hour))
	default:
		return fmt.Sprintf("%dd", int(d/day))
	}
}

// size returns n bytes in the unit that needs the fewest digits.
func size(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), 0
	for v >= 1024 && unit < 5 {
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", v, " KMGTP"[unit])
}

// dash shows what is absent.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// commas lists words, or shows that there are none.
func commas(words []string) string { return dash(strings.Join(words, ", ")) }
