package coordinator

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A fakeConn is a connection from an address, and remembers its end.
type fakeConn struct {
	net.Conn
	remote string
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr {
	a, err := net.ResolveTCPAddr("tcp", c.remote+":1")
	if err != nil {
		panic(err)
	}
	return a
}

func (c *fakeConn) Close() error { c.closed = true; return nil }

func TestCrowd(t *testing.T) {
	const a, b, c = "192.0.2.1", "192.0.2.2", "192.0.2.3"
	tests := []struct {
		name string
		do   []string // an address enters; "known N WHO", "release N" or "close N" is about the Nth that did
		cut  []int
	}{
		{"few", []string{a, a, b}, nil},
		{"many of one source", []string{a, b, a, a, a}, []int{0, 2}},
		{"many of all sources", []string{a, b, a, b, c, c}, []int{0}},
		{"members are no strangers", []string{a, a, "known 0 m", "known 1 m", a, a, b, b, c}, nil},
		{"many of one member", []string{a, "known 0 m", b, "known 1 m", c, "known 2 m"}, []int{0}},
		{"known twice", []string{a, "known 0 m", "known 0 m", b, "known 1 m"}, nil},
		{"released", []string{a, "release 0", "known 0 m", a, a}, nil},
		{"closed", []string{a, a, "close 0", "close 1", "close 1", a, a}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			crowd := newCrowd(crowdLimits{strangers: 5, source: 2, known: 2})
			var conns []*fakeConn
			var visitors []*visitor
			closed := map[int]bool{}
			for _, what := range tt.do {
				if net.ParseIP(what) != nil {
					conn := &fakeConn{remote: what}
					conns, visitors = append(conns, conn), append(visitors, crowd.enter(conn, conn, false))
					continue
				}
				words := append(strings.Fields(what), "")
				n, err := strconv.Atoi(words[1])
				if err != nil {
					t.Fatal(err)
				}
				switch words[0] {
				case "known":
					visitors[n].known(words[2])
				case "release":
					visitors[n].release()
				case "close":
					visitors[n].Close()
					closed[n] = true
				}
			}
			for n, conn := range conns {
				if got, want := conn.closed, closed[n] || slices.Contains(tt.cut, n); got != want {
					t.Errorf("connection %d: closed %v, want %v", n, got, want)
				}
			}
			for _, v := range visitors {
				v.Close()
			}
			if crowd.strangers.Len()+len(crowd.parties) > 0 {
				t.Errorf("%d strangers and %d parties are left of nobody", crowd.strangers.Len(), len(crowd.parties))
			}
		})
	}
}
