package main

import (
	"errors"
	"time"
)

// Date is a calendar day, written YYYY-MM-DD, so that the order of strings is
// the order of days. The zero Date is no day.
type Date string

// ParseDate reads a day between the years 1970 and 2199.
func ParseDate(s string) (Date, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil || t.Year() < 1970 || t.Year() > 2199 {
		return "", errors.New("not a date such as 2026-03-31")
	}
	return Date(s), nil
}

// dateOf is the day that t falls on, in t's own zone.
func dateOf(t time.Time) Date { return Date(t.Format(time.DateOnly)) }

// Time is the beginning of d in UTC; the zero time if d is no day.
func (d Date) Time() time.Time {
	t, err := time.Parse(time.DateOnly, string(d))
	if err != nil {
		return time.Time{}
	}
	return t
}

// Long writes d for reading: "31 March 2026".
func (d Date) Long() string {
	if d == "" {
		return ""
	}
	return d.Time().Format("2 January 2006")
}

// Month is a calendar month, written YYYY-MM. The zero Month is no month.
type Month string

// ParseMonth reads a month between the years 1970 and 2199.
func ParseMonth(s string) (Month, error) {
	if _, err := ParseDate(s + "-01"); err != nil {
		return "", errors.New("not a month such as 2026-03")
	}
	return Month(s), nil
}

// Month is the month that d falls in; d must be a day.
func (d Date) Month() Month { return Month(d[:7]) }

// First and Last are the first and the last day of m.
func (m Month) First() Date { return Date(m + "-01") }
func (m Month) Last() Date  { return dateOf(m.First().Time().AddDate(0, 1, -1)) }

// Long writes m for reading, "March 2026"; Short without the year, "Mar".
func (m Month) Long() string  { return m.First().Time().Format("January 2006") }
func (m Month) Short() string { return m.First().Time().Format("Jan") }

// Year is m's year, "2026".
func (m Month) Year() string { return string(m[:4]) }
