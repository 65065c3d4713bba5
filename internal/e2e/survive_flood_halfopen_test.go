//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"postern/gateway"
)

// halfOpen are more connections that are never completed than the kernel keeps in a
// listener's queue (somaxconn, 4096).
const halfOpen = 6000

// neverComplete has the kernel drop the last step of each handshake (RFC 9293, section
// 3.5) from some addresses.
const neverComplete = `
table inet halfopen {
	chain output {
		type filter hook output priority 0
		ip saddr 127.9.0.0/16 tcp flags & (fin | syn | rst | ack) != syn drop
	}
}
`

// TestSurviveFloodHalfOpen: connections that are never completed are the kernel's, which bounds
// them and answers with cookies beyond. The gateway hears of none and serves others. It
// runs in a network of its own.
func TestSurviveFloodHalfOpen(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "half open", []string{childEnv + "=half open"}, "unshare", "--net", self)
	select {
	case <-p.done:
	case <-time.After(2 * time.Minute):
		t.Fatal("it does not end")
	}
	t.Log(strings.TrimSpace(p.out.String()))
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}

// floodHalfOpen is a child: a gateway, those who leave it half open, and one who does not.
func floodHalfOpen() error {
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, out)
	}
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(neverComplete)
	if out, err := nft.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:443")
	if err != nil {
		return err
	}
	g := gateway.New(gateway.Config{})
	served := make(chan error, 1)
	go func() { served <- g.Serve(context.Background(), ln) }()
	for i := range halfOpen {
		from := netip.AddrFrom4([4]byte{127, 9, byte(i / 250), byte(i%250 + 1)})
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: 10 * time.Second}
		c, err := d.Dial("tcp", ln.Addr().String()) // to whom dials, all is well
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		defer c.Close()
	}
	begin := time.Now()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		return fmt.Errorf("beside %d that are half open: %w", halfOpen, err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	answer, err := io.ReadAll(c)
	if err != nil || !bytes.Contains(answer, []byte("HTTPS only")) {
		return fmt.Errorf("beside %d that are half open: got %q, %v", halfOpen, answer, err)
	}
	accepted := g.Stats().Accepted
	fmt.Printf("beside %d connections that are half open, one was answered after %v; the gateway heard of %d\n", halfOpen, time.Since(begin), accepted)
	if accepted != 1 {
		return fmt.Errorf("the gateway accepted %d connections, want 1", accepted)
	}
	g.Close()
	return <-served
}
