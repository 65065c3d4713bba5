package netstack

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// A narrow line loses datagrams that are longer than it carries, without a word.
type narrow struct {
	most atomic.Int64 // bytes; 0: any
	lost atomic.Int64
}

// before returns send behind the line.
func (n *narrow) before(send func([][]byte)) func([][]byte) {
	return func(datagrams [][]byte) {
		most := int(n.most.Load())
		pass := slices.DeleteFunc(slices.Clone(datagrams), func(b []byte) bool { return most > 0 && len(b) > most })
		n.lost.Add(int64(len(datagrams) - len(pass)))
		send(pass)
	}
}

// The path carries less all at once while bytes go both ways: nothing long arrives until
// one end says so, and then all does, on the connections that are open.
func TestPathMTUShrinks(t *testing.T) {
	for _, hide := range []bool{false, true} {
		t.Run(fmt.Sprintf("hide loss %t", hide), func(t *testing.T) {
			const size, mtu = 8 << 20, 1328
			node, gateway := &host{private: newPrivateKey(t)}, &host{private: newPrivateKey(t)}
			node.start(t, Config{Address: overlay(1), HideLoss: hide, FixedEndpoints: true})
			gateway.start(t, Config{Address: overlay(2), HideLoss: hide})
			hosts, lines := [2]*host{node, gateway}, [2]*narrow{{}, {}}
			meet(t, node, gateway)
			r := newRelays(t, node, gateway)
			r.a.send, r.b.send = lines[0].before(r.a.send), lines[1].before(r.b.send)
			if err := node.SetRelayed(gateway.key, true); err != nil {
				t.Fatal(err)
			}
			a, b := connect(t, gateway, node)
			want := make([]byte, size)
			rand.Read(want)
			var done sync.WaitGroup
			for _, ends := range [][2]*tcpConn{{a, b}, {b, a}} {
				done.Go(func() {
					if _, err := ends[0].Write(want); err != nil {
						t.Error(err)
					}
				})
				done.Go(func() {
					got := make([]byte, size)
					if _, err := io.ReadFull(ends[1], got[:size/4]); err != nil {
						t.Error(err)
					}
					for _, l := range lines {
						l.most.CompareAndSwap(0, mtu+Overhead)
					}
					if _, err := io.ReadFull(ends[1], got[size/4:]); err != nil || !bytes.Equal(got, want) {
						t.Errorf("got other bytes than were sent: %v", err)
					}
				})
			}
			before := node.Timeouts()
			for i, h := range hosts {
				eventually(t, "silence", func() bool { return lines[i].lost.Load() > 0 && h.Timeouts() > before })
			}
			if err := node.SetPathMTU(gateway.address, mtu+7); err != nil {
				t.Fatal(err)
			}
			within(t, "the rest", func() error { done.Wait(); return nil })
			for _, h := range hosts {
				if got := h.status1(t).MTU; got != mtu {
					t.Errorf("packets are %d bytes long at most, want %d", got, mtu)
				}
			}
		})
	}
}

// The node has the say for both ends, up and down, within bounds, and for as long as the
// peer is one.
func TestSetPathMTU(t *testing.T) {
	node, gateway := newPair(t)
	for _, v := range []struct{ set, want int }{{1300, 1296}, {1408, 1408}, {0, MinPathMTU}, {1419, 1408}, {9000, defaultMTU}, {1280, 1280}} {
		if err := node.SetPathMTU(gateway.address, v.set); err != nil {
			t.Fatal(err)
		}
		eventually(t, fmt.Sprint("a path of ", v.set), func() bool {
			return node.status1(t).MTU == v.want && gateway.status1(t).MTU == v.want
		})
	}
	if err := node.SetPathMTU(overlay(9), 1300); err == nil {
		t.Error("a path to who is no peer")
	}
	gateway.mustSetPeers(t)
	gateway.mustSetPeers(t, node.hidden())
	if got := gateway.status1(t).MTU; got != defaultMTU {
		t.Errorf("a new peer begins with %d bytes", got)
	}
}

// What a peer says of the path bounds what it is sent, and nothing else.
func FuzzTooBig(f *testing.F) {
	own, peer := overlay(1).As16(), overlay(2).As16()
	f.Add(tooBig(peer, own, 1300))
	f.Add(tooBig(peer, peer, 1300))
	f.Add(tooBig(peer, own, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := newLink(overlay(1), defaultMTU)
		heeded := l.heed(b)
		if heeded && l.admits(b) {
			t.Error("the host is to see it, too")
		}
		got := l.pathMTUs.to(peer, l.mtu)
		if got < MinPathMTU || got > defaultMTU || got != defaultMTU && !heeded {
			t.Errorf("packets of %d bytes, heeded %t", got, heeded)
		}
		for to := range l.pathMTUs.byPeer {
			if to != [16]byte(b[8:24]) {
				t.Errorf("it concerns %v, too", to)
			}
		}
	})
}
