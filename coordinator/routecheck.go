package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"postern"
	"postern/internal/dnscheck"
)

// Subjects of findings, in their order.
const (
	subjectProof       = "proof"
	subjectAddress     = "address"
	subjectCAA         = "caa"
	subjectCertificate = "certificate"
)

// checkTimeout bounds what one check asks DNS.
const checkTimeout = 20 * time.Second

// examine returns what there is to say of a claim's host besides the proof. state is
// the route's.
func (c *Coordinator) examine(ctx context.Context, snap *snapshot, claim Claim, state postern.RouteState) []postern.Finding {
	if c.cfg.Resolver == nil {
		return certificateFindings(state)
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var at dnscheck.Addresses
	var gates map[netip.Addr]string
	var caa dnscheck.CAASet
	var atErr, caaErr error
	var wg sync.WaitGroup
	wg.Go(func() { at, atErr = c.cfg.Resolver.Addresses(ctx, claim.Host) })
	wg.Go(func() { gates = c.gateAddrs(ctx, snap) })
	wg.Go(func() { caa, caaErr = c.cfg.Resolver.CAA(ctx, claim.Host) })
	wg.Wait()
	alias := aliasOf(claim.Tenant, c.cfg.Base)
	found := []postern.Finding{
		addressFinding(at, atErr, gates, alias, isApex(claim.Host)),
		caaFinding(caa, caaErr, state.Certificates, c.cfg.Base, gates),
	}
	return append(found, certificateFindings(state)...)
}

// gateAddrs returns where the gateways are reached from outside, with what they are
// called. Names that lead nowhere count for nothing.
func (c *Coordinator) gateAddrs(ctx context.Context, snap *snapshot) map[netip.Addr]string {
	all := make(map[netip.Addr]string)
	asked := make(map[string]bool)
	for _, g := range snap.gateways {
		host := publicHost(g)
		if addr, err := netip.ParseAddr(host); err == nil {
			all[addr.Unmap()] = g.Name
			continue
		}
		if host == "" || asked[host] {
			continue
		}
		asked[host] = true
		at, err := c.cfg.Resolver.Addresses(ctx, host)
		if err != nil {
			c.log.Debug("public name of a gateway leads nowhere", "gateway", g.Name, "err", err)
		}
		for _, addr := range at.Addrs {
			all[addr.Unmap()] = host
		}
	}
	return all
}

// addressFinding says whether at, or err, leads to gates, the gateways by address. alias is
// a name that does, which the host can be an alias of unless it is a zone's apex.
func addressFinding(at dnscheck.Addresses, err error, gates map[netip.Addr]string, alias string, apex bool) postern.Finding {
	f := postern.Finding{Subject: subjectAddress, Result: postern.FindingMissing, Hint: leadHint(gates, alias, apex)}
	if err != nil {
		if !errors.Is(err, dnscheck.ErrNone) {
			f.Result = postern.FindingError
		}
		f.Detail = "it leads nowhere: " + words(err.Error())
		return f
	}
	var here, elsewhere []string
	for _, addr := range at.Addrs {
		if _, ok := gates[addr.Unmap()]; ok {
			here = append(here, addr.String())
		} else {
			elsewhere = append(elsewhere, addr.String()+kindOf(addr))
		}
	}
	via := ""
	if len(at.Via) > 0 {
		via = " by way of " + words(strings.Join(at.Via, ", "))
	}
	switch {
	case len(gates) == 0:
		f.Result, f.Hint = postern.FindingWarning, "see that the gateways run, and what their --public says"
		f.Detail = fmt.Sprintf("it leads to %s%s; where the gateways are is not known", andList(elsewhere), via)
	case len(here) == 0:
		f.Detail = fmt.Sprintf("it leads to %s%s, which is no gateway of this deployment", andList(elsewhere), via)
	case len(elsewhere) > 0:
		f.Result = postern.FindingWarning
		f.Detail = fmt.Sprintf("it leads to %s%s, a gateway, but also to %s, which is none: some visitors and certificate authorities end there", andList(here), via, andList(elsewhere))
	default:
		f.Result, f.Hint = postern.FindingOK, ""
		f.Detail = fmt.Sprintf("it leads to %s%s, a gateway", andList(here), via)
		if len(here) > 1 {
			f.Detail = fmt.Sprintf("it leads to %s%s, which are gateways", andList(here), via)
		}
	}
	return f
}

// leadHint says how to lead a host to gates.
func leadHint(gates map[netip.Addr]string, alias string, apex bool) string {
	addrs := gateList(gates)
	switch {
	case len(addrs) == 0 && apex:
		return "it takes the addresses of the gateways, as A and AAAA records: ask who operates the deployment for them"
	case len(addrs) == 0:
		return "make it an alias (CNAME) of " + alias
	case apex:
		return "give it the address " + strings.Join(addrs, " or ")
	}
	return fmt.Sprintf("give it the address %s, or make it an alias (CNAME) of %s", strings.Join(addrs, " or "), alias)
}

// gateList returns the addresses in gates that are for everybody.
func gateList(gates map[netip.Addr]string) []string {
	var addrs []netip.Addr
	for addr := range gates {
		addrs = append(addrs, addr)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	texts := make([]string, len(addrs))
	for i, addr := range addrs {
		texts[i] = addr.String()
	}
	return texts
}

// kindOf says of an address that it cannot be a gateway's for everybody.
func kindOf(a netip.Addr) string {
	a = a.Unmap()
	switch {
	case a.IsLoopback():
		return " (each machine's own)"
	case a.IsPrivate(), a.IsLinkLocalUnicast():
		return " (a private address)"
	case a.IsUnspecified():
		return " (no address at all)"
	}
	return ""
}

// andList joins them as people do.
func andList(all []string) string {
	if len(all) < 2 {
		return strings.Join(all, "")
	}
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " and " + all[last]
}

// caaFinding says who may get a certificate for a host.
func caaFinding(caa dnscheck.CAASet, err error, certificates []postern.RouteCertificate, base string, gates map[netip.Addr]string) postern.Finding {
	f := postern.Finding{Subject: subjectCAA, Result: postern.FindingError}
	if err != nil {
		f.Detail = "who may issue certificates is not known: " + words(err.Error())
		f.Hint = "authorities refuse to issue while they get no answer: see that the name's DNS servers answer for CAA"
		return f
	}
	accounts := accountsOf(certificates)
	for _, a := range accounts {
		if err := caa.Permits(dnscheck.Wish{Authority: a.authority, Account: a.url, Method: caaMethod}); err != nil {
			f.Result = postern.FindingMissing
			f.Detail = fmt.Sprintf("the node's account %s may not get a certificate: %s", a.url, words(err.Error()))
			f.Hint = "add the CAA records that are shown with the route"
			return f
		}
	}
	grade, why := caa.Grade(base)
	f.Result, f.Detail = postern.FindingWarning, words(why)
	if grade != dnscheck.GradeNone {
		f.Detail = "grade " + string(grade) + ": " + f.Detail
	}
	switch {
	case grade == dnscheck.GradeA, grade == dnscheck.GradeB:
		f.Result = postern.FindingOK
	case grade == dnscheck.GradeC && len(gates) > 0:
		f.Hint = fmt.Sprintf("to decide yourself, have the address %s in place of the alias, and CAA records of your own", strings.Join(gateList(gates), " or "))
	case grade == dnscheck.GradeC:
		f.Hint = "to decide yourself, have the gateways' addresses in place of the alias, and CAA records of your own"
	case len(accounts) > 0:
		f.Hint = "add the CAA records that are shown with the route"
	default:
		f.Hint = "the CAA records to add are shown with the route as soon as a node has an account at an authority"
	}
	return f
}

// certificateFindings says what the nodes tell of their certificates.
func certificateFindings(state postern.RouteState) []postern.Finding {
	if state.State == postern.StateUnproven {
		return nil // nobody asks for one yet
	}
	if len(state.Certificates) == 0 {
		return []postern.Finding{{
			Subject: subjectCertificate, Result: postern.FindingWarning, Detail: "no node has told of a certificate for it",
			Hint: "see that a node publishes the service " + state.Service + " and is online",
		}}
	}
	var all []postern.Finding
	for _, c := range state.Certificates {
		all = append(all, certificateFinding(c))
	}
	return all
}

func certificateFinding(c postern.RouteCertificate) postern.Finding {
	f := postern.Finding{Subject: subjectCertificate, Result: postern.FindingWarning}
	until := ""
	if !c.NotAfter.IsZero() {
		until = ", until " + c.NotAfter.UTC().Format(time.DateOnly)
	}
	issuer := words(cmp.Or(c.Issuer, c.Source))
	switch {
	case c.Alarm != "":
		f.Result, f.Detail = postern.FindingError, "node "+c.Node+": ALARM: "+words(c.Alarm)
		f.Hint = "somebody between browsers and the node may be reading along: do not sign in there, and tell who operates the deployment"
		return f
	case c.State == postern.CertificateValid:
		f.Result, f.Detail = postern.FindingOK, fmt.Sprintf("node %s has one of %s%s", c.Node, issuer, until)
		return f
	case c.State == postern.CertificateWaiting:
		f.Detail = fmt.Sprintf("node %s has none yet", c.Node)
	case c.State == postern.CertificateLate:
		f.Detail = fmt.Sprintf("node %s has one of %s%s, and got no newer one in time", c.Node, issuer, until)
	default:
		f.Result, f.Detail = postern.FindingError, fmt.Sprintf("node %s shows one of %s that has expired%s", c.Node, issuer, until)
	}
	if c.Error != "" {
		f.Detail += ": " + words(c.Error)
	}
	return f
}
