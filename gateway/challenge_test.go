package gateway

import (
	"testing"
	"testing/synctest"
	"time"

	"postern"
)

// challenging returns a route to two nodes of which the second awaits a certificate
// authority, admitted to nobody else if closed.
func challenging(closed bool) postern.Map {
	s := section("acme", "a.example", "fd00::1", "fd00::2")
	s.Routes[0].Challenge = "fd00::2"
	if closed {
		s = admitting(s, postern.AdmissionList, nil)
	}
	return mapOf(s)
}

// An authority's handshake goes to the node that awaits it, past any admission, and
// everybody else's to where they went before.
func TestChallenge(t *testing.T) {
	const first, second = "fd00::1", "fd00::2"
	none := mapOf(section("acme", "a.example", first, second))
	for _, tt := range []struct {
		name  string
		m     postern.Map
		hello []byte
		want  string // node; "": it is refused
	}{
		{"an authority", challenging(false), offering("acme-tls/1"), second},
		{"an authority, closed to others", challenging(true), offering("acme-tls/1"), second},
		{"an authority that nobody awaits", none, offering("acme-tls/1"), first},
		{"a browser", challenging(false), offering("h2", "http/1.1"), first},
		{"without ALPN", challenging(false), helloFor("a.example"), first},
		{"acme-tls/1 among others", challenging(false), offering("acme-tls/1", "h2"), first},
		{"acme-tls/1 among others, closed", challenging(true), offering("h2", "acme-tls/1"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{}, tt.m)
				c := w.say(tt.hello)
				synctest.Wait()
				for _, addr := range []string{first, second} {
					if got := len(w.node(addr).conns); (got == 1) != (addr == tt.want) {
						t.Errorf("%d connections reached %s", got, addr)
					}
				}
				if tt.want == "" {
					if got, err := readAll(c); got != fatal(49) || err != nil {
						t.Errorf("got %q, %v; want alert 49", got, err)
					}
					return
				}
				n, _ := w.accept(w.node(tt.want))
				w.expect(n, string(tt.hello))
				w.talk(c, n)
			})
		})
	}
}

// Nobody else is asked in place of the node that awaits the authority.
func TestChallengeOfSilentNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{}, challenging(false))
		w.node("fd00::2").down = true
		start := time.Now()
		c := w.say(offering("acme-tls/1"))
		c.SetReadDeadline(start.Add(time.Minute))
		if got, err := readAll(c); got != fatal(80) || err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("got %q, %v after %v; want alert 80 after 3 s", got, err, time.Since(start))
		}
		if got := w.node("fd00::1").timesDialed(); got > 0 {
			t.Errorf("the other node was dialed %d times", got)
		}
		w.refused(Offline, 1)
	})
}

// The map counts as it is when a node is dialed: who awaits it by then gets the handshake.
func TestChallengeMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{}, challenging(false))
		w.remove("fd00::2")
		c := w.say(offering("acme-tls/1"))
		<-time.After(time.Second)
		if got := w.node("fd00::1").timesDialed(); got > 0 {
			t.Errorf("the other node was dialed %d times before", got)
		}
		moved := challenging(false)
		moved.Sections["acme"].Routes[0].Challenge = "fd00::1"
		w.g.SetRoutes(NewTable(moved))
		n, _ := w.accept(w.node("fd00::1"))
		w.expect(n, string(offering("acme-tls/1")))
		w.talk(c, n)
	})
}

// A connection that was dialed ahead is used for an authority if it leads to the right
// node, and only then.
func TestChallengeOnASpare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := spareWorld(t, "fd00::1", "fd00::2")
		first, second := w.node("fd00::1"), w.node("fd00::2")
		spares := w.stock(first, 2)
		w.g.SetRoutes(NewTable(challenging(false)))
		c := w.say(offering("acme-tls/1"))
		n, _ := w.accept(second)
		w.expect(n, string(offering("acme-tls/1")))
		w.talk(c, n)
		if one, _ := used(spares); one != nil {
			t.Error("the hello went to the other node on a spare")
		}
	})
}
