package main

import (
	"strings"
	"testing"
)

func TestCentsString(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    Cents
		want string
	}{
		{"zero", 0, "0.00"},
		{"cents alone", 7, "0.07"},
		{"no group", 999_99, "999.99"},
		{"one group", 1_000_00, "1,000.00"},
		{"two groups", 1_234_567_05, "1,234,567.05"},
		{"negative", -1_234_50, "−1,234.50"},
		{"the smallest", -1 << 63, "−92,233,720,368,547,758.08"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.c.String(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseCents(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    string
		want Cents
		err  error
	}{
		{"whole", "12", 12_00, nil},
		{"one decimal", "12.5", 12_50, nil},
		{"two decimals", " 12.05 ", 12_05, nil},
		{"decimal comma", "12,5", 12_50, nil},
		{"thousands", "1,234", 1_234_00, nil},
		{"thousands and decimals", "1,234,567.80", 1_234_567_80, nil},
		{"continental", "1.234,50", 1_234_50, nil},
		{"swiss", "1'234.50", 1_234_50, nil},
		{"spaces", "1 234,50", 1_234_50, nil},
		{"no-break spaces", "1\u00a0234,50", 1_234_50, nil},
		{"the largest", "100,000,000,000.00", maxAmount, nil},
		{"more than that", "100,000,000,000.01", 0, errBigAmount},
		{"far more", "99999999999999999999", 0, errBigAmount},
		{"empty", "", 0, errNoAmount},
		{"negative", "-5", 0, errNoAmount},
		{"three decimals", "1.234", 0, errNoAmount},
		{"no decimals after the point", "12.", 0, errNoAmount},
		{"nothing before the point", ".50", 0, errNoAmount},
		{"short group", "1,23,456", 0, errNoAmount},
		{"long first group", "1234,567", 0, errNoAmount},
		{"two decimal commas", "1,234,50", 0, errNoAmount},
		{"mixed marks", "1,234'567", 0, errNoAmount},
		{"exponent", "1e3", 0, errNoAmount},
		{"other digits", "١٢", 0, errNoAmount},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseCents(tt.s)
			if got != tt.want || err != tt.err {
				t.Errorf("got %d, %v, want %d, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

// FuzzParseCents wants what was read to be an amount that formats to the same
// digits, and reads back as itself.
func FuzzParseCents(f *testing.F) {
	for _, s := range []string{"0", "12.5", "1,234.56", "1.234,5", "1'000", "007", "1,,2", "99999999999999", "1\u00a0000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCents(s)
		if err != nil {
			return
		}
		if c < 0 || c > maxAmount {
			t.Fatalf("%q: got %d, out of bounds", s, c)
		}
		if again, err := ParseCents(c.String()); again != c || err != nil {
			t.Fatalf("%q: %v reads back as %d, %v", s, c, again, err)
		}
		digits := func(s string) string {
			kept := strings.Map(func(r rune) rune {
				if r < '0' || r > '9' {
					return -1
				}
				return r
			}, s)
			return strings.Trim(kept, "0")
		}
		if got, want := digits(c.String()), digits(s); got != want {
			t.Fatalf("%q: got the digits %s, want %s", s, got, want)
		}
	})
}

func TestMonth(t *testing.T) {
	for _, tt := range []struct {
		month Month
		last  Date
	}{{"2026-02", "2026-02-28"}, {"2028-02", "2028-02-29"}, {"2026-12", "2026-12-31"}} {
		if got := tt.month.Last(); got != tt.last {
			t.Errorf("last day of %s: got %s, want %s", tt.month, got, tt.last)
		}
	}
	for _, s := range []string{"", "2026-2-3", "2026-02-30", "1969-12-31", "2200-01-01", "2026-02-03T00:00:00Z"} {
		if d, err := ParseDate(s); err == nil {
			t.Errorf("%q reads as the day %s", s, d)
		}
	}
}
