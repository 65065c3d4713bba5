package coordinator

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postern"
)

// Metrics in the form that Prometheus scrapes. No label has a value that comes from a
// tenant, a member or a person: there is a bounded number of them, and who reads them
// learns of no customer. Times are in Unix seconds.
var (
	metricInfo     = newDesc("info", "The coordinator.", "version")
	metricTenants  = newDesc("tenants", "Customers.")
	metricNodes    = newDesc("nodes", "Nodes by state.", "state")
	metricGateways = newDesc("gateways", "Gateways by state.", "state")
	metricFit      = newDesc("gateways_fit", "Gateways that are fit for DNS.")
	metricRoutes   = newDesc("routes", "Routes by state.", "state")
	metricMap      = newDesc("map_version", "Version of the newest map.")
	metricStreams  = newDesc("streams_open", "Members that are told of changes.")
	metricAudit    = newDesc("audit_entries", "Entries in the audit log.")
	metricRefused  = newDesc("refused_total", "Attempts that were refused, by what was tried; signin are those to sign in.", "action")
	metricLimits   = newDesc("limit_hits_total", "How often a limit refused something, or, with audit and records, that it is recorded.", "limit")
	metricAlarms   = newDesc("certificate_alarms", "Host names at which a gateway shows what no node of theirs holds, at present.")
	metricFull     = newDesc("registry_full_total", "Changes that were refused because the disk is full.")
	metricPortal   = newDesc("portal_certificate_not_after_seconds", "When the certificate of the portal ends; absent while it has none of its own.")
)

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("postern_coordinator_"+name, help, labels, nil)
}

const refusedSuffix = ".refused"

// refusedActions are what can be refused, by their actions in the audit log.
var refusedActions = []string{"admin", "authorize", "enroll", "open", "request", "signin", "token"}

// refusals counts what was refused, recorded or not, by action without refusedSuffix.
type refusals struct {
	mu sync.Mutex
	n  map[string]int64
}

func newRefusals() *refusals {
	r := &refusals{n: make(map[string]int64)}
	for _, action := range refusedActions {
		r.n[action] = 0
	}
	return r
}

// count counts a refusal of action, all of which are constants of ours.
func (r *refusals) count(action string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n[strings.TrimSuffix(action, refusedSuffix)]++
}

// counts returns how many there were, by action.
func (r *refusals) counts() map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.n)
}

// Collector returns what tells the deployment's state as metrics.
func (c *Coordinator) Collector() prometheus.Collector { return collector{c} }

type collector struct{ c *Coordinator }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		metricInfo, metricTenants, metricNodes, metricGateways, metricFit, metricRoutes, metricMap, metricStreams,
		metricAudit, metricRefused, metricLimits, metricAlarms, metricFull, metricPortal,
	} {
		ch <- d
	}
}

// scrapeTimeout bounds what a scrape may wait for the registry.
const scrapeTimeout = 5 * time.Second

// Collect implements prometheus.Collector.
func (col collector) Collect(ch chan<- prometheus.Metric) {
	c := col.c
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	snap := c.snapshot.Load()
	gauge(metricInfo, 1, c.cfg.Version)
	gauge(metricTenants, float64(len(snap.tenants)))
	gauge(metricMap, float64(snap.version))
	gauge(metricStreams, float64(c.presence.countStreams()))
	gauge(metricAlarms, float64(c.presence.countAlarms()))
	nodes, gateways, routes, fit := c.countStates(snap)
	gauge(metricFit, float64(fit))
	for d, states := range map[*prometheus.Desc]map[string]int{metricNodes: nodes, metricGateways: gateways, metricRoutes: routes} {
		for state, n := range states {
			gauge(d, float64(n), state)
		}
	}
	for action, n := range c.refusals.counts() {
		count(metricRefused, float64(n), action)
	}
	for limit, n := range c.limits.hits() {
		count(metricLimits, float64(n), limit)
	}
	count(metricFull, float64(c.full.Load()))
	if end := c.portal.status(c.cfg.Now()).NotAfter; !end.IsZero() {
		gauge(metricPortal, float64(end.Unix()))
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	err := c.cfg.Store.View(ctx, func(tx Tx) error {
		last, err := tx.LastAudit()
		if err == nil {
			gauge(metricAudit, float64(last.Seq))
		}
		return err
	})
	if err != nil {
		ch <- prometheus.NewInvalidMetric(metricAudit, err)
	}
}

// countStates counts nodes, gateways and routes by state; states that are nobody's are
// zero and not absent. It counts the gateways that are fit besides.
func (c *Coordinator) countStates(snap *snapshot) (nodes, gateways, routes map[string]int, fit int) {
	nodes, gateways, routes = make(map[string]int), make(map[string]int), make(map[string]int)
	for _, s := range []string{postern.StateReady, postern.StateDegraded, postern.StateOffline} {
		nodes[s], routes[s] = 0, 0
	}
	gateways[postern.StateReady], gateways[postern.StateDraining], gateways[postern.StateOffline] = 0, 0, 0
	for _, v := range c.judge(snap) {
		gateways[v.state]++
		if v.Fit {
			fit++
		}
	}
	now := c.cfg.Now()
	for _, t := range snap.tenants {
		all := make(map[string]health, len(t.nodes))
		for _, n := range t.nodes {
			all[n.ID] = c.presence.health(n.ID, snap.gateways, now)
			nodes[all[n.ID].state]++
		}
		for _, r := range t.section.Routes {
			best := health{state: postern.StateOffline}
			for _, id := range r.Nodes {
				best = best.better(all[id])
			}
			routes[best.state]++
		}
	}
	return nodes, gateways, routes, fit
}

func (p *presence) countStreams() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.streams)
}

// countAlarms returns at how many hosts a node sees another's certificate.
func (p *presence) countAlarms() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	alarmed := make(map[string]bool)
	for _, t := range p.told {
		for host, h := range t.hosts {
			if h.Alarm != "" {
				alarmed[host] = true
			}
		}
	}
	return len(alarmed)
}

// countFull counts err if it says that the disk is full.
func (c *Coordinator) countFull(err error) {
	if errors.Is(err, ErrFull) {
		c.full.Add(1)
	}
}
