package netstack

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

func TestEcho(t *testing.T) {
	node, gateway := newPair(t)
	for _, tt := range []struct {
		name     string
		from, to *host
	}{
		{"gateway dials", gateway, node},
		{"node dials", node, gateway},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := connect(t, tt.from, tt.to)
			mustEcho(t, a, b)
		})
	}
}

func TestNewRefuses(t *testing.T) {
	good := Config{PrivateKey: newPrivateKey(t), Address: overlay(1)}
	for _, tt := range []struct {
		name  string
		spoil func(*Config)
		want  string
	}{
		{"no key", func(c *Config) { c.PrivateKey = [32]byte{} }, "no private key"},
		{"no address", func(c *Config) { c.Address = netip.Addr{} }, "no IPv6 address"},
		{"IPv4", func(c *Config) { c.Address = netip.MustParseAddr("10.0.0.1") }, "no IPv6 address"},
		{"IPv4 in IPv6", func(c *Config) { c.Address = netip.MustParseAddr("::ffff:10.0.0.1") }, "no IPv6 address"},
		{"loopback", func(c *Config) { c.Address = netip.IPv6Loopback() }, "no IPv6 address"},
		{"multicast", func(c *Config) { c.Address = netip.MustParseAddr("ff02::1") }, "no IPv6 address"},
		{"zone", func(c *Config) { c.Address = netip.MustParseAddr("fd00::1%eth0") }, "no IPv6 address"},
		{"mtu too small", func(c *Config) { c.MTU = 1279 }, "mtu 1279"},
		{"mtu too large", func(c *Config) { c.MTU = 1 << 16 }, "mtu 65536"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.spoil(&cfg)
			n, err := New(cfg)
			if err == nil {
				n.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestNewOnTakenPort(t *testing.T) {
	h := newHost(t, 1)
	n, err := New(Config{PrivateKey: newPrivateKey(t), Address: overlay(2), Port: h.Port()})
	if err == nil {
		n.Close()
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want EADDRINUSE", err)
	}
}

func TestPortIsTheOneAskedFor(t *testing.T) {
	first := newHost(t, 1)
	port := first.Port()
	first.Close()
	second := (&host{private: newPrivateKey(t)}).start(t, Config{Address: overlay(1), Port: port})
	if got := second.Port(); got != port || got == 0 {
		t.Errorf("got port %d, want %d", got, port)
	}
}

func TestPrivateKeyNeverPrints(t *testing.T) {
	log := new(syncBuffer)
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	node := &host{private: newPrivateKey(t)}
	cfg := Config{PrivateKey: node.private, Address: overlay(1), Logger: logger}
	node.start(t, cfg)
	gateway := newHost(t, 2)
	meet(t, node, gateway)
	if err := node.Rebind(); err != nil {
		t.Fatal(err)
	}
	node.Close()
	logger.Info("config", "config", cfg)
	out := log.String() + fmt.Sprintf("%v %+v %#v %s %x %d", cfg, cfg, cfg, cfg, cfg, cfg)
	if !strings.Contains(out, "Received handshake response") {
		t.Fatalf("the log does not tell of the handshake, so proves nothing:\n%s", out)
	}
	k := node.private[:]
	for name, secret := range map[string]string{
		"hex":     hex.EncodeToString(k),
		"base64":  base64.StdEncoding.EncodeToString(k)[:40],
		"decimal": strings.Trim(fmt.Sprint(k), "[]"),
		"go":      strings.TrimPrefix(strings.TrimSuffix(fmt.Sprintf("%#v", k), "}"), "[]byte{"),
	} {
		if strings.Contains(out, secret) {
			t.Errorf("the private key is printed in %s", name)
		}
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestDialErrors(t *testing.T) {
	node, gateway := newPair(t)
	absent := Peer{PublicKey: Key{1}, Address: overlay(9)}
	gateway.mustSetPeers(t, node.hidden(), absent)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cancelled, cancel2 := context.WithCancel(t.Context())
	cancel2()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		dst  string
		want error
	}{
		{"no such peer", ctx, "[fd00::77]:443", errNoPeer},
		{"own address", ctx, "[fd00::2]:443", errNoPeer},
		{"host's loopback", ctx, "[::1]:443", errNoPeer},
		{"IPv4", ctx, "127.0.0.1:443", errNoPeer},
		{"no listener", ctx, "[fd00::1]:443", syscall.ECONNREFUSED},
		{"cancelled", cancelled, "[fd00::1]:443", context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := within(t, "dial", func() error {
				_, err := gateway.DialContext(tt.ctx, netip.MustParseAddrPort(tt.dst))
				return err
			})
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.dst) {
				t.Errorf("got %v, want %v, with the address", err, tt.want)
			}
		})
	}
	t.Run("peer that is not there", func(t *testing.T) {
		dialing := make(chan error, 1)
		go func() {
			_, err := gateway.DialContext(ctx, netip.AddrPortFrom(absent.Address, 443))
			dialing <- err
		}()
		eventually(t, "dial under way", func() bool { return len(gateway.stack.RegisteredEndpoints()) > 0 })
		cancel()
		if err := within(t, "dial", func() error { return <-dialing }); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
}

// A dial to a node that has not called yet is answered once it calls.
func TestDialWaitsForPeer(t *testing.T) {
	node, gateway := newHost(t, 1), newHost(t, 2)
	ln := node.mustListen(t, 443)
	gateway.mustSetPeers(t, node.hidden())
	dialed := make(chan error, 1)
	go func() {
		c, err := gateway.DialContext(t.Context(), addrPort(ln))
		if err == nil {
			c.Close()
		}
		dialed <- err
	}()
	eventually(t, "SYN", func() bool { return gateway.stack.Stats().TCP.SegmentsSent.Value() > 0 })
	meet(t, node, gateway)
	if err := within(t, "dial", func() error { return <-dialed }); err != nil {
		t.Error(err)
	}
}

func TestListenErrors(t *testing.T) {
	h := newHost(t, 1)
	ln := h.mustListen(t, 443)
	if _, err := h.Listen(443); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("taken port: got %v, want EADDRINUSE", err)
	}
	ln.Close()
	h.mustListen(t, 443)
}

func TestListenerClose(t *testing.T) {
	for _, tt := range []struct {
		name  string
		close func(*host, net.Listener)
	}{
		{"listener", func(_ *host, ln net.Listener) { ln.Close(); ln.Close() }},
		{"net", func(h *host, _ net.Listener) { h.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, 1)
			ln := h.mustListen(t, 443)
			accepting := make(chan error, 1)
			go func() { _, err := ln.Accept(); accepting <- err }()
			tt.close(h, ln)
			if err := within(t, "accept", func() error { return <-accepting }); !errors.Is(err, net.ErrClosed) {
				t.Errorf("waiting accept: got %v, want net.ErrClosed", err)
			}
			if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("accept: got %v, want net.ErrClosed", err)
			}
		})
	}
}

// Close while everything is in use: nothing hangs, and all learn of it.
func TestClose(t *testing.T) {
	node, gateway := newPair(t)
	absent := Peer{PublicKey: Key{1}, Address: overlay(9)}
	gateway.mustSetPeers(t, node.hidden(), absent)
	idle, _ := connect(t, gateway, node)
	busy, _ := connect(t, gateway, node)

	errs := make(chan error)
	go func() { _, err := idle.Read(make([]byte, 1)); errs <- err }()
	go func() {
		var err error
		for err == nil {
			_, err = busy.Write(make([]byte, 1<<20))
		}
		errs <- err
	}()
	go func() {
		_, err := gateway.DialContext(t.Context(), netip.AddrPortFrom(absent.Address, 443))
		errs <- err
	}()
	eventually(t, "dial under way", func() bool { return len(gateway.stack.RegisteredEndpoints()) == 3 })

	var closing sync.WaitGroup
	for range 2 {
		closing.Go(func() { gateway.Close() })
	}
	within(t, "close", func() struct{} { closing.Wait(); return struct{}{} })
	for range 3 {
		if err := within(t, "a call", func() error { return <-errs }); err == nil || err == io.EOF {
			t.Errorf("got %v, want an error", err)
		}
	}
	for name, f := range map[string]func() error{
		"dial": func() error {
			_, err := gateway.DialContext(t.Context(), netip.AddrPortFrom(node.address, 1))
			return err
		},
		"listen":   func() error { _, err := gateway.Listen(1); return err },
		"setPeers": func() error { return gateway.SetPeers(nil) },
		"rebind":   gateway.Rebind,
	} {
		if err := f(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after close: got %v, want net.ErrClosed", name, err)
		}
	}
	if got := gateway.Peers(); len(got) != 0 {
		t.Errorf("peers after close: got %d, want none", len(got))
	}
	if got := len(gateway.stack.RegisteredEndpoints()); got != 0 {
		t.Errorf("got %d endpoints after close, want none", got)
	}
}

// A closingBind calls onClose when it is closed.
type closingBind struct {
	conn.Bind
	onClose func()
}

func (b *closingBind) Close() error {
	b.onClose()
	return b.Bind.Close()
}

// While the socket is replaced, nobody waits for room in the ring, although nothing
// leaves it: it could be a receiver, whose end the device waits for.
func TestRebindNeedsNoRoom(t *testing.T) {
	logger := slog.New(slog.DiscardHandler)
	l := newLink(hereAddr, 1420)
	bind := &closingBind{newBind(logger), func() {}}
	n := &Net{link: l, device: device.NewDevice(tunDevice{l}, bind, newDeviceLogger(logger)), anyPort: true}
	t.Cleanup(n.device.Close)
	t.Cleanup(l.ring.close)
	if err := n.device.Up(); err != nil {
		t.Fatal(err)
	}
	l.credits.sending.Add(1) // in vain, and for ever
	l.credits.take(maxInside)
	bind.onClose = func() {
		for i := range 2 * ringSize {
			l.ring.pushNumbered(i)
		}
	}
	if err := within(t, "rebind", n.Rebind); err != nil {
		t.Fatal(err)
	}
	bind.onClose = func() {}
	l.ring.mu.Lock()
	defer l.ring.mu.Unlock()
	if l.ring.lossy {
		t.Error("the ring is still lossy")
	}
}

// The socket is replaced under load in both directions, with a peer that keeps
// knocking at closed ports, which a receiver answers itself.
func TestRebindUnderLoad(t *testing.T) {
	node, gateway := newPair(t)
	a, b := connect(t, gateway, node)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, c := range []*tcpConn{a, b} {
		wg.Go(func() { io.Copy(io.Discard, c) })
		wg.Go(func() {
			buf := make([]byte, 1<<16)
			for ctx.Err() == nil {
				c.Write(buf)
			}
			c.Close()
		})
	}
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				node.DialContext(ctx, netip.AddrPortFrom(gateway.address, 9))
			}
		})
	}
	for i := range 8 {
		port := gateway.Port()
		if err := within(t, "rebind", gateway.Rebind); err != nil {
			t.Fatalf("rebind %d: %v", i, err)
		}
		if got := gateway.Port(); got != port {
			t.Errorf("rebind %d: got port %d, want %d", i, got, port)
		}
		before := gateway.status1(t).Received
		eventually(t, "traffic after rebind", func() bool { return gateway.status1(t).Received > before+1<<17 })
	}
	stop()
	wg.Wait()
}
