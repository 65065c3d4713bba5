package main

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postern"
)

func checkRoute(c *cli.Context, a *admin, words []string) error {
	host, err := parseHost(words[0])
	if err != nil {
		return err
	}
	var check postern.RouteCheck
	if err := a.call(c.Context, http.MethodPost, query("/routes/"+url.PathEscape(host)+"/check", c.String("tenant")), nil, &check); err != nil {
		return err
	}
	if err := show(c, check, checkRows); err != nil {
		return err
	}
	if wanting := wantingIn(check); len(wanting) > 0 && !isData(c) {
		fmt.Fprintln(c.App.Writer)
		printRecords(c.App.Writer, check.Route, wanting)
	}
	lacking := lackingIn(check)
	if len(lacking) == 0 {
		return nil
	}
	verb := "is"
	if len(lacking) > 1 {
		verb = "are"
	}
	return fail("correct it and run this again; what DNS answered before, it may go on to answer for as long as the old records say",
		fmt.Errorf("%s: %s %s not as needed", check.Route.Host, strings.Join(lacking, " and "), verb))
}

// lackingIn returns the subjects without which a route does not work.
func lackingIn(check postern.RouteCheck) []string {
	var all []string
	for _, f := range check.Findings {
		if (f.Result == postern.FindingMissing || f.Result == postern.FindingError) && !slices.Contains(all, f.Subject) {
			all = append(all, f.Subject)
		}
	}
	return all
}

// wantingIn returns the purposes of the records that would better the route.
func wantingIn(check postern.RouteCheck) []string {
	var all []string
	for _, f := range check.Findings {
		known := slices.ContainsFunc(check.Route.Records, func(r postern.DNSRecord) bool { return r.Purpose == f.Subject })
		if f.Result != postern.FindingOK && known {
			all = append(all, f.Subject)
		}
	}
	return all
}

// checkRows shows one line for each finding, and what to do about it below.
func checkRows(t *table, check postern.RouteCheck) {
	t.fields = true // every line may have a colour
	for _, f := range check.Findings {
		t.row(strings.ToUpper(f.Result), f.Subject, f.Detail)
		if f.Hint != "" {
			t.row("", "", "hint: "+f.Hint)
		}
	}
}

// certificateWord sums up what nodes say of a route's certificates, the worst first.
func certificateWord(now time.Time, all []postern.RouteCertificate) string {
	if len(all) == 0 {
		return "-"
	}
	worst := slices.MinFunc(all, func(a, b postern.RouteCertificate) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.NotAfter.Compare(b.NotAfter))
	})
	switch left := "no days"; {
	case worst.Alarm != "":
		return "ALARM"
	case worst.State == postern.CertificateValid, worst.State == postern.CertificateLate:
		switch days := int(worst.NotAfter.Sub(now) / (24 * time.Hour)); {
		case days == 1:
			left = "1 day"
		case days > 1:
			left = fmt.Sprintf("%d days", days)
		}
		if worst.State == postern.CertificateLate {
			return "late, " + left
		}
		return worst.Source + ", " + left
	}
	return worst.State
}

// rank orders certificates, the worst first.
func rank(c postern.RouteCertificate) int {
	if c.Alarm != "" {
		return -1
	}
	order := []string{postern.CertificateExpired, postern.CertificateLate, postern.CertificateWaiting, postern.CertificateValid}
	return slices.Index(order, c.State) // unknown to us: the worst but for an alarm
}

// certificateLine says all that a node says of a certificate, in one line.
func certificateLine(t *table, c postern.RouteCertificate) string {
	words := []string{c.Node + ": " + cmp.Or(c.State, "unknown")}
	if by := cmp.Or(c.Issuer, c.Source); by != "" {
		words = append(words, "by "+by)
	}
	if !c.NotAfter.IsZero() {
		words = append(words, "until "+t.when(c.NotAfter))
	}
	if c.Error != "" {
		words = append(words, c.Error)
	}
	if c.Alarm != "" {
		words = append(words, "ALARM: "+c.Alarm)
	}
	return strings.Join(words, ", ")
}
