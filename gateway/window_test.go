package gateway

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"postern"
)

// TestWindowSlides: a source stays admitted while it has a connection, and a while
// after its last.
func TestWindowSlides(t *testing.T) {
	hello := helloFor("a.example")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{}, mapOf(admitting(acme, "admission", nil, listed("192.0.2.1/32", 15*time.Minute), listed("192.0.2.2/32", 15*time.Minute))))
		c, node := w.reaches(hello, "192.0.2.1:1")
		<-time.After(16 * time.Minute)
		w.g.SetRoutes(NewTable(mapOf(admitting(acme, "admission", nil))))
		w.denied(hello, "192.0.2.2:1") // was never here
		w.talk(c, node)
		d, other := w.reaches(hello, "192.0.2.1:2")
		c.Close()
		node.Close()
		<-time.After(time.Hour)
		w.talk(d, other)
		d.Close()
		other.Close()
		<-time.After(14 * time.Minute)
		c, node = w.reaches(hello, "192.0.2.1:3")
		c.Close()
		node.Close()
		<-time.After(15 * time.Minute)
		w.denied(hello, "192.0.2.1:4")
		<-time.After(time.Minute)
		if n := len(w.g.flows.windows); n > 0 {
			t.Errorf("%d windows are remembered that are closed", n)
		}
	})
}

// TestWindowEnds: nobody stays for ever whom the map does not have any more.
func TestWindowEnds(t *testing.T) {
	hello := helloFor("a.example")
	for _, tt := range []struct {
		name   string
		coming bool // the coordinator goes on to send maps
	}{{"without a coordinator", false}, {"with one", true}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{}, mapOf(admitting(acme, "admission", nil, listed("192.0.2.1/32", 15*time.Minute))))
				c, node := w.reaches(hello, "192.0.2.1:1")
				for range 12 * 4 {
					<-time.After(15 * time.Minute)
					if tt.coming {
						w.g.SetRoutes(NewTable(mapOf(admitting(acme, "admission", nil))))
					}
					w.talk(c, node)
				}
				<-time.After(16 * time.Minute) // the first quarter of an hour counts for nothing
				w.closed(c, node)
				w.denied(hello, "192.0.2.1:2")
			})
		})
	}
}

// TestWindowRenewed: who is at the portal now and then stays.
func TestWindowRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{}, mapOf(admitting(acme, "admission", nil, listed("192.0.2.1/32", 15*time.Minute))))
		c, node := w.reaches(helloFor("a.example"), "192.0.2.1:1")
		for range 8 {
			<-time.After(11 * time.Hour)
			w.talk(c, node)
			w.g.SetRoutes(NewTable(mapOf(admitting(acme, "admission", nil, listed("192.0.2.1/32", 15*time.Minute)))))
		}
	})
}

// TestNoWindow: what passes for another reason opens nothing.
func TestNoWindow(t *testing.T) {
	for _, tt := range []struct {
		name   string
		hello  []byte
		before postern.Section
	}{
		{"a challenge", offering("acme-tls/1"), admitting(acme, "admission", nil)},
		{"an allowed prefix", helloFor("a.example"), admitting(acme, "admission", []string{"192.0.2.0/24"})},
		{"an open door", helloFor("a.example"), acme},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{}, mapOf(tt.before))
				c, node := w.reaches(tt.hello, "192.0.2.1:1")
				w.g.SetRoutes(NewTable(mapOf(admitting(acme, "admission", nil))))
				w.denied(helloFor("a.example"), "192.0.2.1:2")
				if tt.name == "a challenge" {
					w.talk(c, node)
				} else {
					w.closed(c, node)
				}
			})
		})
	}
	t.Run("another tenant", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			other := admitting(section("other", "b.example", "fd00::2"), "admission", nil, listed("192.0.2.1/32", time.Minute))
			w := newWorld(t, Config{}, mapOf(admitting(acme, "admission", nil), other))
			w.say(helloFor("b.example"), "192.0.2.1:1")
			w.accept(w.node("fd00::2"))
			synctest.Wait() // until it is counted
			w.denied(helloFor("a.example"), "192.0.2.1:2")
		})
	})
}

// TestWindowAfterChange: a connection from before a tenant began to ask the portal
// keeps its source's window open like any other.
func TestWindowAfterChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{}, mapOf(acme))
		c, node := w.reaches(helloFor("a.example"), "192.0.2.1:1")
		for range 2 {
			w.g.SetRoutes(NewTable(mapOf(admitting(acme, "admission", nil, listed("192.0.2.1/32", time.Minute)))))
			<-time.After(2 * time.Minute)
			w.g.SetRoutes(NewTable(mapOf(admitting(acme, "admission", nil))))
			w.talk(c, node)
			w.g.SetRoutes(NewTable(mapOf(acme)))
		}
	})
}

// TestWindowsAreBounded: connections of as many sources as there may be take
// bounded memory, and give it back.
func TestWindowsAreBounded(t *testing.T) {
	start := time.Now()
	var sources []postern.Source
	var all []*flow
	for i := range maxWindows + 1000 {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		sources = append(sources, postern.Source{Prefix: netip.PrefixFrom(addr, 32), Until: start.Add(postern.AdmissionWindow)})
		all = append(all, &flow{hello: hello{name: "a.example"}, tenant: "acme", src: addr, node: Node{"fd00::1", addr443("fd00::1")}})
	}
	table := NewTable(mapOf(admitting(acme, "admission", nil, sources...)))
	var fs flows
	for _, f := range all {
		if err := fs.allow(table, f, start); err != nil {
			t.Fatal(err)
		}
	}
	if len(fs.windows) != maxWindows {
		t.Errorf("%d windows, want %d", len(fs.windows), maxWindows)
	}
	for _, f := range all {
		fs.remove(f, start)
	}
	fs.settleWindows(NewTable(mapOf(admitting(acme, "admission", nil))), start.Add(postern.AdmissionWindow))
	if len(fs.windows) > 0 {
		t.Errorf("%d windows are left", len(fs.windows))
	}
}
