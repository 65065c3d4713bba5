package dnscheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postern/internal/dnscheck/dnstest"
)

func TestNew(t *testing.T) {
	tests := []struct{ server, want string }{
		{"192.0.2.1", "192.0.2.1:53"},
		{"192.0.2.1:5353", "192.0.2.1:5353"},
		{"2001:db8::1", "[2001:db8::1]:53"},
		{"[2001:db8::1]:5353", "[2001:db8::1]:5353"},
		{"fe80::1%eth0", "[fe80::1%eth0]:53"},
		{"dns.example", ""},
		{"192.0.2.1:0", ""},
		{"192.0.2.1:", ""},
		{"192.0.2.1:99999", ""},
		{"[2001:db8::1]", ""},
		{" ", ""},
	}
	for _, tt := range tests {
		t.Run(tt.server, func(t *testing.T) {
			r, err := New(tt.server)
			if tt.want == "" {
				if err == nil {
					t.Fatal("New takes it")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			servers, err := r.servers()
			if got := fmt.Sprint(servers); err != nil || got != "["+tt.want+"]" {
				t.Errorf("servers = %v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

const wellKnown = `
_postern-challenge.erp.acme.example. TXT "postern=" "s3cret"
_postern-challenge.erp.acme.example. TXT "a \"quoted\" \\ text; \200"
www.acme.example.   A     192.0.2.1
www.acme.example.   A     192.0.2.2
www.acme.example.   AAAA  2001:db8::1
erp.acme.example.   CNAME two.acme.example.
two.acme.example.   CNAME WWW.acme.Example.
mapped.acme.example. AAAA ::ffff:192.0.2.1
nowhere.acme.example. CNAME gone.other.example.
empty.acme.example. CNAME only.txt.example.
only.txt.example.   TXT   "x"
`

func TestTXT(t *testing.T) {
	_, r := newServer(t, wellKnown)
	for _, name := range []string{"_postern-challenge.erp.acme.example", "_Postern-Challenge.ERP.acme.example."} {
		got, err := r.TXT(t.Context(), name)
		want := []string{"postern=s3cret", "a \"quoted\" \\ text; \xc8"}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("TXT(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"", ".", "a..example", "_a b.example", "_" + strings.Repeat("a", 63) + ".example", "192.0.2.1", "_x.192.0.2.1", "_a." + strings.Repeat("abc.", 63) + "example"} {
		if got, err := r.TXT(t.Context(), name); err == nil {
			t.Errorf("TXT(%q) = %q", name, got)
		}
	}
}

func TestAddresses(t *testing.T) {
	tests := []struct{ name, addrs, via, err string }{
		{"www.acme.example", "192.0.2.1 192.0.2.2 2001:db8::1", "", ""},
		{"ERP.acme.example.", "192.0.2.1 192.0.2.2 2001:db8::1", "two.acme.example www.acme.example", ""},
		{"mapped.acme.example", "::ffff:192.0.2.1", "", ""},
		{"nowhere.acme.example", "", "gone.other.example", "gone.other.example, which nowhere.acme.example is an alias of, has no address"},
		{"empty.acme.example", "", "only.txt.example", "only.txt.example, which empty.acme.example is an alias of, has no address"},
		{"none.acme.example", "", "", "none.acme.example has no address"},
	}
	for _, shy := range []bool{false, true} {
		server, r := newServer(t, wellKnown)
		if shy {
			server.Lie(dnstest.Shy)
		}
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s/shy=%v", tt.name, shy), func(t *testing.T) {
				got, err := r.Addresses(t.Context(), tt.name)
				if addrs := join(got.Addrs); addrs != tt.addrs {
					t.Errorf("addresses %v, want %v", addrs, tt.addrs)
				}
				if via := strings.Join(got.Via, " "); via != tt.via {
					t.Errorf("via %v, want %v", via, tt.via)
				}
				if tt.err == "" && err != nil || tt.err != "" && (!errors.Is(err, ErrNone) || err.Error() != tt.err) {
					t.Errorf("error %v, want %v", err, tt.err)
				}
			})
		}
	}
}

func join[T fmt.Stringer](list []T) string {
	var words []string
	for _, x := range list {
		words = append(words, x.String())
	}
	return strings.Join(words, " ")
}

// One family's failure does not hide the other's addresses, and is told if
// there are none.
func TestAddressesOneFamilyFails(t *testing.T) {
	server, r := newServer(t, "both.example. A 192.0.2.1\nonly6.example. AAAA 2001:db8::1\n")
	server.Lie(func(q dns.Question, _ bool, honest *dns.Msg) *dns.Msg {
		if q.Qtype == dns.TypeAAAA {
			honest.Rcode, honest.Answer = dns.RcodeServerFailure, nil
		}
		return honest
	})
	if got, err := r.Addresses(t.Context(), "both.example"); err != nil || join(got.Addrs) != "192.0.2.1" {
		t.Errorf("Addresses = %v, %v", got, err)
	}
	_, err := r.Addresses(t.Context(), "only6.example")
	if want := "answered SERVFAIL for AAAA of only6.example"; err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, ErrNone) {
		t.Errorf("error %v, want %q in it", err, want)
	}
}

// The answers that are none are told apart, in words.
func TestNone(t *testing.T) {
	server, r := newServer(t, wellKnown)
	tests := []struct{ name, want string }{
		{"www.acme.example", "www.acme.example has no TXT record, says DNS server %s"},
		{"acme.example", "acme.example has no TXT record, says DNS server %s"}, // an empty non-terminal
		{"gone.acme.example", "gone.acme.example does not exist, says DNS server %s (NXDOMAIN)"},
		{"nowhere.acme.example", "gone.other.example, which nowhere.acme.example is an alias of, does not exist, says DNS server %s (NXDOMAIN)"},
		{"erp.acme.example", "www.acme.example, which erp.acme.example is an alias of, has no TXT record, says DNS server %s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := r.TXT(t.Context(), tt.name)
			if want := fmt.Sprintf(tt.want, server.Addr); !errors.Is(err, ErrNone) || err.Error() != want {
				t.Errorf("TXT = %q, %v; want %v", got, err, want)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	ede := func(q dns.Question, _ bool, honest *dns.Msg) *dns.Msg {
		honest.Rcode, honest.Answer = dns.RcodeServerFailure, nil
		honest.SetEdns0(1232, false)
		honest.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus, ExtraText: "no \xff key"}}
		return honest
	}
	header := func(code int) dnstest.Lie {
		return func(q dns.Question, _ bool, honest *dns.Msg) *dns.Msg {
			honest.Rcode, honest.Answer, honest.Question = code, nil, nil
			return honest
		}
	}
	tests := []struct {
		name string
		lie  dnstest.Lie
		want string
	}{
		{"SERVFAIL", dnstest.Fail("a.example", dns.RcodeServerFailure), "DNS server %s answered SERVFAIL for TXT of a.example"},
		{"REFUSED", dnstest.Fail("a.example", dns.RcodeRefused), "DNS server %s answered REFUSED for TXT of a.example"},
		{"bare REFUSED", header(dns.RcodeRefused), "DNS server %s answered REFUSED for TXT of a.example"},
		{"unheard of", dnstest.Fail("a.example", 15), "DNS server %s answered RCODE 15 for TXT of a.example"},
		{"DNSSEC", ede, `DNS server %s answered SERVFAIL for TXT of a.example (DNSSEC Bogus: no \255 key)`},
		{"silent", dnstest.Silent, "DNS server %s did not answer for TXT of a.example within 50ms"},
		{"bare NXDOMAIN", header(dns.RcodeNameError), "DNS server %s did not answer for TXT of a.example within 50ms"},
		{"another id", change(func(m *dns.Msg) { m.Id++ }), "DNS server %s did not answer for TXT of a.example within 50ms"},
		{"a question", change(func(m *dns.Msg) { m.Response = false }), "DNS server %s did not answer for TXT of a.example within 50ms"},
		{"another name", change(func(m *dns.Msg) { m.Question[0].Name = "b.example." }), "DNS server %s did not answer for TXT of a.example within 50ms"},
		{"another type", change(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeA }), "DNS server %s did not answer for TXT of a.example within 50ms"},
		{"another class", change(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), "DNS server %s did not answer for TXT of a.example within 50ms"},
		{"cut short over TCP", change(func(m *dns.Msg) { m.Truncated = true }), "ask DNS server %s for TXT of a.example: the answer is cut short, even over TCP"},
		{"another id over TCP", func(q dns.Question, tcp bool, m *dns.Msg) *dns.Msg {
			m = dnstest.Truncate(q, tcp, m)
			if tcp {
				m.Id++
			}
			return m
		}, "ask DNS server %s for TXT of a.example: what came is no answer to the question"},
		{"another name over TCP", func(q dns.Question, tcp bool, m *dns.Msg) *dns.Msg {
			m = dnstest.Truncate(q, tcp, m)
			if tcp {
				m.Question[0].Name = "b.example."
			}
			return m
		}, "ask DNS server %s for TXT of a.example: what came answers another question"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server, r := newServer(t, `a.example. TXT "x"`)
			server.Lie(tt.lie)
			if strings.Contains(tt.want, "within 50ms") {
				r = impatient(r)
			}
			got, err := r.TXT(t.Context(), "a.example")
			if want := fmt.Sprintf(tt.want, server.Addr); err == nil || err.Error() != want || errors.Is(err, ErrNone) {
				t.Errorf("TXT = %q, %v; want %v", got, err, want)
			}
		})
	}
}

// change is a lie that changes every answer.
func change(f func(*dns.Msg)) dnstest.Lie {
	return func(_ dns.Question, _ bool, m *dns.Msg) *dns.Msg { f(m); return m }
}

// One failure is not the end: the server is asked again, and the next one too.
func TestRetry(t *testing.T) {
	for _, failure := range []struct {
		name string
		lie  dnstest.Lie
	}{
		{"SERVFAIL", dnstest.Fail("a.example", dns.RcodeServerFailure)},
		{"REFUSED", dnstest.Fail("a.example", dns.RcodeRefused)},
		{"silent", dnstest.Silent},
	} {
		t.Run(failure.name+" once", func(t *testing.T) {
			server, r := newServer(t, `a.example. TXT "x"`)
			var n atomic.Int32
			server.Lie(func(q dns.Question, tcp bool, honest *dns.Msg) *dns.Msg {
				if n.Add(1) == 1 {
					return failure.lie(q, tcp, honest)
				}
				return honest
			})
			if failure.name == "silent" {
				r = impatient(r)
				r.timeout *= 4 // enough for the honest answer on a busy machine
			}
			got, err := r.TXT(t.Context(), "a.example")
			if err != nil || !slices.Equal(got, []string{"x"}) {
				t.Errorf("TXT = %q, %v", got, err)
			}
		})
		t.Run(failure.name+" at the first server", func(t *testing.T) {
			bad, _ := newServer(t, "")
			bad.Lie(failure.lie)
			good, _ := newServer(t, `a.example. TXT "x"`)
			r := both(bad, good)
			r.timeout = 200 * time.Millisecond
			got, err := r.TXT(t.Context(), "a.example")
			if err != nil || !slices.Equal(got, []string{"x"}) {
				t.Errorf("TXT = %q, %v", got, err)
			}
			if n := len(bad.Queries()); n == 0 {
				t.Error("the first server was not asked")
			}
		})
	}
	t.Run("a no is an answer", func(t *testing.T) {
		first, _ := newServer(t, "")
		second, _ := newServer(t, `a.example. TXT "x"`)
		if got, err := both(first, second).TXT(t.Context(), "a.example"); !errors.Is(err, ErrNone) {
			t.Errorf("TXT = %q, %v", got, err)
		}
	})
	t.Run("all fail", func(t *testing.T) {
		first, _ := newServer(t, "")
		first.Lie(dnstest.Fail("a.example", dns.RcodeRefused))
		second, _ := newServer(t, "")
		second.Lie(dnstest.Fail("a.example", dns.RcodeServerFailure))
		_, err := both(first, second).TXT(t.Context(), "a.example")
		want := fmt.Sprintf("DNS server %s answered REFUSED for TXT of a.example; DNS server %s answered SERVFAIL for TXT of a.example", first.Addr, second.Addr)
		if err == nil || err.Error() != want {
			t.Errorf("error %v, want %v", err, want)
		}
		if got := len(first.Queries()); got != rounds {
			t.Errorf("the first was asked %d times, want %d", got, rounds)
		}
	})
}

func both(a, b *dnstest.Server) *Resolver {
	servers := []netip.AddrPort{netip.MustParseAddrPort(a.Addr), netip.MustParseAddrPort(b.Addr)}
	return &Resolver{servers: func() ([]netip.AddrPort, error) { return servers, nil }, timeout: tryTimeout}
}

// The context ends a lookup while a server is silent.
func TestCancel(t *testing.T) {
	server, r := newServer(t, "")
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("nobody waits any more")
	server.Lie(func(dns.Question, bool, *dns.Msg) *dns.Msg {
		cancel(gone)
		return nil
	})
	r.timeout = lookupTimeout * 10
	_, err := r.CAA(ctx, "a.example")
	if !errors.Is(err, gone) {
		t.Errorf("error %v, want %v", err, gone)
	}
}

// No server at all is told at once where the system tells.
func TestNobodyListens(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := pc.LocalAddr().String()
	pc.Close()
	r, err := New(addr)
	if err != nil {
		t.Fatal(err)
	}
	_, err = impatient(r).TXT(t.Context(), "a.example")
	if err == nil || !strings.Contains(err.Error(), "DNS server "+addr) {
		t.Errorf("error %v, want the server in it", err)
	}
}

// What is no DNS at all does not keep the answer behind it from being read.
func TestJunkBeforeAnswer(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			t.Error(err)
			return
		}
		query := new(dns.Msg)
		if err := query.Unpack(buf[:n]); err != nil {
			t.Error(err)
			return
		}
		if opt := query.IsEdns0(); !query.RecursionDesired || opt == nil || opt.UDPSize() != 1232 {
			t.Errorf("the question is %v", query)
		}
		answer := new(dns.Msg).SetReply(query)
		rr, _ := dns.NewRR(`a.example. 60 IN TXT "x"`)
		answer.Answer = []dns.RR{rr}
		wire, _ := answer.Pack()
		forged := slices.Clone(wire)
		forged[0]++
		for _, b := range [][]byte{{1}, []byte("this is no DNS at all"), wire[:len(wire)-1], forged, wire} {
			pc.WriteTo(b, from)
		}
	}()
	r, err := New(pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.TXT(t.Context(), "a.example")
	if err != nil || !slices.Equal(got, []string{"x"}) {
		t.Errorf("TXT = %q, %v", got, err)
	}
	pc.Close()
	<-done
}
