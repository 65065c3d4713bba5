package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/urfave/cli/v2"
)

func TestAgo(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		name string
		t    time.Time
		want string
	}{
		{"never", time.Time{}, "never"},
		{"this moment", now, "now"},
		{"seconds", now.Add(-59 * time.Second), "59s ago"},
		{"minutes", now.Add(-3*time.Minute - 20*time.Second), "3m ago"},
		{"hours", now.Add(-47 * time.Hour), "47h ago"},
		{"days", now.Add(-48 * time.Hour), "2d ago"},
		{"to come", now.Add(23*time.Hour + 59*time.Minute), "in 23h"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := ago(now, tt.t); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestMinute(t *testing.T) {
	at := time.Date(2026, 11, 22, 1, 2, 3, 0, time.FixedZone("CET", 3600))
	if got, want := minute(at), "2026-11-22T00:02Z"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSize(t *testing.T) {
	tests := []struct {
		name string
		n    uint64
		want string
	}{
		{"none", 0, "0 B"},
		{"bytes", 1023, "1023 B"},
		{"kibibytes", 1536, "1.5 KiB"},
		{"gibibytes", 5 << 30, "5.0 GiB"},
		{"the most there is", 1<<64 - 1, "16384.0 PiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := size(tt.n); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTable(t *testing.T) {
	tests := []struct {
		name  string
		table *table
		want  string
	}{
		{"columns are as wide as their widest cell in characters", &table{rows: [][]string{
			{"NAME", "STATE", "TITLE"}, {"acme", "ready", "Bücherei"}, {"globex-two", "offline", "-"},
		}}, "" +
			"NAME        STATE    TITLE\n" +
			"acme        ready    Bücherei\n" +
			"globex-two  offline  -\n"},
		{"colour takes no width", &table{colour: true, rows: [][]string{
			{"STATE", "N"}, {"ready", "1"}, {"offline", "2"},
		}}, "" +
			"STATE    N\n" +
			"\x1b[32mready\x1b[0m    1\n" +
			"\x1b[31moffline\x1b[0m  2\n"},
		{"fields", &table{fields: true, rows: [][]string{{"Node:", "a"}, {"", "b"}}}, "Node:  a\n       b\n"},
		{"empty", &table{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.table.String(); got != tt.want {
				t.Errorf("got:\n%swant:\n%s", got, tt.want)
			}
		})
	}
}

// watching runs a list with --watch for d and returns what it showed.
func watching(t *testing.T, d time.Duration, args []string, fetch func(context.Context) ([]string, error)) (string, string, error) {
	t.Helper()
	var out, errs bytes.Buffer
	app := &cli.App{Writer: &out, ErrWriter: &errs}
	set := flag.NewFlagSet("", flag.ContinueOnError)
	for _, f := range append(outputFlags(), watchFlag()) {
		if err := f.Apply(set); err != nil {
			t.Fatal(err)
		}
	}
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	c := cli.NewContext(app, set, nil)
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	c.Context = ctx
	err := list(c, fetch, func(t *table, rows []string) {
		t.head("NAME")
		for _, r := range rows {
			t.row(r)
		}
	})
	return out.String(), errs.String(), err
}

func TestWatch(t *testing.T) {
	names := func(perCall ...[]string) func(context.Context) ([]string, error) {
		n := 0
		return func(context.Context) ([]string, error) {
			rows := perCall[min(n, len(perCall)-1)]
			n++
			if rows == nil {
				return nil, errors.New("gone for a moment")
			}
			return rows, nil
		}
	}
	a, b := []string{"a"}, []string{"a", "b"}
	tests := []struct {
		name            string
		for_            time.Duration
		args            []string
		fetch           func(context.Context) ([]string, error)
		out, errs, fail string
	}{
		{"once", time.Minute, nil, names(a), "NAME\na\n", "", ""},
		{"tables follow each other", 5 * time.Second, []string{"--watch"}, names(a, b), "NAME\na\n\nNAME\na\nb\n\nNAME\na\nb\n", "", ""},
		{"documents follow each other", 3 * time.Second, []string{"-w", "--json"}, names(a), "[\n  \"a\"\n]\n[\n  \"a\"\n]\n", "", ""},
		{"a failure in between", 5 * time.Second, []string{"-w"}, names(a, nil, b), "NAME\na\n\n\nNAME\na\nb\n", "postern: error: gone for a moment\n", ""},
		{"a failure at first", 5 * time.Second, []string{"-w"}, names(nil), "", "", "gone for a moment"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out, errs, err := watching(t, tt.for_, tt.args, tt.fetch)
				if out != tt.out {
					t.Errorf("showed:\n%swant:\n%s", out, tt.out)
				}
				if !strings.HasPrefix(errs, tt.errs) || (tt.errs == "") != (errs == "") {
					t.Errorf("standard error %q, want %q", errs, tt.errs)
				}
				if got := ""; err != nil {
					got = err.Error()
					if got != tt.fail {
						t.Errorf("error %q, want %q", got, tt.fail)
					}
				} else if tt.fail != "" {
					t.Errorf("no error, want %q", tt.fail)
				}
			})
		})
	}
}
