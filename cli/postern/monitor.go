package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"

	"postern/internal/accesslog"
)

func metricsFlag() cli.Flag {
	return &cli.StringFlag{Name: "metrics", Usage: "`ADDRESS` to serve metrics at for Prometheus, such as 127.0.0.1:9464"}
}

func accessLogFlag(what string) cli.Flag {
	return &cli.StringFlag{Name: "access-log", Usage: "`FILE` to append a line of JSON to for each " + what + ", - for standard output; SIGHUP reopens it"}
}

// lostLines returns what tells how many lines of l were lost, as a metric of role.
func lostLines(role string, l *accesslog.Log) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Namespace: "postern", Subsystem: role, Name: "access_log_lost_total",
		Help: "Lines of the access log that its disk did not take.",
	}, func() float64 { return float64(l.Lost()) })
}

// reopening calls reopen at each SIGHUP, until ctx is done, if file names a file. Without
// one, SIGHUP is what it is to other programs.
func reopening(ctx context.Context, file string, reopen func()) error {
	if file == "" || file == "-" {
		return nil
	}
	return onHangup(ctx, reopen)
}
