package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics in the form that Prometheus scrapes: a certificate's end in Unix seconds, and
// for the rest 1 or 0.
var (
	metricInfo    = newDesc("postern_node_info", "The node.", "tenant", "node", "version")
	metricControl = newDesc("postern_node_control_up", "Whether the coordinator's stream is up.")
	metricReady   = newDesc("postern_node_route_ready", "Whether the host was seen through a gateway with this node's key.", "host", "service")
	metricAlarm   = newDesc("postern_node_certificate_alarm", "Whether a gateway showed a certificate that is not this node's.", "host")
	metricFailing = newDesc("postern_node_certificate_failing", "Whether the last attempt to get or load a certificate failed.", "host", "source")
	metricEnd     = newDesc("postern_node_certificate_not_after_seconds", "When the host's certificate ends.", "host", "source")
	metricOpen    = newDesc("postern_node_connections_open", "Connections of browsers.")
)

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// A collector tells a node's Status as metrics.
type collector struct{ status func() Status }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{metricInfo, metricControl, metricReady, metricAlarm, metricFailing, metricEnd, metricOpen} {
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
	gauge(metricOpen, float64(s.Connections.Open))
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
func metricsHandler(status func() Status) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collector{status})
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// serveMetrics serves /metrics on ln until ctx is done, and closes it. A nil ln is none.
func serveMetrics(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	if ln == nil {
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	hs := &http.Server{
		Handler: mux, ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { hs.Close() })
	defer stop()
	if err := hs.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

// listenMetrics listens at addr, nowhere if that is empty.
func listenMetrics(addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w", err)
	}
	return ln, nil
}
