package longline

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// stormRate is how many new connections a second there are in a storm, at most.
	stormRate = 2000

	// stormWorkers is how many of them may wait at once. A machine that is slower
	// than the storm slows it down, instead of being buried by it.
	stormWorkers = 256

	// stormPatience is how long one may take before it counts as never answered.
	stormPatience = 30 * time.Second
)

// storm opens connections. Each says a hello that the other end refuses, since it
// wants a TLS version that nobody speaks any more: an answer from there all the
// same, without the work of a handshake, which would be that of the machine and not
// of the way.
func (v visit) storm(ctx context.Context, f Figures) error {
	hello, err := v.oldHello()
	if err != nil {
		return err
	}
	turns := make(chan byte)
	took := make(chan time.Duration)
	var workers sync.WaitGroup
	for range stormWorkers {
		workers.Go(func() {
			for client := range turns {
				start := time.Now()
				if err := v.refused(ctx, hello, client); err != nil {
					took <- stormPatience
				} else {
					took <- time.Since(start)
				}
			}
		})
	}
	var pace sync.WaitGroup
	pace.Go(func() {
		defer close(turns)
		start := time.Now()
		for i := 0; time.Since(start) < 5*v.Span; i++ {
			time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / stormRate)))
			turns <- byte(i)
		}
	})
	go func() {
		workers.Wait()
		close(took)
	}()
	all, prompt, slowest := 0, 0, time.Duration(0)
	for t := range took {
		all++
		if t < time.Second {
			prompt++
		}
		slowest = max(slowest, t)
	}
	pace.Wait()
	f["storm.rate"] = float64(all) / (5 * v.Span.Seconds())
	f["storm.prompt"] = float64(prompt) / float64(all)
	f["storm.max"] = float64(slowest) / 1e6
	return nil
}

// refused opens a connection, says hello and waits for the alert that refuses it:
// protocol_version, where the gateway's own would be another. Clients of the gateway
// come from many addresses, as they do.
func (v visit) refused(ctx context.Context, hello []byte, client byte) error {
	d := net.Dialer{Timeout: stormPatience}
	if strings.HasPrefix(v.Addr, "127.") {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 1, 1, client)}
	}
	c, err := d.DialContext(ctx, "tcp", v.Addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(stormPatience))
	if _, err := c.Write(hello); err != nil {
		return err
	}
	var alert [7]byte // RFC 8446, sections 5.1 and 6
	if _, err := io.ReadFull(c, alert[:]); err != nil {
		return err
	}
	const protocolVersion = 70
	if alert[6] != protocolVersion {
		return fmt.Errorf("answered % x", alert)
	}
	return nil
}

// oldHello returns the ClientHello of a client that knows TLS 1.0 alone.
func (v visit) oldHello() ([]byte, error) {
	u, err := url.Parse(v.URL)
	if err != nil {
		return nil, err
	}
	client, wire := net.Pipe()
	defer wire.Close()
	go func() {
		tls.Client(client, &tls.Config{
			ServerName: u.Hostname(), InsecureSkipVerify: true,
			MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10,
		}).Handshake() // fails when the wire is closed
		client.Close()
	}()
	hello := make([]byte, 4096)
	n, err := wire.Read(hello)
	return hello[:n], err
}
