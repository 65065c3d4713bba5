package netstack

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// Connections that come, get an answer and end leave nothing behind: no memory, no
// goroutine, no endpoint.
func TestSoak(t *testing.T) {
	const (
		rounds  = 6
		atATime = 32
	)
	node, gateway := newPair(t)
	ln := node.mustListen(t, 443)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer ln.Close()
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				io.CopyN(c, c, 1000)
			})
		}
	})
	round := func() {
		var dialing sync.WaitGroup
		for range atATime {
			dialing.Go(func() {
				hello, answer := make([]byte, 1000), make([]byte, 1000)
				for range soakConnections / rounds / atATime {
					c, err := gateway.DialContext(t.Context(), addrPort(ln))
					if err != nil {
						t.Error(err)
						return
					}
					c.SetDeadline(time.Now().Add(patience))
					if _, err := c.Write(hello); err != nil {
						t.Error(err)
					}
					if _, err := io.ReadFull(c, answer); err != nil {
						t.Error(err)
					}
					c.Close()
				}
			})
		}
		dialing.Wait()
		eventually(t, "end of all endpoints but the listener's", func() bool {
			return len(gateway.stack.RegisteredEndpoints())+len(node.stack.RegisteredEndpoints()) == 1
		})
	}
	round() // what is made once is made
	before := inUse()
	for range rounds - 1 {
		round()
	}
	after := inUse()
	// WireGuard has some dozens of buffers of 64 KiB more or less. An endpoint has
	// about 5 KiB.
	if grown := after.heap - before.heap; grown > 8<<20 {
		t.Errorf("%d bytes of heap are left of %d connections", grown, soakConnections*(rounds-1)/rounds)
	}
	if after.goroutines > before.goroutines+4 {
		t.Errorf("%d goroutines before, %d after", before.goroutines, after.goroutines)
	}
}

type usage struct {
	heap       int64
	goroutines int
}

// inUse returns what is in use. Pools are empty after two collections.
func inUse() usage {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{int64(m.HeapAlloc), runtime.NumGoroutine()}
}

// Readers that do not read cost their own windows: another connection beside them
// carries all it is given, and what was written to them arrives when they do read.
func TestSlowReaders(t *testing.T) {
	const slow = 64
	node, gateway := newPair(t)
	type pair struct {
		from, to *tcpConn
		wrote    int
	}
	pairs := make([]*pair, slow)
	var writing sync.WaitGroup
	for i := range pairs {
		p := new(pair)
		p.from, p.to = connect(t, gateway, node)
		pairs[i] = p
		p.from.SetWriteDeadline(time.Now().Add(patience))
		writing.Go(func() {
			buf := make([]byte, 64<<10)
			for {
				n, err := p.from.Write(buf)
				p.wrote += n
				if err != nil {
					if !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	for _, p := range pairs {
		eventually(t, "full window", func() bool {
			waiting, err := p.to.ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption)
			return err == nil && waiting >= bufferDefault/4
		})
	}
	a, b := connect(t, gateway, node)
	mustCarry(t, a, b, 4<<20)
	for _, p := range pairs {
		p.from.SetWriteDeadline(time.Unix(1, 0)) // now
	}
	writing.Wait()
	for _, p := range pairs {
		p.from.CloseWrite()
		p.to.SetReadDeadline(time.Now().Add(patience))
		if n, err := io.Copy(io.Discard, p.to); int(n) != p.wrote || err != nil {
			t.Errorf("read %d bytes and %v, want the %d that were written", n, err, p.wrote)
		}
	}
}
