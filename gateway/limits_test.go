package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Unix(1e9, 0)

// reasonOf returns why a connection was refused, reasons if it was not.
func reasonOf(err error) Reason {
	var r refusal
	if errors.As(err, &r) {
		return r.reason
	}
	return reasons
}

// enterMany returns how many of n connections from addr are let in at now.
func enterMany(l *limiter, now time.Time, n int, addr string) (in int, why Reason) {
	why = reasons
	for range n {
		if v, err := l.enter(now, nil, netip.MustParseAddr(addr)); err == nil {
			in++
			l.leave(v)
		} else {
			why = reasonOf(err)
		}
	}
	return in, why
}

func TestSourceRate(t *testing.T) {
	l := newLimiter(Limits{}, nil)
	for _, step := range []struct {
		name string
		at   time.Duration
		addr string
		tries,
		want int
	}{
		{"burst", 0, "192.0.2.1", 150, 100},
		{"mapped, the same source", 0, "::ffff:192.0.2.1", 1, 0},
		{"another source", 0, "192.0.2.2", 150, 100},
		{"a second later", time.Second, "192.0.2.1", 150, 20},
		{"rested", time.Minute, "192.0.2.1", 150, 100},
		{"IPv6", 0, "2001:db8::1", 150, 100},
		{"IPv6, the same /64", 0, "2001:db8::ffff:1", 1, 0},
		{"IPv6, another /64", 0, "2001:db8:0:1::1", 150, 100},
	} {
		got, why := enterMany(l, epoch.Add(step.at), step.tries, step.addr)
		if got != step.want || why != SourceRate {
			t.Errorf("%s: got %d, %v; want %d", step.name, got, why, step.want)
		}
	}
	total := 0
	for i := range 100 { // a /48 has eight times the burst of a /64
		n, _ := enterMany(l, epoch, 100, fmt.Sprintf("2001:db8:7:%x::1", i))
		total += n
	}
	if total != 800 {
		t.Errorf("a /48: got %d, want 800", total)
	}
}

func TestSourceConns(t *testing.T) {
	l := newLimiter(Limits{SourceRate: -1, SourceConns: 3}, nil)
	addr := netip.MustParseAddr("192.0.2.1")
	var visits []*visit
	for range 3 {
		v, err := l.enter(epoch, nil, addr)
		if err != nil {
			t.Fatal(err)
		}
		visits = append(visits, v)
	}
	if _, err := l.enter(epoch, nil, addr); reasonOf(err) != SourceConns {
		t.Errorf("fourth: got %v, want %v", err, SourceConns)
	}
	if _, err := l.enter(epoch, nil, netip.MustParseAddr("192.0.2.2")); err != nil {
		t.Errorf("another source: got %v", err)
	}
	l.leave(visits[1])
	if _, err := l.enter(epoch, nil, addr); err != nil {
		t.Errorf("after one left: got %v", err)
	}
	in := 0
	for i := range 100 { // a /48 has eight times the connections of a /64
		if _, err := l.enter(epoch, nil, netip.MustParseAddr(fmt.Sprintf("2001:db8:7:%x::1", i))); err == nil {
			in++
		}
	}
	if in != 24 {
		t.Errorf("a /48: got %d, want 24", in)
	}
}

// TestUnlimited: negative limits are none.
func TestUnlimited(t *testing.T) {
	l := newLimiter(unlimited, nil)
	c, _ := memPipe(gatewayAddr, gatewayAddr)
	for i := range 5000 {
		v, err := l.enter(epoch, c, netip.MustParseAddr("2001:db8::1"))
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		l.beginHello(v)
		if err := l.beginDial(epoch, v, "acme"); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	if l.hellos.Len() != 5000 {
		t.Errorf("%d hellos pending, want 5000", l.hellos.Len())
	}
}

// TestSourcesAreBounded: as many sources as an attacker likes take bounded
// memory, and those that are over their rate or connected are kept longest.
func TestSourcesAreBounded(t *testing.T) {
	l := newLimiter(Limits{}, nil)
	connected, err := l.enter(epoch, nil, netip.MustParseAddr("192.0.2.1"))
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	var raw [16]byte
	copy(raw[:], "\x20\x01\x0d\xb8")
	for i := range 300_000 {
		raw[4], raw[5], raw[6] = byte(i), byte(i>>8), byte(i>>16)
		now := epoch.Add(time.Duration(i) * time.Millisecond)
		if i%1000 == 0 {
			enterMany(l, now, 1000, "198.51.100.7") // always over its rate
		}
		if v, err := l.enter(now, nil, netip.AddrFrom16(raw)); err != nil {
			t.Fatal(err)
		} else {
			l.leave(v)
		}
		most = max(most, len(l.sources))
	}
	if most > maxSources+2 {
		t.Errorf("up to %d sources, want at most %d", most, maxSources+2)
	}
	for _, addr := range []string{"192.0.2.1/32", "198.51.100.7/32"} {
		if l.sources[netip.MustParsePrefix(addr)] == nil {
			t.Errorf("source %s was forgotten", addr)
		}
	}
	l.leave(connected)
}

func TestTenantLimits(t *testing.T) {
	const coordinator = ""
	for _, tt := range []struct {
		name   string
		limits Limits
		tenant string
		want   int
		why    Reason
	}{
		{"rate", Limits{TenantDials: -1}, "acme", 100, TenantRate},
		{"burst", Limits{TenantDials: -1, TenantBurst: 7}, "acme", 7, TenantRate},
		{"dials", Limits{TenantRate: -1}, "acme", 64, TenantDials},
		{"conns", Limits{TenantRate: -1, TenantDials: -1}, "acme", 2000, TenantConns},
		{"coordinator's rate", Limits{TenantDials: -1}, coordinator, 800, TenantRate},
		{"coordinator's dials", Limits{TenantRate: -1}, coordinator, 512, TenantDials},
		{"coordinator's conns", Limits{TenantRate: -1, TenantDials: -1}, coordinator, 16000, TenantConns},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLimiter(tt.limits, nil)
			in, why := 0, reasons
			for range tt.want + 1000 {
				v := &visit{}
				if err := l.beginDial(epoch, v, tt.tenant); err != nil {
					why = reasonOf(err)
					var r refusal
					if errors.As(err, &r); r.alert != alertInternalError {
						t.Fatalf("got alert %d, want %d", r.alert, alertInternalError)
					}
					continue
				}
				in++
			}
			if in != tt.want || why != tt.why {
				t.Errorf("got %d, %v; want %d, %v", in, why, tt.want, tt.why)
			}
			if err := l.beginDial(epoch, &visit{}, "other"); err != nil {
				t.Errorf("another tenant: %v", err)
			}
		})
	}
}

func TestRetainTenants(t *testing.T) {
	l := newLimiter(Limits{}, nil)
	idle, busy := &visit{}, &visit{}
	for v, name := range map[*visit]string{idle: "idle", busy: "busy"} {
		if err := l.beginDial(epoch, v, name); err != nil {
			t.Fatal(err)
		}
	}
	l.leave(idle)
	l.retain(func(string) bool { return false })
	if l.tenants["idle"] != nil || l.tenants["busy"] == nil {
		t.Errorf("got %v, want only the tenant with a connection", l.tenants)
	}
}

// TestLimiterBalances: whatever connections do, in any order, when all have left
// nothing is counted any more, and no count is ever over its limit.
func TestLimiterBalances(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{SourceRate: -1, SourceConns: 4, SourceHellos: 2, Hellos: 5, TenantRate: -1, TenantConns: 4, TenantDials: 2}
		l := newLimiter(limits, nil)
		addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"),
			netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:0:1::1")}
		var in []*visit
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			op := rapid.IntRange(0, 4).Draw(t, "op")
			if op == 0 || len(in) == 0 {
				c, _ := memPipe(gatewayAddr, gatewayAddr)
				if v, err := l.enter(epoch, c, rapid.SampledFrom(addrs).Draw(t, "addr")); err == nil {
					in = append(in, v)
					l.beginHello(v)
				}
				continue
			}
			i := rapid.IntRange(0, len(in)-1).Draw(t, "visit")
			switch op {
			case 1:
				l.endHello(in[i])
			case 2:
				if in[i].tenant == nil {
					l.beginDial(epoch, in[i], rapid.SampledFrom([]string{"a", "b"}).Draw(t, "tenant"))
				}
			case 3:
				l.endDial(in[i])
			case 4:
				l.leave(in[i])
				in = append(in[:i], in[i+1:]...)
			}
			for key, s := range l.sources {
				if s.conns > 4*s.factor || s.hellos.Len() > 2*s.factor || s.conns < s.hellos.Len() {
					t.Fatalf("source %v: %d conns, %d hellos", key, s.conns, s.hellos.Len())
				}
			}
			for name, c := range l.tenants {
				if c.conns > 4 || c.dials > 2 || c.dials > c.conns || c.dials < 0 {
					t.Fatalf("tenant %s: %d conns, %d dials", name, c.conns, c.dials)
				}
			}
			if l.hellos.Len() > 5 {
				t.Fatalf("%d hellos pending", l.hellos.Len())
			}
		}
		for _, v := range in {
			l.leave(v)
		}
		for key, s := range l.sources {
			if s.conns != 0 || s.hellos.Len() != 0 {
				t.Fatalf("source %v: %d conns, %d hellos; want none", key, s.conns, s.hellos.Len())
			}
		}
		for name, c := range l.tenants {
			if c.conns != 0 || c.dials != 0 {
				t.Fatalf("tenant %s: %d conns, %d dials; want none", name, c.conns, c.dials)
			}
		}
	})
}

// TestRefusedAtTheDoor: who comes too often from one place is reset, and others
// are not.
func TestRefusedAtTheDoor(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits Limits
		want   int
		why    Reason
	}{
		{"rate", Limits{SourceHellos: -1}, 100, SourceRate},
		{"conns", Limits{SourceHellos: -1, SourceRate: -1}, 200, SourceConns},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{Limits: tt.limits}, mapOf(section("acme", "a.example", "fd00::1")))
				var conns []*memConn
				for range tt.want + 3 {
					conns = append(conns, w.client())
				}
				synctest.Wait()
				resets := 0
				for _, c := range conns {
					c.SetReadDeadline(time.Now().Add(time.Millisecond))
					if _, err := c.Read(make([]byte, 1)); errors.Is(err, syscall.ECONNRESET) {
						resets++
					}
				}
				if open := w.g.Stats().Open; resets != 3 || open != int64(tt.want) {
					t.Errorf("%d resets, %d open; want 3 and %d", resets, open, tt.want)
				}
				w.refused(tt.why, 3)
				w.say(helloFor("a.example"), "192.0.2.99:1")
				w.accept(w.node("fd00::1"))
			})
		})
	}
}

// TestHelloShed: when too many hellos are pending, the oldest go.
func TestHelloShed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits Limits
		src    string // format of the source of connection i
		why    Reason
	}{
		{"of one source", Limits{SourceHellos: 3}, "192.0.2.1:%d", SourceHellos},
		{"of all", Limits{Hellos: 3}, "192.0.2.%d:1", HelloShed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{Limits: tt.limits}, mapOf(section("acme", "a.example", "fd00::1")))
				hello := helloFor("a.example")
				var slow []*memConn
				for i := range 5 {
					slow = append(slow, w.say(hello[:9], fmt.Sprintf(tt.src, i+1)))
					synctest.Wait()
				}
				for i, c := range slow {
					if i < 2 {
						if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
							t.Errorf("connection %d: got %v, want a reset", i, err)
						}
						continue
					}
					c.Write(hello[9:])
					node, _ := w.accept(w.node("fd00::1"))
					w.expect(node, string(hello))
				}
				w.refused(tt.why, 2)
			})
		})
	}
}

// TestTenantOverLimit: one tenant's clients get 80 after a moment; another's
// connections are as before.
func TestTenantOverLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{Limits: Limits{TenantConns: 2}},
			mapOf(section("acme", "a.example", "fd00::1"), section("other", "b.example", "fd00::2")))
		first := w.say(helloFor("a.example"))
		node, _ := w.accept(w.node("fd00::1"))
		w.expect(node, string(helloFor("a.example")))
		w.say(helloFor("a.example"))
		w.accept(w.node("fd00::1"))
		start := time.Now()
		third := w.say(helloFor("a.example"))
		if got, _ := readAll(third); got != fatal(80) {
			t.Errorf("got %q, want alert 80", got)
		}
		if took := time.Since(start); took < 50*time.Millisecond || took > 300*time.Millisecond {
			t.Errorf("refused after %v, want 50 ms to 300 ms", took)
		}
		w.refused(TenantConns, 1)
		w.say(helloFor("b.example"))
		w.accept(w.node("fd00::2"))

		first.Close()
		node.Close()
		synctest.Wait()
		w.say(helloFor("a.example"))
		w.accept(w.node("fd00::1"))
	})
}

// TestTenantDials: an offline node's waiting clients are bounded.
func TestTenantDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{Limits: Limits{TenantDials: 3}}, mapOf(section("acme", "a.example", "fd00::1")))
		w.node("fd00::1").down = true
		var got []string
		for range 4 {
			c := w.say(helloFor("a.example"))
			synctest.Wait()
			c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			b, _ := readAll(c)
			got = append(got, b)
			c.Close()
		}
		if strings.Join(got, "") != fatal(80) {
			t.Errorf("within the hold: got %q, want one alert, at the fourth", got)
		}
		w.refused(TenantDials, 1)
	})
}

// TestRoom: more connections than there is room for wait to be accepted.
func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{Limits: Limits{Conns: 2}}, mapOf(section("acme", "a.example", "fd00::1")))
		var nodes []io.Closer
		first := w.say(helloFor("a.example"))
		n, _ := w.accept(w.node("fd00::1"))
		nodes = append(nodes, n)
		w.say(helloFor("a.example"))
		w.accept(w.node("fd00::1"))
		w.say(helloFor("a.example"))
		synctest.Wait()
		if s := w.g.Stats(); s.Accepted != 2 || len(w.ln.conns) != 1 {
			t.Errorf("%d accepted, %d waiting; want 2 and 1", s.Accepted, len(w.ln.conns))
		}
		first.Close()
		nodes[0].Close()
		w.accept(w.node("fd00::1"))
	})
}
