package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"

	"postern"
)

// check signs in as the owner of both companies and has the portal hand over to
// each. There it asks the application one question, and holds the answer against
// the one that the application gives when asked directly. Then somebody who may
// open one company only knocks at the other.
func (d *demo) check(ctx context.Context, w io.Writer) error {
	owner, err := d.signIn(ctx, demoPeople[0])
	if err != nil {
		return err
	}
	defer owner.hc.CloseIdleConnections()
	seen := map[string]string{} // answer -> company
	for _, v := range d.companies {
		at, err := url.Parse(v.url)
		if err != nil {
			return err
		}
		if _, err := owner.open(ctx, d.portal(), v.name, postern.DefaultService, at.Host); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		api := v.url + "api/companies"
		through, state, err := get(ctx, owner.hc, api)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		direct, _, err := get(ctx, owner.hc, v.ledger+"/api/companies")
		if err != nil {
			return fmt.Errorf("%s: the application itself: %w", v.name, err)
		}
		if string(through) != string(direct) {
			return fmt.Errorf("%s: %s did not answer what the company's application does", v.name, api)
		}
		if other, ok := seen[string(through)]; ok {
			return fmt.Errorf("%s: the answer is %s's", v.name, other)
		}
		seen[string(through)] = v.name
		fmt.Fprintf(w, "%-7s ok  %s  200, %s, certificate verified, signed in as %s, %s\n",
			v.name, api, tls.VersionName(state.Version), demoPeople[0].login, companyNames(through))
	}
	return d.checkRefusal(ctx, w)
}

// checkRefusal has the accountant of acme knock at globex.
func (d *demo) checkRefusal(ctx context.Context, w io.Writer) error {
	accountant, err := d.signIn(ctx, demoPeople[1])
	if err != nil {
		return err
	}
	defer accountant.hc.CloseIdleConnections()
	status, err := accountant.refused(ctx, d.portal(), "globex", postern.DefaultService)
	if err != nil {
		return err
	}
	// What the portal says is not all: the node asks for a session of its own.
	node, err := accountant.walk(ctx, "GET", d.companies[1].url, nil)
	if err != nil {
		return err
	}
	if "https://"+node.url.Host != d.portal() || node.status == 200 {
		return fmt.Errorf("globex led who may not open it to %s with status %d", node.url, node.status)
	}
	fmt.Fprintf(w, "%-7s ok  %s  %d, as it should be for %s\n", "globex", d.portal()+"/open/globex/default", status, demoPeople[1].login)
	return nil
}

// signIn takes somebody's invitation and returns them, signed in at the portal.
func (d *demo) signIn(ctx context.Context, p demoPerson) (*walker, error) {
	w, err := newWalker(d.caFile())
	if err != nil {
		return nil, err
	}
	if err := w.accept(ctx, d.invites[p.login], p.name); err != nil {
		return nil, fmt.Errorf("%s: %w", p.login, err)
	}
	return w, nil
}

// personalToken signs in as a program's owner does and returns a token for it, good
// at acme.
func (d *demo) personalToken(ctx context.Context) (string, error) {
	w, err := d.signIn(ctx, demoProgram)
	if err != nil {
		return "", err
	}
	defer w.hc.CloseIdleConnections()
	acme := d.companies[0]
	at, err := url.Parse(acme.url)
	if err != nil {
		return "", err
	}
	if _, err := w.open(ctx, d.portal(), acme.name, postern.DefaultService, at.Host); err != nil {
		return "", err
	}
	return w.token(ctx, acme.url, "curl of the demo")
}

// companyNames returns the names in an answer of /api/companies, or its size.
func companyNames(body []byte) string {
	names := companiesIn(body)
	if len(names) == 0 {
		return size(uint64(len(body)))
	}
	var words []string
	for _, c := range names {
		words = append(words, c.Name)
	}
	return strings.Join(words, ", ")
}

// A ledgerCompany is one of those that an application keeps books of.
type ledgerCompany struct {
	ID             int64
	Name, Currency string
}

// companiesIn returns the companies in an answer of /api/companies.
func companiesIn(body []byte) []ledgerCompany {
	var answer struct{ Companies []ledgerCompany }
	if json.Unmarshal(body, &answer) != nil {
		return nil
	}
	return answer.Companies
}
