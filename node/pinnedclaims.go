package node

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"postern"
)

// issuerClaims are what an issuer says of somebody.
type issuerClaims map[string]json.RawMessage

// text returns a claim that is a text, and "" for any other.
func (c issuerClaims) text(name string) string {
	var s string
	if json.Unmarshal(c[name], &s) != nil {
		return ""
	}
	return s
}

// texts returns a claim that is a text or a list of them.
func (c issuerClaims) texts(name string) []string {
	var list []string
	if json.Unmarshal(c[name], &list) == nil {
		return list
	}
	if s := c.text(name); s != "" {
		return []string{s}
	}
	return nil
}

// time returns a claim that is a NumericDate (RFC 7519, section 2).
func (c issuerClaims) time(name string) time.Time {
	var seconds float64
	if json.Unmarshal(c[name], &seconds) != nil || seconds <= 0 || seconds > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0)
}

// verifiedEmail returns the e-mail address that the issuer verified, lower case where
// that changes nothing, or "".
func (c issuerClaims) verifiedEmail() string {
	switch string(c["email_verified"]) {
	case "true", `"true"`:
	default:
		return ""
	}
	local, domain, ok := strings.Cut(c.text("email"), "@")
	if !ok || local == "" || domain == "" || strings.Contains(domain, "@") {
		return ""
	}
	return local + "@" + strings.ToLower(domain)
}

const (
	maxSubject = 255 // characters; OpenID Connect Core 1.0, section 2
	maxName    = 200 // bytes
)

// admit returns who claims are about, if they may come in.
func (p *pinned) admit(claims issuerClaims) (v pinnedPerson, err error) {
	sub := claims.text("sub")
	if !plainName(sub, maxSubject) {
		return v, fmt.Errorf("%w: the subject %.100q is none", errIssuerAnswer, sub)
	}
	email := claims.verifiedEmail()
	v = pinnedPerson{SignedIn: claims.time("auth_time"), Methods: claims.texts("amr")}
	v.Person = postern.Person{ID: sub, Login: sub, Role: postern.TenantMember, Name: claims.text("name")}
	if len(v.Person.Name) > maxName {
		v.Person.Name = ""
	}
	// People may choose their user name. Of addresses only one that was verified counts.
	username := claims.text("preferred_username")
	if strings.Contains(username, "@") {
		username = ""
	}
	for _, login := range []string{email, username} {
		if plainName(login, maxSubject) && !strings.ContainsAny(login, " ,") {
			v.Person.Login = login
		}
	}
	values := claims.texts(p.cfg.GroupsClaim)
	for group, worth := range p.cfg.Groups {
		if slices.ContainsFunc(worth, func(w string) bool { return slices.Contains(values, w) }) {
			v.Person.Groups = append(v.Person.Groups, group)
		}
	}
	slices.Sort(v.Person.Groups)
	_, domain, _ := strings.Cut(email, "@")
	switch {
	case len(p.cfg.Domains) > 0 && !slices.Contains(p.cfg.Domains, domain):
		return v, fmt.Errorf("%w: the verified address of %q is in another domain", errIssuerStrange, sub)
	case p.cfg.Allow == AllowGroups && len(v.Person.Groups) == 0:
		return v, fmt.Errorf("%w: %q is in no group that counts", errIssuerStrange, sub)
	}
	return v, nil
}

// plainName reports whether s can stand in a header and a log: 1 to limit printable
// ASCII characters, no space at its ends.
func plainName(s string, limit int) bool {
	if s == "" || len(s) > limit || s != strings.TrimSpace(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
