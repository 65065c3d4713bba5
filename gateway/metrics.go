package gateway

import "github.com/prometheus/client_golang/prometheus"

// Metrics in the form that Prometheus scrapes. No label has a value that comes from a
// tenant, a client or a map: whoever reads them learns of nobody's names, and there is a
// bounded number of them, whatever strangers send.
var (
	metricAccepted = newDesc("connections_accepted_total", "Connections that were accepted.")
	metricOpen     = newDesc("connections_open", "Connections at present.")
	metricVerdict  = newDesc("connections_total", "Connections by what became of them: spliced to a node or the coordinator, or why not.", "verdict")
	metricSilent   = newDesc("connections_silent_total", "Connections that were ended because the client was gone without a word.")
	metricLimit    = newDesc("limit_hits_total", "How often a limit refused a connection, or, with conns, had all others wait, or, with bandwidth, processors and tenant_bandwidth, a tenant's bytes.", "limit")
	metricBytes    = newDesc("bytes_total", "Bytes up, from clients, and down, to them.", "direction")
	metricSpares   = newDesc("spares", "Connections to nodes that no client has yet.")
	metricProbes   = newDesc("probes_total", "Probes of nodes through their tunnels, by whether they were answered.", "result")
	metricRTT      = newDesc("probe_rtt_seconds", "How long nodes took to answer probes.")
	metricNodes    = newDesc("nodes", "Nodes of the map, by whether they answer probes.", "health")
	metricRelays   = newDesc("relays", "Connections at present that carry a node's tunnel.")
)

// These limits refuse nobody: Limits.Conns makes all wait, Limits.Bandwidth and the
// processors those that want more than their part, and Limits.TenantBandwidth one tenant.
const (
	limitConns           = "conns"
	limitBandwidth       = "bandwidth"
	limitProcessors      = "processors"
	limitTenantBandwidth = "tenant_bandwidth"
)

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("postern_gateway_"+name, help, labels, nil)
}

// Collector returns what tells g's Stats as metrics.
func (g *Gateway) Collector() prometheus.Collector { return collector{g.Stats} }

type collector struct{ stats func() Stats }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		metricAccepted, metricOpen, metricVerdict, metricSilent, metricLimit, metricBytes, metricSpares, metricRelays,
		metricProbes, metricRTT, metricNodes,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. What never occurred is zero and not absent,
// so that its first occurrence is a change.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	tell := func(d *prometheus.Desc, kind prometheus.ValueType, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, float64(v), labels...)
	}
	s := c.stats()
	tell(metricAccepted, prometheus.CounterValue, s.Accepted)
	tell(metricOpen, prometheus.GaugeValue, s.Open)
	tell(metricSpares, prometheus.GaugeValue, s.Spares)
	tell(metricRelays, prometheus.GaugeValue, s.Relays)
	tell(metricBytes, prometheus.CounterValue, s.UpBytes, "up")
	tell(metricBytes, prometheus.CounterValue, s.DownBytes, "down")
	tell(metricVerdict, prometheus.CounterValue, s.Spliced, VerdictSpliced)
	tell(metricSilent, prometheus.CounterValue, s.Silent)
	tell(metricLimit, prometheus.CounterValue, s.Full, limitConns)
	tell(metricLimit, prometheus.CounterValue, s.Waits.Line, limitBandwidth)
	tell(metricLimit, prometheus.CounterValue, s.Waits.Machine, limitProcessors)
	tell(metricLimit, prometheus.CounterValue, s.Waits.Share, limitTenantBandwidth)
	p := s.Probes
	tell(metricProbes, prometheus.CounterValue, p.Sent-p.Missed, "answered")
	tell(metricProbes, prometheus.CounterValue, p.Missed, "missed")
	tell(metricNodes, prometheus.GaugeValue, int64(p.Healthy), "healthy")
	tell(metricNodes, prometheus.GaugeValue, int64(p.Unhealthy), "unhealthy")
	rtts := make(map[float64]uint64, len(rttBounds))
	for i, bound := range rttBounds {
		rtts[bound] = uint64(p.RTTs[i])
	}
	ch <- prometheus.MustNewConstHistogram(metricRTT, uint64(p.Sent-p.Missed), p.Took.Seconds(), rtts)
	for r := range reasons {
		tell(metricVerdict, prometheus.CounterValue, s.Refused[r], r.String())
		if r.Limit() {
			tell(metricLimit, prometheus.CounterValue, s.Refused[r], r.String())
		}
	}
}
