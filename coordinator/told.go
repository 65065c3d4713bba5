package coordinator

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"postern"
)

const (
	// maxWords bounds what is kept of an authority's words, and of what a gateway
	// showed, in bytes.
	maxWords = 512

	// maxStatement bounds a statement, in bytes of its payload.
	maxStatement = 128 << 10
)

// told is what a node last said of the certificates that it shows. What it says of hosts
// that are not routed to it is not in there.
type told struct {
	time      time.Time
	hosts     map[string]postern.HostStatus
	statement *postern.Statement // nil: none, or none of use
	spoilt    string             // why a statement was of no use
}

// toldBy returns what s says of the hosts that are routed to m, of tenant t.
func (t *tenantMap) toldBy(m *Member, s *postern.Status, now time.Time) told {
	out := told{time: now, hosts: make(map[string]postern.HostStatus)}
	for _, h := range s.Hosts {
		if _, own := t.routeTo(m.ID, h.Host); own && checkHostStatus(&h) == nil {
			out.hosts[h.Host] = h
		}
	}
	if s.Statement != nil {
		if err := t.checkStatement(m, s.Statement); err != nil {
			out.spoilt = err.Error()
		} else {
			out.statement = s.Statement
		}
	}
	return out
}

// checkHostStatus refuses what makes no sense, and makes one line of at most maxWords
// bytes of what others said.
func checkHostStatus(h *postern.HostStatus) error {
	states := []string{postern.CertificateValid, postern.CertificateWaiting, postern.CertificateLate, postern.CertificateExpired}
	sources := []string{"", postern.SourceACME, postern.SourcePrivate, postern.SourceFile}
	if !slices.Contains(states, h.State) || !slices.Contains(sources, h.Source) {
		return fmt.Errorf("certificate state %q of source %q", h.State, h.Source)
	}
	for _, sum := range []string{h.SHA256, h.SPKI} {
		if sum != "" && !isSHA256(sum) {
			return fmt.Errorf("%q is no SHA-256", sum)
		}
	}
	h.Error, h.Alarm = words(h.Error), words(h.Alarm)
	h.NotAfter, h.Renewal = h.NotAfter.UTC(), h.Renewal.UTC()
	if h.Authority != "" && postern.CheckHost(h.Authority) != nil {
		h.Authority = ""
	}
	return errors.Join(checkText("issuer", h.Issuer), checkText("account", h.Account))
}

// words returns a stranger's text in one line of at most maxWords bytes.
func words(s string) string {
	if len(s) > maxWords {
		s = s[:maxWords]
	}
	s = strings.ToValidUTF8(s, "")
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || isControl(r) }), " ")
}

func isSHA256(s string) bool {
	sum, err := hex.DecodeString(s)
	return err == nil && len(sum) == 32 && s == strings.ToLower(s)
}

// checkStatement reports why s is not what m, of tenant t, states of hosts that are all
// routed to it.
func (t *tenantMap) checkStatement(m *Member, s *postern.Statement) error {
	if len(s.Payload) > maxStatement {
		return fmt.Errorf("it has more than %d bytes", maxStatement)
	}
	held, err := s.Open(m.Identity)
	if err != nil {
		return err
	}
	if held.Node != m.ID {
		return fmt.Errorf("it is of node %q", cut(held.Node))
	}
	for _, h := range held.Hosts {
		if _, own := t.routeTo(m.ID, h.Host); !own {
			return fmt.Errorf("host %q is not routed to the node", cut(h.Host))
		}
		if !isSHA256(h.SHA256) || !isSHA256(h.SPKI) {
			return fmt.Errorf("host %q has no fingerprint", h.Host)
		}
	}
	return nil
}

// tellHosts keeps what the node with id said, and returns what it said before.
func (p *presence) tellHosts(id string, t told) (before told) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before = p.told[id]
	p.told[id] = t
	return before
}

// toldBy returns what the node with id said last.
func (p *presence) toldBy(id string) told {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told[id]
}

// keepTold keeps what m says of its certificates, and makes alarms known.
func (c *Coordinator) keepTold(ctx context.Context, m *Member, s *postern.Status) {
	snap := c.snapshot.Load()
	t := snap.tenants[m.Tenant]
	if t == nil || snap.byID[m.ID] == nil {
		return // removed in the meantime
	}
	now := t.toldBy(m, s, c.cfg.Now())
	before := c.presence.tellHosts(m.ID, now)
	if c.snapshot.Load().byID[m.ID] == nil {
		c.presence.keep(c.snapshot.Load().byID)
	}
	log := c.log.With("tenant", m.Tenant, "node", m.Name)
	if now.spoilt != "" && now.spoilt != before.spoilt {
		log.Warn("a node's statement of its keys is of no use", "err", now.spoilt)
	}
	for _, host := range slices.Sorted(maps.Keys(now.hosts)) {
		alarm := now.hosts[host].Alarm
		if alarm == before.hosts[host].Alarm || !c.limits.alarm.allow(m.ID) {
			continue
		}
		if alarm == "" {
			log.Info("certificate alarm is over", "server_name", host)
			c.note(ctx, actorMember(m), "certificate.alarm", m.Tenant, host, "over")
			continue
		}
		log.Error("certificate alarm: a gateway showed what the node does not hold", "server_name", host, "err", alarm)
		c.note(ctx, actorMember(m), "certificate.alarm", m.Tenant, host, alarm)
	}
	if err := c.keepKeys(ctx, t, m, now); err != nil {
		log.Warn("tell nodes of each other's keys", "err", err)
	}
	if !maps.Equal(now.hosts, before.hosts) {
		c.changed.ring()
	}
}

// routeCertificates returns what the nodes of r say of its certificate, by name.
func (c *Coordinator) routeCertificates(snap *snapshot, r postern.Route) []postern.RouteCertificate {
	all := []postern.RouteCertificate{}
	for _, id := range r.Nodes {
		n, t := snap.byID[id], c.presence.toldBy(id)
		if h, ok := t.hosts[r.Host]; ok {
			all = append(all, postern.RouteCertificate{
				Node: n.Name, Identity: n.Identity, Reported: t.time, HostStatus: h, Statement: t.statement,
			})
		}
	}
	slices.SortFunc(all, func(a, b postern.RouteCertificate) int { return strings.Compare(a.Node, b.Node) })
	return all
}
