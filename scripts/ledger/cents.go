package main

import (
	"errors"
	"strconv"
	"strings"
)

// Cents is an amount of money in hundredths of the company's currency.
type Cents int64

// maxAmount bounds a single amount: 100,000 million. The sums of any voucher
// then stay below 2^53, the largest integer that every JSON reader keeps.
const maxAmount Cents = 10_000_000_000_000

// String formats c with two decimals, commas between thousands, and a true
// minus sign: "−1,234.50".
func (c Cents) String() string {
	sign, n := "", uint64(c)
	if c < 0 {
		sign, n = "−", -n
	}
	whole := strconv.FormatUint(n/100, 10)
	var b strings.Builder
	b.WriteString(sign)
	for i, digit := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	b.WriteByte('.')
	b.WriteByte(byte('0' + n/10%10))
	b.WriteByte(byte('0' + n%10))
	return b.String()
}

var (
	errNoAmount  = errors.New("not an amount such as 1234.50")
	errBigAmount = errors.New("more than " + maxAmount.String())
)

// ParseCents reads an amount that a person typed: digits, at most two decimals
// after a point or a comma, and another mark (comma, point, apostrophe, space)
// between groups of three digits. A last comma before exactly three digits
// parts thousands. The amount is not negative and at most maxAmount.
func ParseCents(s string) (Cents, error) {
	s = strings.TrimSpace(s)
	whole, decimals := s, ""
	if i := strings.LastIndexAny(s, ".,"); i >= 0 && (s[i] == '.' || len(s)-i-1 != 3) {
		whole, decimals = s[:i], s[i+1:]
		if len(decimals) > 2 || !isDigits(decimals) || strings.Contains(whole, s[i:i+1]) {
			return 0, errNoAmount
		}
	}
	whole, ok := joinGroups(whole)
	if !ok {
		return 0, errNoAmount
	}
	if len(strings.TrimLeft(whole, "0")) > 12 {
		return 0, errBigAmount
	}
	n, err := strconv.ParseInt(whole+(decimals + "00")[:2], 10, 64)
	if err != nil {
		return 0, errNoAmount
	}
	if Cents(n) > maxAmount {
		return 0, errBigAmount
	}
	return Cents(n), nil
}

// joinGroups removes the marks between thousands from s. It reports false if s
// holds anything but digits in groups parted by one and the same mark, each
// group but the first of three digits.
func joinGroups(s string) (string, bool) {
	s = strings.ReplaceAll(s, "\u00a0", " ")
	s = strings.ReplaceAll(s, "’", "'")
	i := strings.IndexAny(s, ",. '")
	if i < 0 {
		return s, isDigits(s)
	}
	groups := strings.Split(s, s[i:i+1])
	if len(groups[0]) > 3 {
		return "", false
	}
	for n, g := range groups {
		if !isDigits(g) || n > 0 && len(g) != 3 {
			return "", false
		}
	}
	return strings.Join(groups, ""), true
}

// isDigits reports whether s is one or more of the digits 0 to 9.
func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
