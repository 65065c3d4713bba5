package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"postern"
	"postern/internal/dnscheck"
	"postern/internal/member"
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

// maxSkew is by how much clocks may differ before it matters: sign-ins live for minutes.
const maxSkew = time.Minute

// machine looks at what all roles stand on: the clock, which is skew ahead of the
// coordinator's, and the disk of their data directory.
func (e *examination) machine(dir string, skew time.Duration) {
	switch synchronised, known := clockSynchronised(); {
	case skew.Abs() > maxSkew:
		e.add("clock", postern.FindingWarning, fmt.Sprintf("it is %s, %s %s the coordinator's", time.Now().UTC().Format(time.RFC3339), span(skew.Abs()),
			map[bool]string{true: "ahead of", false: "behind"}[skew > 0]),
			"set the clock that is wrong, by a time service such as systemd-timesyncd or chrony: certificates and sign-ins depend on the time")
	case known:
		e.grade(synchronised, postern.FindingWarning, "clock", "it is "+time.Now().UTC().Format(time.RFC3339)+map[bool]string{
			true: ", and something keeps it right", false: ", and nothing is known to keep it right"}[synchronised],
			"install a time service, such as systemd-timesyncd or chrony: certificates and sign-ins depend on the time")
	default:
		e.add("clock", postern.FindingOK, "it is "+time.Now().UTC().Format(time.RFC3339)+", by this machine", "")
	}
	if err := writable(dir); err != nil && !errors.Is(err, fs.ErrPermission) { // we may be another user than the role
		e.add("disk", postern.FindingError, err.Error(), "nothing can be stored: make room, or have the disk take writes again")
		return
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

// writable reports why no file can be made in dir, if that is so.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".doctor")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 4<<10))
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
}

// interfaces tells of this machine's.
func (e *examination) interfaces() {
	all, err := net.Interfaces()
	if err != nil {
		e.add("interfaces", postern.FindingWarning, err.Error(), "")
		return
	}
	var words []string
	for _, i := range all {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 {
			words = append(words, fmt.Sprintf("%s, MTU %d", i.Name, i.MTU))
		}
	}
	e.grade(len(words) > 0, postern.FindingWarning, "interfaces", cmp.Or(strings.Join(words, "; "), "none but loopback is up"), "is the cable in?")
}

// examineStopped looks at the node whose data directory is dir, and which did not answer,
// for the reason err.
func examineStopped(dir string, err error) examination {
	e := examination{Role: postern.RoleNode}
	e.machine(dir, 0)
	e.interfaces()
	if err := member.CheckJoined(dir); errors.Is(err, member.ErrNotJoined) {
		e.add("joined", postern.FindingError, "it has not joined a deployment yet", "`postern node join --token-file FILE` has it join; `postern tokens create` on the coordinator's machine makes the token")
		return e
	} else if err != nil && !errors.Is(err, fs.ErrPermission) { // we may be another user than the role
		e.add("joined", postern.FindingError, err.Error(), "what says who the node is cannot be read: have it join anew, in another directory")
	}
	_, hint, _ := explain(err)
	e.add("running", postern.FindingError, err.Error(), hint)
	return e
}

// relays tells whether the node in dir could do without UDP.
func (e *examination) relays(ctx context.Context, dir string) {
	relays, err := node.CheckRelays(ctx, filepath.Join(dir, node.Socket))
	if err != nil {
		e.add("relay", postern.FindingWarning, "it could not be tried: "+err.Error(), "is the node of another version than this program?")
	}
	for _, r := range relays {
		switch {
		case r.InUse:
			e.add("relay", postern.FindingWarning, fmt.Sprintf("the tunnel to gateway %s goes by TLS, at %s", r.Gateway, r.Public), "that works; for speed, let UDP to the gateway out of this network")
		case r.Error != "":
			e.add("relay", postern.FindingWarning, r.Error, "there is no other way if UDP is blocked: let TCP to "+dash(r.Public)+" out, by --proxy if there is one")
		default:
			e.add("relay", postern.FindingOK, fmt.Sprintf("gateway %s lets this node in by TLS at %s, too, after %v", r.Gateway, r.Public, r.Took.Round(time.Millisecond)), "")
		}
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
	if postern.IsLocalhost(name) {
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
	e.machine(dir, 0)
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
		e.grade(g.Tunnels > 0 || o.Nodes == 0, postern.FindingWarning, "gateway", fmt.Sprintf("%s is ready, with %s to %s", g.Name, count(g.Tunnels, "tunnel"), count(o.Nodes, "node")),
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

// spareFiles is how many files a gateway has open beside its connections, and more.
const spareFiles = 256

// examineDoor looks at the gateway whose data directory is dir.
func examineDoor(ctx context.Context, dir string) examination {
	e := examination{Role: postern.RoleGateway}
	s, err := queryDoor(ctx, filepath.Join(dir, gatewaySocket))
	e.machine(dir, s.Control.Skew)
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
	up, relayed, narrow := 0, 0, 0
	for _, t := range s.Tunnels {
		if !t.Up {
			continue
		}
		up++
		if t.Path == postern.CarrierRelay {
			relayed++
		}
		if s.MTU > 0 && t.MTU < s.MTU {
			narrow++
		}
	}
	tunnels := fmt.Sprintf("%d of %d tunnels are up, on UDP port %d", up, len(s.Tunnels), s.UDPPort)
	switch {
	case len(s.Tunnels) == 0:
		e.add("udp", postern.FindingOK, tunnels+"; no node has joined", "")
	case up == 0:
		e.add("udp", postern.FindingError, tunnels, "does the firewall let UDP in, and does "+s.Advertise+", which nodes are told, lead here?")
	case up == relayed:
		e.add("udp", postern.FindingWarning, tunnels+", and all of them by TLS", "does the firewall let UDP in, and does "+s.Advertise+", which nodes are told, lead here?")
	default:
		e.grade(up == len(s.Tunnels), postern.FindingWarning, "udp", tunnels, "UDP gets in; the other nodes are off, or their networks block it")
	}
	if up > 0 {
		text := fmt.Sprintf("packets of %d bytes in the tunnels", s.MTU)
		if narrow > 0 {
			text += ", and shorter ones to " + counted(narrow, "node") + ", whose path carries less"
		}
		e.add("mtu", postern.FindingOK, text, "")
	}
	if s.Files > 0 {
		e.grade(s.Files >= s.Room+spareFiles, postern.FindingWarning, "files", fmt.Sprintf("%d may be open, for %d connections", s.Files, s.Room),
			fmt.Sprintf("raise the limit to %d or more (LimitNOFILE= of the unit, or ulimit -n): what is beyond it waits", s.Room+spareFiles))
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
	e.grade(s.Counts.Full == 0, postern.FindingWarning, "limits", fmt.Sprintf("%s of visitors open; all room was taken %s", count(int(s.Counts.Open), "connection"), count(int(s.Counts.Full), "time")),
		"more memory (GOMEMLIMIT), or another gateway")
	return e
}
