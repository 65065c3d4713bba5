package main

import (
	"math"
	"strconv"
	"strings"
)

// rateUnits are how many bytes a second one of each is.
var rateUnits = map[string]float64{"kbit": 1e3 / 8, "mbit": 1e6 / 8, "gbit": 1e9 / 8}

// parseRate reads the rate of a line for the option called name, such as 500mbit, and
// returns bytes a second. Empty is zero.
func parseRate(name, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	lower := strings.ToLower(text)
	for unit, bytes := range rateUnits {
		number, ok := strings.CutSuffix(lower, unit)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		if err == nil && n*bytes >= 1 && n*bytes <= math.MaxInt64/2 {
			return int64(n * bytes), nil
		}
	}
	return 0, misuse("such as --"+name+" 500mbit; units are kbit, mbit and gbit, a second", "--%s %q is no rate", name, text)
}
