//go:build e2e

package e2e

import (
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"postern"
)

// A nameServer is all of DNS to a coordinator: TXT records, and nothing else anywhere.
type nameServer struct {
	conn net.PacketConn

	mu  sync.Mutex
	txt map[string]string // by name, without trailing dot
}

func newNameServer(t testing.TB) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{conn: conn, txt: make(map[string]string)}
	var wg sync.WaitGroup
	wg.Go(s.serve)
	t.Cleanup(func() {
		conn.Close()
		wg.Wait()
	})
	return s
}

func (s *nameServer) set(name, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.txt[name] = text
}

func (s *nameServer) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		m.Response, m.Authoritative, m.RecursionAvailable, m.Additionals = true, true, true, nil
		s.mu.Lock()
		text, ok := s.txt[strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))]
		s.mu.Unlock()
		if ok && q.Type == dnsmessage.TypeTXT {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.TXTResource{TXT: []string{text}},
			}}
		}
		answer, err := m.Pack()
		if err == nil {
			s.conn.WriteTo(answer, from)
		}
	}
}

// prove has DNS show that host is tenant's, which added it.
func (d *deployment) prove(host, tenant string) {
	d.t.Helper()
	var routes []postern.RouteState
	d.cli(&routes, "routes", "list", "--tenant", tenant)
	for _, r := range routes {
		for _, v := range r.Records {
			if r.Host == host && v.Purpose == postern.PurposeProof {
				d.names.set(v.Name, strings.Trim(v.Value, `"`))
			}
		}
	}
	eventually(d.t, 20*time.Second, func() error {
		d.try("routes", "check", host, "--tenant", tenant) // fails for what is no proof, too
		_, err := d.try("routes", "match", host)
		if err != nil {
			return errors.New("the proof was not seen: " + err.Error())
		}
		return nil
	})
}
