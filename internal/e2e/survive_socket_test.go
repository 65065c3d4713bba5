//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"
)

// TestSurviveSocket: while a gateway restarts, systemd holds its port open, and who
// connects meanwhile is served by the next one, as soon as it knows where names lead. It
// may not tell anybody before that it does not know the name.
func TestSurviveSocket(t *testing.T) {
	t.Parallel()
	d := bareDeployment(t)
	ln, err := net.Listen("tcp", loopback(d.https))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	socket, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	d.sockets = []*os.File{socket}
	// As systemd does it (sd_listen_fds(3)).
	d.behind = map[string][]string{"gateway": {"env", "LISTEN_FDS=1", "LISTEN_FDNAMES=https", "sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh"}}
	d.startCoordinator()
	d.joinGateway()
	d.startGatewayWithoutLimits()
	app := newApplication(t, "acme")
	d.node(d.tenant("acme"), "acme-office", app.url)

	ctx, end := context.WithCancel(t.Context())
	var visitors sync.WaitGroup
	var mu sync.Mutex
	var visits int
	var failed []error
	for range 4 {
		c := d.client("http/1.1")
		c.Transport.(*http.Transport).DisableKeepAlives = true
		visitors.Go(func() {
			for ctx.Err() == nil {
				status, _, err := get(c, d.url("acme", "/"))
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("status %d", status)
				}
				mu.Lock()
				visits++
				if err != nil {
					failed = append(failed, err)
				}
				mu.Unlock()
			}
		})
	}
	const restarts = 5
	for range restarts {
		d.gateway.stop()
		d.startGatewayWithoutLimits()
		d.serves("acme", 10*time.Second)
	}
	end()
	visitors.Wait()
	noteFigure(t, "survive", fmt.Sprintf("new connections while a gateway restarted %d times, its socket held open", restarts), float64(visits), "")
	noteFigure(t, "survive", "of which failed", float64(len(failed)), "")
	if len(failed) > 0 {
		t.Errorf("%d of %d visits failed, the first: %v", len(failed), visits, failed[0])
	}
}
