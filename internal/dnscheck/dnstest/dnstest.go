// Package dnstest is a DNS server for tests, on loopback, that can be told to lie.
package dnstest

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// A Server answers as a recursive resolver does that knows one zone file: it
// follows aliases, tells a name that does not exist from one without records,
// and knows wildcards. It is safe for concurrent use.
type Server struct {
	Addr string // "127.0.0.1:port", over UDP and TCP

	mu      sync.Mutex
	records []dns.RR
	lie     Lie
	queries []string
}

// A Lie returns what to answer to q in place of honest, which is its to change.
// If nil nothing is answered. It may be called from several goroutines at once.
type Lie func(q dns.Question, tcp bool, honest *dns.Msg) *dns.Msg

// New starts a server of zone, records as in a zone file with absolute names;
// no SOA is needed. It stops when the test ends.
func New(t testing.TB, zone string) *Server {
	t.Helper()
	s := new(Server)
	s.SetZone(t, zone)
	pc, ln := listen(t)
	s.Addr = ln.Addr().String()
	servers := []*dns.Server{{PacketConn: pc, Handler: s.handler(false)}, {Listener: ln, Handler: s.handler(true)}}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		for _, server := range servers {
			server.Shutdown()
		}
		wg.Wait()
	})
	for _, server := range servers {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		wg.Go(func() {
			if err := server.ActivateAndServe(); err != nil {
				t.Errorf("DNS server: %v", err)
			}
		})
		<-started
	}
	return s
}

// listen takes one port for both UDP and TCP.
func listen(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", ln.Addr().String())
		if err == nil {
			return pc, ln
		}
		ln.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

// SetZone replaces all records.
func (s *Server) SetZone(t testing.TB, zone string) {
	t.Helper()
	p := dns.NewZoneParser(strings.NewReader(zone), ".", "zone")
	p.SetDefaultTTL(60)
	var records []dns.RR
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		records = append(records, rr)
	}
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = records
}

// Lie makes the server answer by lie; if nil, honestly again.
func (s *Server) Lie(lie Lie) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lie = lie
}

// Queries returns what was asked so far, in order, such as "CAA a.example" or
// "TXT a.example tcp".
func (s *Server) Queries() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.queries)
}

// Fail answers code to questions for name, and honestly to others.
func Fail(name string, code int) Lie {
	return func(q dns.Question, _ bool, honest *dns.Msg) *dns.Msg {
		if strings.EqualFold(q.Name, dns.Fqdn(name)) {
			honest.Answer, honest.Rcode = nil, code
		}
		return honest
	}
}

// Silent answers nothing at all.
func Silent(dns.Question, bool, *dns.Msg) *dns.Msg { return nil }

// Truncate sends everybody from UDP to TCP, with an empty answer.
func Truncate(_ dns.Question, tcp bool, honest *dns.Msg) *dns.Msg {
	if !tcp {
		honest.Answer, honest.Truncated = nil, true
	}
	return honest
}

// Shy answers with one alias at a time, never with what it leads to.
func Shy(q dns.Question, _ bool, honest *dns.Msg) *dns.Msg {
	if len(honest.Answer) > 1 && honest.Answer[0].Header().Rrtype == dns.TypeCNAME {
		honest.Answer = honest.Answer[:1]
	}
	if len(honest.Answer) > 0 {
		honest.Rcode = dns.RcodeSuccess
	}
	return honest
}

func (s *Server) handler(tcp bool) dns.HandlerFunc {
	return func(w dns.ResponseWriter, query *dns.Msg) {
		if len(query.Question) != 1 {
			return
		}
		q := query.Question[0]
		s.mu.Lock()
		asked := dns.TypeToString[q.Qtype] + " " + strings.TrimSuffix(q.Name, ".")
		if tcp {
			asked += " tcp"
		}
		s.queries = append(s.queries, asked)
		answer, lie := s.answer(query), s.lie
		s.mu.Unlock()
		if lie != nil {
			if answer = lie(q, tcp, answer); answer == nil {
				return
			}
		}
		if opt := query.IsEdns0(); !tcp && !answer.Truncated {
			size := dns.MinMsgSize
			if opt != nil {
				size = int(opt.UDPSize())
			}
			answer.Truncate(size)
		}
		// Who asked may be gone by now.
		_ = w.WriteMsg(answer)
	}
}

func (s *Server) answer(query *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(query)
	m.RecursionAvailable = true
	q := query.Question[0]
	name := dns.CanonicalName(q.Name)
	for range 20 { // aliases, and no circle without an end
		alias, exists := "", false
		source := s.source(name)
		for _, rr := range s.records {
			owner := dns.CanonicalName(rr.Header().Name)
			exists = exists || owner == source || dns.IsSubDomain(name, owner)
			cname, isAlias := rr.(*dns.CNAME)
			if owner != source || rr.Header().Rrtype != q.Qtype && !isAlias {
				continue
			}
			rr = dns.Copy(rr)
			rr.Header().Name = name
			m.Answer = append(m.Answer, rr)
			if isAlias && q.Qtype != dns.TypeCNAME {
				alias = dns.CanonicalName(cname.Target)
			}
		}
		if !exists {
			m.Rcode = dns.RcodeNameError
		}
		if alias == "" {
			return m
		}
		name = alias
	}
	return m
}

// source returns the owner of the records for name: itself, or the wildcard
// that stands for it (RFC 4592, section 3.3.1).
func (s *Server) source(name string) string {
	for encloser := name; ; {
		for _, rr := range s.records {
			if dns.IsSubDomain(encloser, dns.CanonicalName(rr.Header().Name)) {
				if encloser == name {
					return name
				}
				return "*." + strings.TrimPrefix(encloser, ".")
			}
		}
		i, end := dns.NextLabel(encloser, 0)
		if end {
			return name
		}
		encloser = encloser[i:]
	}
}
