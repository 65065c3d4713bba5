package node

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postern/internal/monitor"
)

// Metrics in the form that Prometheus scrapes: a certificate's end in Unix seconds, and
// for the rest 1 or 0.
var (
	metricInfo    = newDesc("postern_node_info", "The node.", "tenant", "node", "version")
	metricControl = newDesc("postern_node_control_up", "Whether the coordinator's stream is up.")
	metricLease   = newDesc("postern_node_lease_left_seconds", "For how long the node goes on without news of the coordinator; zero: it serves nobody.")
	metricReady   = newDesc("postern_node_route_ready", "Whether the host was seen through a gateway with this node's key.", "host", "service")
	metricAlarm   = newDesc("postern_node_certificate_alarm", "Whether a gateway showed a certificate that is not this node's.", "host")
	metricFailing = newDesc("postern_node_certificate_failing", "Whether the last attempt to get or load a certificate failed.", "host", "source")
	metricEnd     = newDesc("postern_node_certificate_not_after_seconds", "When the host's certificate ends.", "host", "source")
	metricOpen    = newDesc("postern_node_connections_open", "Connections of browsers.")
	metricMTU     = newDesc("postern_node_tunnel_mtu_bytes", "Longest packets in the tunnel to the gateway.", "gateway")
	metricLost    = newDesc("postern_node_access_log_lost_total", "Lines of the access log that its disk did not take.")
)

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// A collector tells a node's Status as metrics.
type collector struct{ status func() Status }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{metricInfo, metricControl, metricLease, metricReady, metricAlarm, metricFailing, metricEnd, metricOpen, metricMTU, metricLost} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := c.status()
	gauge(metricInfo, 1, s.Member.Tenant, s.Member.Name, s.Version)
	gauge(metricControl, oneIf(s.Control.Up))
	if ends := s.Control.LeaseEnds; !ends.IsZero() {
		gauge(metricLease, max(time.Until(ends).Seconds(), 0))
	}
	gauge(metricOpen, float64(s.Connections.Open))
	ch <- prometheus.MustNewConstMetric(metricLost, prometheus.CounterValue, float64(s.AccessLogLost))
	for _, t := range s.Tunnels {
		gauge(metricMTU, float64(t.MTU), t.Gateway)
	}
	for _, r := range s.Routes {
		gauge(metricReady, oneIf(r.State == RouteReady), r.Host, r.Service)
		gauge(metricAlarm, oneIf(r.State == RouteAlarm), r.Host)
		if cert := r.Certificate; cert != nil {
			gauge(metricFailing, oneIf(cert.Error != ""), r.Host, cert.Source)
			if cert.SHA256 != "" {
				gauge(metricEnd, float64(cert.NotAfter.Unix()), r.Host, cert.Source)
			}
		}
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// metricsHandler answers with the metrics of status.
func metricsHandler(status func() Status) http.Handler { return monitor.Metrics(collector{status}) }
