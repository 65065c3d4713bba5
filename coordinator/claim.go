package coordinator

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"postern"
)

// A claim goes through these states; all but unproven are final:
//
//	          the TXT record is seen            removed
//	unproven ────────────────────────▶ proven ──────────▶ gone, the host is held
//	    │
//	    ├── removed, or nothing seen for claimLife ──▶ gone
//	    └── another claim on the host is proven first: stays, and is refused

// Bounds of claims that are not proven.
const (
	maxUnproven = 50                 // of one tenant
	claimLife   = 7 * 24 * time.Hour // then it is forgotten
)

// What DNS has to show: a TXT record at challengeLabel below the host, one of whose
// strings is challengePrefix and the claim's secret.
const (
	challengeLabel  = "_postern-challenge."
	challengePrefix = "postern="
)

func (c Claim) challengeName() string { return challengeLabel + c.Host }
func (c Claim) challengeText() string { return challengePrefix + c.Secret }

// lostFinding is what is said of a claim whose host another tenant has.
const lostFinding = "another company has shown that this name is theirs"

// addClaim adds a claim of a tenant's. Who asks is told the names of the tenants that
// sees picks, and of no others.
func (ch *change) addClaim(req postern.RouteRequest, sees func(tenant string) bool) (Claim, error) {
	t, err := ch.Tenants().Get(req.Tenant)
	if err != nil {
		return Claim{}, noTenant(err, req.Tenant)
	}
	host, err := ch.parseClaimed(req.Host)
	if err != nil {
		return Claim{}, err
	}
	c := Claim{
		ClaimKey: ClaimKey{Host: host, Tenant: t.Name}, Service: req.Service,
		Secret: strings.ToLower(rand.Text()), Created: ch.now,
	}
	if c.Service == "" {
		c.Service = postern.DefaultService
	}
	if err := postern.CheckLabel("service", c.Service); err != nil {
		return Claim{}, invalid(err, "")
	}
	if _, err := ch.Claims().Get(c.ClaimKey); !errors.Is(err, ErrNotFound) {
		if err != nil {
			return Claim{}, err
		}
		return Claim{}, taken(fmt.Sprintf("%q is added for tenant %q already", host, t.Name),
			"remove that route first if it is to lead elsewhere")
	}
	if err := errors.Join(ch.checkOthers(c.ClaimKey, sees), ch.checkHold(host, t.Number), ch.checkUnproven(t.Name)); err != nil {
		return Claim{}, err
	}
	ch.shown = true
	return c, errors.Join(ch.Claims().Put(c), ch.audit("route.claim", c.Tenant, c.Host, c.Service))
}

// parseClaimed returns what was typed as the host name that it means, or says why no
// tenant can have it.
func (ch *change) parseClaimed(typed string) (string, error) {
	const example = "give a host name such as erp.example.com"
	if strings.HasPrefix(strings.TrimSpace(typed), "*.") {
		return "", invalid(fmt.Errorf("%q is a wildcard, which would be for names that nobody asked for", typed), "add each host name by itself")
	}
	host, err := postern.ParseHost(typed)
	if err != nil {
		return "", invalid(err, example)
	}
	if len(challengeLabel)+len(host) > 253 {
		return "", invalid(fmt.Errorf("%q is too long: the name of its proof, %s and that, has more than 253 characters", host, challengeLabel), "choose a shorter name")
	}
	// A name without a dot is a suffix of its own, too.
	if suffix, _ := publicsuffix.PublicSuffix(host); suffix == host {
		return "", invalid(fmt.Errorf("%q is a public suffix: what lies below belongs to many", host), example)
	}
	return host, ch.checkCustom(host)
}

// checkCustom refuses hosts that are the deployment's to give.
func (ch *change) checkCustom(host string) error {
	if host == ch.cfg.Base || strings.HasSuffix(host, "."+ch.cfg.Base) {
		return invalid(fmt.Errorf("%q is not outside the base domain %q", host, ch.cfg.Base),
			"names below the base domain follow from what nodes publish")
	}
	return ch.checkOwn(host)
}

// checkOwn refuses the names by which the coordinator itself is reached.
func (ch *change) checkOwn(host string) error {
	if slices.Contains(ch.cfg.Names, host) {
		return taken(fmt.Sprintf("%q is the coordinator's own name", host), "choose another name")
	}
	return nil
}

// checkOthers refuses a host that another tenant has.
func (ch *change) checkOthers(key ClaimKey, sees func(tenant string) bool) error {
	has, err := ch.Claims().Proven(key.Host)
	switch {
	case errors.Is(err, ErrNotFound) || err == nil && has.Tenant == key.Tenant:
		return nil
	case err != nil:
		return err
	case sees(has.Tenant):
		return taken(fmt.Sprintf("%q is routed to tenant %q already", key.Host, has.Tenant), "remove that route first")
	}
	return taken(fmt.Sprintf("%q is taken: %s", key.Host, lostFinding), "if the name is yours, ask who operates the deployment")
}

// checkUnproven refuses a tenant that has claimed too much.
func (ch *change) checkUnproven(tenant string) error {
	claims, err := ch.Claims().In(tenant)
	if err != nil {
		return err
	}
	n := 0
	for _, c := range claims {
		if c.Proven.IsZero() {
			n++
		}
	}
	if n < maxUnproven {
		return nil
	}
	return postern.NewProblem(http.StatusConflict, postern.CodeTooMany,
		fmt.Sprintf("tenant %q has %d host names that are not proven yet", tenant, n), "prove or remove some of them first")
}

// proveClaim makes the claim a route: DNS shows its secret. It fails with a Problem if
// another has the host or had it lately.
func (ch *change) proveClaim(key ClaimKey) error {
	c, err := ch.Claims().Get(key)
	if errors.Is(err, ErrNotFound) || err == nil && !c.Proven.IsZero() {
		return nil // removed, or proven, while DNS was asked
	}
	if err != nil {
		return err
	}
	t, err := ch.Tenants().Get(c.Tenant)
	if err != nil {
		return err
	}
	nobody := func(string) bool { return false }
	if err := errors.Join(ch.checkCustom(c.Host), ch.checkOthers(key, nobody), ch.checkHold(c.Host, t.Number)); err != nil {
		return err
	}
	if err := ch.Holds().Delete(c.Host); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	all, err := ch.Claims().At(c.Host)
	if err != nil {
		return err
	}
	for _, other := range all {
		if other.Tenant != c.Tenant {
			other.Finding = lostFinding
			if err := ch.Claims().Put(other); err != nil {
				return err
			}
		}
	}
	c.Proven, c.Checked, c.Finding = ch.now, ch.now, ""
	ch.touch(c.Tenant)
	return errors.Join(ch.Claims().Put(c), ch.audit("route.prove", c.Tenant, c.Host, c.Service))
}

// removeClaim forgets c, of tenant t. What led somewhere is held.
func (ch *change) removeClaim(t Tenant, c Claim) error {
	err := errors.Join(ch.Claims().Delete(c.ClaimKey), ch.audit("route.remove", c.Tenant, c.Host, c.Service))
	if c.Proven.IsZero() {
		ch.shown = true
		return err
	}
	ch.touch(c.Tenant)
	return errors.Join(err, ch.hold(c.Host, t.Number))
}

// lapseClaims forgets what was not proven for claimLife.
func (ch *change) lapseClaims() error {
	all, err := ch.Claims().Unproven()
	if err != nil {
		return err
	}
	for _, c := range all {
		if !c.lapsed(ch.now) {
			break // the oldest come first
		}
		ch.shown = true
		err := errors.Join(ch.Claims().Delete(c.ClaimKey), ch.audit("route.lapse", c.Tenant, c.Host, c.late()))
		if err != nil {
			return err
		}
	}
	return nil
}

func (c Claim) lapsed(now time.Time) bool { return !now.Before(c.Created.Add(claimLife)) }

// late says why c was forgotten.
func (c Claim) late() string {
	if c.Finding == "" {
		return "not proven in time"
	}
	return "not proven in time: " + c.Finding
}
