package main

import "testing"

func TestParseRate(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "8kbit": 1000, "500mbit": 62_500_000, "1.5Gbit": 187_500_000, "10GBIT": 1_250_000_000,
	} {
		if got, err := parseRate("bandwidth", text); got != want || err != nil {
			t.Errorf("%q: got %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"500", "500m", "mbit", "-1mbit", "0mbit", "NaNmbit", "infgbit", "1e300gbit", "5 tbit", "500MB"} {
		if got, err := parseRate("bandwidth", text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}
