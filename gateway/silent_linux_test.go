package gateway

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestSaysSilent(t *testing.T) {
	const long, short = 61_000, 59_000 // ms
	for _, tt := range []struct {
		name string
		info unix.TCPInfo
		want bool
	}{
		{"idle for long", unix.TCPInfo{Last_ack_recv: long}, false},
		{"something on its way", unix.TCPInfo{Last_ack_recv: short, Unacked: 3, Retransmits: 4}, false},
		{"something on its way for long", unix.TCPInfo{Last_ack_recv: long, Last_data_recv: long, Unacked: 3, Retransmits: 7}, true},
		{"uploads for long, and gets an answer", unix.TCPInfo{Last_ack_recv: long, Last_data_recv: short, Unacked: 1}, false},
		{"paused, and answers probes", unix.TCPInfo{Last_ack_recv: 2 * long, Notsent_bytes: 1 << 20, Probes: 1}, false},
		{"paused, and gone", unix.TCPInfo{Last_ack_recv: 2 * long, Last_data_recv: 2 * long, Notsent_bytes: 1 << 20, Probes: 3}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := saysSilent(&tt.info); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// TestHarden: the kernel asks after an idle client, and a client that reads nothing is
// not taken for gone.
func TestHarden(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	harden(c)
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for option, want := range map[int]int{unix.TCP_KEEPIDLE: 30, unix.TCP_KEEPINTVL: 30, unix.TCP_KEEPCNT: 3} {
			if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option); got != want || err != nil {
				t.Errorf("option %d: got %d, %v; want %d", option, got, err, want)
			}
		}
	})
	c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for err == nil {
		_, err = c.Write(make([]byte, 1<<20))
	}
	if isSilent(raw) {
		t.Error("a client that reads nothing is taken for gone")
	}
}

// TestEndIf: a flow that is ended says why, and its client gets nothing that was left.
func TestEndIf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cut []string
		w := newWorld(t, Config{Access: func(a Access) { cut = append(cut, a.Cut) }}, mapOf(section("acme", "a.example", "fd00::1")))
		gone := w.say(helloFor("a.example"))
		w.accept(w.node("fd00::1"))
		synctest.Wait()
		if n := w.g.flows.endIf(errClientGone, func(*flow) bool { return false }); n != 0 {
			t.Errorf("ended %d, want none", n)
		}
		if n := w.g.flows.endIf(errClientGone, func(*flow) bool { return true }); n != 1 {
			t.Errorf("ended %d, want 1", n)
		}
		synctest.Wait()
		if _, err := readAll(gone); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the client got %v, want a reset", err)
		}
		if len(cut) != 1 || cut[0] != errClientGone.Error() {
			t.Errorf("the access log says %q", cut)
		}
		w.g.endSilent(context.Background()) // of conns that tell nothing, none
	})
}
