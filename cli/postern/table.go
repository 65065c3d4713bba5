package main

import (
	"strings"
	"time"
	"unicode/utf8"

	"postern"
)

// A table is rows of text in columns of equal width. States get a colour where
// there is one to be had; text/tabwriter would count that as width.
type table struct {
	now    time.Time
	colour bool
	wide   bool // has columns that most people do without
	rows   [][]string
	fields bool // no head: names in the first column, values in the second
}

// head sets the columns' titles.
func (t *table) head(titles ...string) { t.rows = append(t.rows, titles) }

// row adds a line.
func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// ifWide returns cells if the table is wide, and otherwise none.
func (t *table) ifWide(cells []string) []string {
	if t.wide {
		return cells
	}
	return nil
}

// field adds a line of a table without a head; one without a name goes on with
// the last.
func (t *table) field(name, value string) {
	t.fields = true
	if name != "" {
		name += ":"
	}
	t.rows = append(t.rows, []string{name, value})
}

// ago returns at as people say it.
func (t *table) ago(at time.Time) string { return ago(t.now, at) }

// minute returns at for a sentence, to the minute and in UTC, whoever reads it.
func minute(at time.Time) string { return at.UTC().Format("2006-01-02T15:04Z") }

// when returns at for a table of fields: the time and how long ago.
func (t *table) when(at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return at.Local().Format(time.RFC3339) + " (" + t.ago(at) + ")"
}

// lease tells of a member's lease when it matters: while the coordinator is away.
func (t *table) lease(ends time.Time, lapsed, up bool) {
	switch {
	case lapsed:
		t.field("", "for too long: nobody is served until the coordinator is back")
	case !ends.IsZero() && !up:
		t.field("", "serves without the coordinator until "+t.when(ends))
	}
}

func (t *table) String() string {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for n, row := range t.rows {
		line := ""
		for i, cell := range row {
			text := cell
			if n > 0 || t.fields {
				text = t.paint(cell)
			}
			if i < len(row)-1 {
				text += strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
			}
			line += text
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

// states are the words that get a colour (ECMA-48, SGR).
var states = map[string]string{
	postern.StateReady:    "\x1b[32m",
	"usable":              "\x1b[32m",
	"up":                  "\x1b[32m",
	postern.UserActive:    "\x1b[32m",
	postern.UserInvited:   "\x1b[33m",
	postern.UserDisabled:  "\x1b[31m",
	postern.StateOffline:  "\x1b[31m",
	"revoked":             "\x1b[31m",
	"down":                "\x1b[31m",
	postern.StateDegraded: "\x1b[33m",
	"expired":             "\x1b[33m",
	"used":                "\x1b[2m",

	postern.StateUnproven:      "\x1b[33m",
	"OK":                       "\x1b[32m",
	"WARNING":                  "\x1b[33m",
	"MISSING":                  "\x1b[31m",
	"ERROR":                    "\x1b[31m",
	"ALARM":                    "\x1b[31m",
	postern.CertificateWaiting: "\x1b[33m",
}

func (t *table) paint(cell string) string {
	state, _, _ := strings.Cut(cell, ", ")
	if code, ok := states[state]; ok && t.colour {
		return code + cell + "\x1b[0m"
	}
	return cell
}
