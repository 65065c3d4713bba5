//go:build e2e

package e2e

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"postern/internal/splice"
)

// tapTCP relays connections to the address to, on record, and returns the port
// where it listens. It ends with the test.
func (r *recorder) tapTCP(t testing.TB, to string) (port int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				far, err := net.Dial("tcp", to)
				if err != nil {
					c.Close()
					return
				}
				splice.Conns(t.Context(), c, r.conn(far))
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() }) // the test's context is done by then
	return ln.Addr().(*net.TCPAddr).Port
}

// tapUDP relays datagrams to the address to, on record, each sender's from a
// socket of its own, and returns the port where it listens. It ends with the test.
func (r *recorder) tapUDP(t testing.TB, to string) (port int) {
	t.Helper()
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	gateway := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))
	var wg sync.WaitGroup
	wg.Go(func() {
		senders := map[netip.AddrPort]*net.UDPConn{}
		defer func() {
			for _, back := range senders {
				back.Close()
			}
		}()
		in := r.streams.Add(1)
		b := make([]byte, 1<<16)
		for {
			n, from, err := front.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			} else if err != nil {
				continue
			}
			back := senders[from]
			if back == nil {
				if back, err = net.DialUDP("udp", nil, gateway); err != nil {
					continue
				}
				senders[from] = back
				wg.Go(func() { r.answer(front, from, back) })
			}
			r.keep(in, b[:n])
			back.Write(b[:n])
		}
	})
	t.Cleanup(func() { front.Close(); wg.Wait() })
	return front.LocalAddr().(*net.UDPAddr).Port
}

// answer passes what comes to back on to a sender, until back is closed.
func (r *recorder) answer(front *net.UDPConn, to netip.AddrPort, back *net.UDPConn) {
	out := r.streams.Add(1)
	b := make([]byte, 1<<16)
	for {
		n, err := back.Read(b)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			continue // refused: the gateway is not up yet
		}
		r.keep(out, b[:n])
		front.WriteToUDPAddrPort(b[:n], to)
	}
}
