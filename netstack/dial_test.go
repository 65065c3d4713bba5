package netstack

import "testing"

// What a dial loses on the way is sent again without TCP's help, which would come
// after a second.
func TestDialAsksAgain(t *testing.T) {
	node, gateway := newHost(t, 1), newHost(t, 2)
	path := newLongPath(t, gateway.peer.Endpoint, 0)
	gateway.mustSetPeers(t, node.hidden())
	p := gateway.peer
	p.Endpoint = path.address()
	node.mustSetPeers(t, p)
	connect(t, node, gateway) // so that both have keys
	for _, tt := range []struct {
		name     string
		from, to *host
	}{
		{"node dials", node, gateway},
		{"gateway dials", gateway, node},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ln := tt.to.mustListen(t, 0)
			asked := tt.from.stack.Stats().TCP.ActiveConnectionOpenings
			before := asked.Value()
			path.cut.Store(true)
			dialed := make(chan error)
			go func() {
				c, err := tt.from.DialContext(t.Context(), addrPort(ln))
				if err == nil {
					c.Close()
				}
				dialed <- err
			}()
			eventually(t, "second try", func() bool { return asked.Value() >= before+2 })
			path.cut.Store(false)
			if err := within(t, "dial", func() error { return <-dialed }); err != nil {
				t.Error(err)
			}
		})
	}
}
