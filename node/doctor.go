package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"postern"
	"postern/internal/dnscheck"
)

// A Diagnosis is what Examine found out about a node or one of its host names.
type Diagnosis struct {
	Host     string            `json:"host,omitempty"` // empty: the node itself
	Findings []postern.Finding `json:"findings"`
}

func (d *Diagnosis) add(subject, result, detail, hint string) {
	d.Findings = append(d.Findings, postern.Finding{Subject: subject, Result: result, Detail: detail, Hint: hint})
}

// Healthy reports whether nothing that was found keeps people out, or puts somebody in
// between.
func (d Diagnosis) Healthy() bool {
	return !slices.ContainsFunc(d.Findings, func(f postern.Finding) bool {
		return f.Result == postern.FindingError || f.Result == postern.FindingMissing
	})
}

// Examine looks at a node whose status is s from outside: it asks DNS server for its
// host names as a certificate authority does ("": the system's servers), and connects to
// where they lead. Those in only are looked at, or all if there are none.
func Examine(ctx context.Context, s Status, server string, only []string) ([]Diagnosis, error) {
	dns, err := dnscheck.New(server)
	if err != nil {
		return nil, err
	}
	all := []Diagnosis{examineNode(s, time.Now())}
	for _, r := range s.Routes {
		if len(only) == 0 || slices.Contains(only, r.Host) {
			e := examiner{dns: dns, named: server != "", base: s.Base, route: r, Diagnosis: Diagnosis{Host: r.Host}}
			e.examine(ctx)
			all = append(all, e.Diagnosis)
		}
	}
	for _, host := range only {
		if !slices.ContainsFunc(s.Routes, func(r Route) bool { return r.Host == host }) {
			d := Diagnosis{Host: host}
			d.add("route", postern.FindingMissing, "no route leads from this name to this node", "`postern routes match "+host+"` on the coordinator's machine shows where it leads")
			all = append(all, d)
		}
	}
	return all, nil
}

// handshakeFresh is how long ago a handshake proves that a tunnel works (WireGuard
// whitepaper, section 6.1: Reject-After-Time).
const handshakeFresh = 180 * time.Second

func examineNode(s Status, now time.Time) Diagnosis {
	var d Diagnosis
	if s.Control.Lapsed {
		d.add("lease", postern.FindingError, "the coordinator has been away for too long, and nobody is served: "+s.Control.Error,
			"it goes on by itself when the coordinator answers; `postern coordinator run --lease` says how long is too long")
	} else if s.Control.Up {
		d.add("control", postern.FindingOK, "the coordinator tells this node what changes", "")
	} else {
		d.add("control", postern.FindingWarning, "the coordinator does not answer: "+s.Control.Error, "what is open goes on; changes and sign-ins wait")
	}
	if len(s.Tunnels) == 0 {
		d.add("tunnel", postern.FindingMissing, "the deployment has no gateway that this node knows of", "on the public host: postern up, or postern gateway run")
	}
	for _, t := range s.Tunnels {
		switch {
		case t.Endpoint == "":
			d.add("tunnel", postern.FindingError, fmt.Sprintf("where gateway %s is, is not known: %s", t.Gateway, s.TunnelError), "")
		case now.Sub(t.Handshake) > handshakeFresh:
			d.add("tunnel", postern.FindingError, fmt.Sprintf("gateway %s at %s does not answer", t.Gateway, t.Endpoint),
				"UDP to that address and port has to get out of this network")
		default:
			d.add("tunnel", postern.FindingOK, fmt.Sprintf("gateway %s at %s answers, path %s", t.Gateway, t.Endpoint, t.Path), "")
		}
		switch {
		case t.MTUSet > 0:
			d.add("mtu", postern.FindingWarning, fmt.Sprintf("--mtu %d is more than the path to gateway %s carries: %d bytes, %d in the tunnel, which are used",
				t.MTUSet, t.Gateway, t.PathMTU, t.MTU), "leave --mtu away, or take what passes")
		case t.PathMTU > 0:
			d.add("mtu", postern.FindingOK, fmt.Sprintf("the path to gateway %s carries %d bytes, %d in the tunnel", t.Gateway, t.PathMTU, t.MTU), "")
		case t.Path == postern.CarrierUDP && t.Endpoint != "":
			d.add("mtu", postern.FindingWarning, fmt.Sprintf("what the path to gateway %s carries is not known: it answers no echoes", t.Gateway),
				"if downloads hang, try --mtu 1280; is the gateway of an older version?")
		}
	}
	if s.Control.Proxy != "" {
		d.add("proxy", postern.FindingOK, "coordinator and gateways are reached by "+s.Control.Proxy+" over TCP", "")
	} else {
		d.add("proxy", postern.FindingOK, "coordinator and gateways are reached without a proxy", "")
	}
	if s.ConfigError != "" {
		d.add("file", postern.FindingError, s.ConfigError, "what the file said before is in force")
	}
	if s.PublishError != "" {
		d.add("publish", postern.FindingError, "the coordinator refuses what is published: "+s.PublishError, "")
	}
	d.applications(s.Services)
	return d
}

// applications tells which of those behind services answer. One that was not asked yet
// is not told of.
func (d *Diagnosis) applications(services []ServiceState) {
	var up []string
	for _, svc := range services {
		switch svc.State {
		case UpstreamUp:
			up = append(up, svc.Name)
		case UpstreamDown:
			d.add("application", postern.FindingError, fmt.Sprintf("%s, at %s, is down: %s", svc.Name, svc.Upstream, svc.Error),
				"start the application, or correct the service's upstream")
		}
	}
	if len(up) > 0 {
		d.add("application", postern.FindingOK, strings.Join(up, ", ")+": up", "")
	}
}

// An examiner looks at one host name.
type examiner struct {
	dns   *dnscheck.Resolver
	named bool // dns is a server that somebody named
	base  string
	route Route
	Diagnosis
}

func (e *examiner) examine(ctx context.Context) {
	e.certificate()
	e.gateways()
	addrs := e.addresses(ctx)
	e.caa(ctx)
	e.outside(ctx, addrs)
}

// certificate tells of what the node holds.
func (e *examiner) certificate() {
	c := e.route.Certificate
	switch {
	case c == nil:
		e.add("certificate", postern.FindingError, e.route.Error, "")
	case c.SHA256 == "":
		e.add("certificate", postern.FindingError, strings.TrimSpace("there is none yet. "+c.Error), c.Waiting)
	case time.Now().After(c.NotAfter):
		e.add("certificate", postern.FindingError, fmt.Sprintf("it ended on %s. %s", c.NotAfter.Format(time.DateOnly), c.Error), c.Waiting)
	case c.Error != "":
		e.add("certificate", postern.FindingWarning, fmt.Sprintf("%s, good until %s, but: %s", c.Source, c.NotAfter.Format(time.DateOnly), c.Error), c.Waiting)
	default:
		e.add("certificate", postern.FindingOK, fmt.Sprintf("%s, from %s, good until %s; key SHA-256 %s", c.Source, c.Issuer, c.NotAfter.Format(time.DateOnly), c.SPKI), "")
	}
}

// gateways tells what the running node saw through each gateway.
func (e *examiner) gateways() {
	switch r := e.route; r.State {
	case RouteReady:
		words := "each that answered shows this node's own key"
		if r.Note != "" { // another node of the route answered
			words = "each that answered shows the key of this node or of another of its route"
		}
		e.add("gateways", postern.FindingOK, words, "")
	case RouteAlarm:
		e.add("gateways", postern.FindingError, r.Error, "somebody may be reading along: find out who runs that gateway, and tell those who use this name")
	case RouteClosed:
		e.add("gateways", postern.FindingWarning, r.Error, "")
	default:
		e.add("gateways", postern.FindingError, r.Error, "")
	}
}

// addresses tells where DNS leads.
func (e *examiner) addresses(ctx context.Context) []netip.Addr {
	if postern.IsLocalhost(e.Host) {
		e.add("address", postern.FindingOK, "names below .localhost are this machine, without DNS", "")
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	a, err := e.dns.Addresses(ctx, e.Host)
	if err != nil {
		e.add("address", postern.FindingMissing, err.Error(), "an A or AAAA record has to lead to a gateway's public address")
		return nil
	}
	text := fmt.Sprint(a.Addrs)
	if len(a.Via) > 0 {
		text += " by way of " + strings.Join(a.Via, ", ")
	}
	e.add("address", postern.FindingOK, text, "")
	return a.Addrs
}

// caa tells who may issue certificates for the name.
func (e *examiner) caa(ctx context.Context) {
	if postern.IsLocalhost(e.Host) && !e.named {
		return // the world's DNS knows nothing of it
	}
	set, err := e.dns.CAA(ctx, e.Host)
	if err != nil {
		e.add("caa", postern.FindingError, err.Error(), "certificate authorities refuse to issue while CAA cannot be asked for")
		return
	}
	grade, words := set.Grade(e.base)
	words = fmt.Sprintf("grade %s: %s", grade, words)
	c := e.route.Certificate
	if c == nil || c.Source != SourceACME {
		e.add("caa", postern.FindingOK, words, "")
		return
	}
	records := strings.Join(c.Records, "; ")
	if err := permitted(set, c); err != nil {
		e.add("caa", postern.FindingError, err.Error(), "let the node's own account in: "+records)
		return
	}
	if grade == dnscheck.GradeA || grade == dnscheck.GradeB {
		e.add("caa", postern.FindingOK, words, "")
		return
	}
	e.add("caa", postern.FindingWarning, words, "records that let nobody but this node's account get one: "+records)
}

// permitted reports why an authority that has our account may not issue, if it may not.
func permitted(set dnscheck.CAASet, c *Certificate) error {
	var why error
	for _, name := range c.Authorities {
		if why = set.Permits(dnscheck.Wish{Authority: name, Account: c.Account, Method: "tls-alpn-01"}); why == nil {
			return nil
		}
	}
	return why
}

// outside connects to where DNS leads, and compares what is shown there.
func (e *examiner) outside(ctx context.Context, addrs []netip.Addr) {
	u, err := url.Parse(e.route.URL)
	c := e.route.Certificate
	if err != nil || c == nil || c.SPKI == "" {
		return
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	for _, a := range addrs {
		at := net.JoinHostPort(a.String(), port)
		state, err := handshake(ctx, nil, at, e.Host)
		switch {
		case isAlert(err, alertAccessDenied):
			e.add("outside", postern.FindingWarning, at+" does not let this machine in", "the tenant's admission keeps it out")
		case err != nil:
			e.add("outside", postern.FindingError, fmt.Sprintf("%s: %v", at, err), "does the address lead to a gateway?")
		default:
			e.key(at, state.PeerCertificates[0])
		}
	}
}

// key compares leaf, which was shown at an address, with what this route's nodes show.
func (e *examiner) key(at string, leaf *x509.Certificate) {
	spki := hexSHA256(leaf.RawSubjectPublicKeyInfo)
	shows := fmt.Sprintf("%s shows another key, SHA-256 %s, in a certificate from %s", at, spki, postern.IssuerName(leaf))
	switch {
	case spki == e.route.Certificate.SPKI:
		e.add("outside", postern.FindingOK, at+" shows this node's own key", "")
	case slices.Contains(e.route.Keys, spki):
		e.add("outside", postern.FindingOK, at+" shows the key of another node of this route", "")
	case slices.Contains(e.route.Keys, ""):
		e.add("outside", postern.FindingWarning, shows, "it may be another node's of this route, which has not told the coordinator yet what it shows")
	default:
		e.add("outside", postern.FindingError, shows, "somebody may be reading along, or the name leads to somebody else")
	}
}

// ErrUnhealthy says that an examination found something that keeps people out.
var ErrUnhealthy = errors.New("not all is well")
