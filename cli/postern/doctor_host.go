package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"postern"
	"postern/internal/dnscheck"
	"postern/node"
)

// An examination is what doctor found out about one role, or one host name of a node.
type examination struct {
	Role postern.Role `json:"role"`
	node.Diagnosis
}

func (e *examination) add(subject, result, detail, hint string) {
	e.Findings = append(e.Findings, postern.Finding{Subject: subject, Result: result, Detail: detail, Hint: hint})
}

// grade adds a finding that is result unless ok.
func (e *examination) grade(ok bool, result, subject, detail, hint string) {
	if ok {
		result, hint = postern.FindingOK, ""
	}
	e.add(subject, result, detail, hint)
}

// What is little room on a disk, in bytes.
const (
	littleRoom = 1 << 30
	noRoom     = 64 << 20
)

// machine looks at what all roles stand on: the clock, and the disk of their data
// directory.
func (e *examination) machine(dir string) {
	switch synchronised, known := clockSynchronised(); {
	case known:
		e.grade(synchronised, postern.FindingWarning, "clock", "it is "+time.Now().UTC().Format(time.RFC3339)+map[bool]string{
			true: ", and something keeps it right", false: ", and nothing is known to keep it right"}[synchronised],
			"install a time service, such as systemd-timesyncd or chrony: certificates and sign-ins depend on the time")
	default:
		e.add("clock", postern.FindingOK, "it is "+time.Now().UTC().Format(time.RFC3339)+", by this machine", "")
	}
	free, all, err := space(dir)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
	case err != nil:
		e.add("disk", postern.FindingError, err.Error(), "")
	case free < noRoom:
		e.add("disk", postern.FindingError, fmt.Sprintf("%s of %s are free at %s", size(free), size(all), dir), "make room: nothing can be stored soon")
	default:
		e.grade(free >= littleRoom || free >= all/10, postern.FindingWarning, "disk", fmt.Sprintf("%s of %s are free at %s", size(free), size(all), dir), "make room before it is full")
	}
}

// answers adds whether something that speaks TLS as a gateway does is at addr.
func (e *examination) answers(ctx context.Context, subject, addr, name string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	raw, err := dialLocalhost(ctx, "tcp", addr)
	if err != nil {
		e.add(subject, postern.FindingError, fmt.Sprintf("%s cannot be reached from here: %v", addr, err),
			"does something listen there, and does the firewall let TCP in? Some networks let nobody reach their own public address from inside")
		return
	}
	defer raw.Close()
	// What is looked for is that a hello leads to the portal; members and browsers verify.
	c := tls.Client(raw, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := c.HandshakeContext(ctx); err != nil {
		e.add(subject, postern.FindingError, fmt.Sprintf("%s answers, and not for %s: %v", addr, name, err), "is it a gateway of this deployment, and does it reach the coordinator?")
		return
	}
	e.add(subject, postern.FindingOK, fmt.Sprintf("%s answers, and leads to %s", addr, name), "")
}

// leads adds whether DNS knows an address of name.
func (e *examination) leads(ctx context.Context, dns *dnscheck.Resolver, name, hint string) {
	if isLocal(name) {
		e.add("dns", postern.FindingOK, name+" is this machine, without DNS", "")
		return
	}
	a, err := dns.Addresses(ctx, name)
	if err != nil {
		e.add("dns", postern.FindingError, err.Error(), hint)
		return
	}
	e.add("dns", postern.FindingOK, fmt.Sprintf("%s leads to %v", name, a.Addrs), "")
}

// Ages of the last backup that a coordinator makes by itself.
const (
	backupLate = 2 * time.Hour
	backupGone = 25 * time.Hour
)

// examineCoordinator looks at the coordinator whose data directory is dir.
func examineCoordinator(ctx context.Context, dir string, dns *dnscheck.Resolver) examination {
	e := examination{Role: postern.RoleCoordinator}
	e.machine(dir)
	if err := checkRegistry(ctx, filepath.Join(dir, registryFile)); err != nil {
		e.add("registry", postern.FindingError, err.Error(), "stop the coordinator, keep the file, and put the newest backup in its place")
	} else {
		e.add("registry", postern.FindingOK, "all of its pages are sound", "")
	}
	at, err := lastBackup(filepath.Join(dir, registryFile))
	age := time.Since(at)
	switch {
	case err != nil:
		e.add("backup", postern.FindingError, err.Error(), "")
	case at.IsZero():
		e.add("backup", postern.FindingWarning, "the registry has no backup yet", "a coordinator that runs makes one an hour; the log says why it does not")
	case age > backupGone:
		e.add("backup", postern.FindingError, "the registry's last backup is of "+span(age)+" ago", "is the disk full? The log says why there is none since")
	default:
		e.grade(age < backupLate, postern.FindingWarning, "backup", "the registry's last backup is of "+span(age)+" ago", "a coordinator that runs makes one an hour; the log says why it does not")
	}
	a := socketAdmin(filepath.Join(dir, postern.AdminSocket))
	defer a.hc.CloseIdleConnections()
	var o postern.Overview
	if err := a.call(ctx, http.MethodGet, "/status", nil, &o); err != nil {
		_, hint, _ := explain(err)
		e.add("running", postern.FindingError, err.Error(), hint)
		return e
	}
	e.add("running", postern.FindingOK, fmt.Sprintf("version %s, up since %s", o.Version, o.Started.Local().Format(time.DateTime)), "")
	e.portal(o)
	e.leads(ctx, dns, "control."+o.Base, "an A or AAAA record of *."+o.Base+" has to lead to a gateway's public address")
	e.leads(ctx, dns, o.Portal.Host, "an A or AAAA record has to lead to a gateway's public address")
	e.members(ctx, a, o)
	return e
}

// portal tells of the portal's certificate.
func (e *examination) portal(o postern.Overview) {
	p := o.Portal
	switch {
	case !p.NotAfter.IsZero() && time.Now().After(p.NotAfter):
		e.add("certificate", postern.FindingError, fmt.Sprintf("%s's ended on %s. %s", p.Host, p.NotAfter.Format(time.DateOnly), p.Error), "")
	case p.Error != "":
		e.add("certificate", postern.FindingWarning, p.Host+": "+p.Error, "browsers are shown the private CA's, or the last good one, meanwhile")
	default:
		text := p.Host + ": " + dash(p.Source)
		if !p.NotAfter.IsZero() {
			text += ", good until " + p.NotAfter.Format(time.DateOnly)
		}
		e.add("certificate", postern.FindingOK, text, "")
	}
}

// members tells of gateways, nodes and alarms.
func (e *examination) members(ctx context.Context, a *admin, o postern.Overview) {
	gateways, err := fetch[postern.GatewayState](a, "/gateways")(ctx)
	if err != nil {
		e.add("gateway", postern.FindingError, err.Error(), "")
	} else if len(gateways) == 0 {
		e.add("gateway", postern.FindingMissing, "there is none", "`postern tokens create --gateway` makes a token for one, or run `postern up`")
	}
	for _, g := range gateways {
		switch {
		case g.State == postern.StateDraining:
			e.add("gateway", postern.FindingWarning, g.Name+" is draining: "+g.Reason, "`postern gateways undrain` ends what an operator began")
			continue
		case g.State != postern.StateReady:
			e.add("gateway", postern.FindingError, g.Name+" is "+g.State+": "+g.Reason, "`postern doctor` on its machine says more; traffic through it may go on")
			continue
		}
		e.grade(g.Tunnels > 0 || o.Nodes == 0, postern.FindingWarning, "gateway", fmt.Sprintf("%s is ready, with %d tunnels to %d nodes", g.Name, g.Tunnels, o.Nodes),
			"UDP to "+dash(g.Endpoint)+" has to get through from where the nodes are")
		if g.Public != "" {
			e.answers(ctx, "port", g.Public, o.Portal.Host)
		}
	}
	e.grade(o.NodesReady == o.Nodes, postern.FindingWarning, "nodes", fmt.Sprintf("%d of %d are ready", o.NodesReady, o.Nodes), "`postern nodes list` says which are not, and how")
	routes, err := fetch[postern.RouteState](a, "/routes")(ctx)
	if err != nil {
		e.add("routes", postern.FindingError, err.Error(), "")
	}
	for _, r := range routes {
		for _, c := range r.Certificates {
			if c.Alarm != "" {
				e.add("alarm", postern.FindingError, r.Host+", node "+c.Node+": "+c.Alarm, "somebody may be reading along: find out who runs that gateway, and tell those who use this name")
			}
		}
	}
}

// examineDoor looks at the gateway whose data directory is dir.
func examineDoor(ctx context.Context, dir string) examination {
	e := examination{Role: postern.RoleGateway}
	e.machine(dir)
	s, err := queryDoor(ctx, filepath.Join(dir, gatewaySocket))
	if err != nil {
		_, hint, _ := explain(err)
		e.add("running", postern.FindingError, err.Error(), hint)
		return e
	}
	e.add("running", postern.FindingOK, fmt.Sprintf("gateway %s, version %s, up since %s", s.Gateway, s.Version, s.Started.Local().Format(time.DateTime)), "")
	e.grade(s.Control.Up, postern.FindingWarning, "control", map[bool]string{true: "the coordinator tells this gateway what changes", false: "the coordinator does not answer: " + s.Control.Error}[s.Control.Up],
		"what is open goes on; changes and sign-ins wait")
	e.grade(!s.Control.Lapsed, postern.FindingError, "lease", map[bool]string{true: "the coordinator has been away for too long, and nobody is served", false: "it may go on with the map that it holds"}[s.Control.Lapsed],
		"it goes on by itself when the coordinator answers; `postern coordinator run --lease` says how long is too long")
	e.grade(s.MapVersion > 0, postern.FindingError, "map", fmt.Sprintf("version %d is in force", s.MapVersion), "it has never heard from the coordinator, and knows no names")
	if s.State == postern.StateDraining {
		e.add("draining", postern.FindingWarning, "new connections are to go to other gateways", "`postern gateways undrain "+s.Gateway+"` ends what an operator began")
	}
	up := 0
	for _, t := range s.Tunnels {
		if t.Up {
			up++
		}
	}
	tunnels := fmt.Sprintf("%d of %d tunnels are up, on UDP port %d", up, len(s.Tunnels), s.UDPPort)
	switch {
	case len(s.Tunnels) == 0:
		e.add("udp", postern.FindingOK, tunnels+"; no node has joined", "")
	case up == 0:
		e.add("udp", postern.FindingError, tunnels, "does the firewall let UDP in, and does "+s.Advertise+", which nodes are told, lead here?")
	default:
		e.grade(up == len(s.Tunnels), postern.FindingWarning, "udp", tunnels, "UDP gets in; the other nodes are off, or their networks block it")
	}
	_, port, _ := net.SplitHostPort(s.HTTPS)
	if c, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port)); err != nil {
		e.grade(false, postern.FindingWarning, "port", s.HTTPS+" does not answer on loopback: "+err.Error(), "it may listen on another address alone")
	} else {
		c.Close()
		e.add("port", postern.FindingOK, s.HTTPS+" takes connections, told as "+s.Public, "")
	}
	if s.AccessLog != nil {
		e.grade(s.AccessLog.Lost == 0, postern.FindingWarning, "access log", fmt.Sprintf("%s, %d lines lost", s.AccessLog.File, s.AccessLog.Lost), "its disk is, or was, full or slow")
	}
	e.grade(s.Counts.Full == 0, postern.FindingWarning, "limits", fmt.Sprintf("%d connections are open; all room was taken %d times", s.Counts.Open, s.Counts.Full),
		"more memory (GOMEMLIMIT), or another gateway")
	return e
}

func isLocal(name string) bool { return name == "localhost" || strings.HasSuffix(name, ".localhost") }
