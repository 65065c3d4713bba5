package node

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"postern"
	"postern/internal/connect"
	"postern/internal/relay"
	"postern/netstack"
)

// A steerer steers the tunnels to all gateways of the map.
type steerer struct {
	node  *Node
	stack *netstack.Net
	proxy connect.Proxy

	mu    sync.Mutex
	steer map[postern.WireGuardPublic]*steered
}

// A steered is one tunnel.
type steered struct {
	*steering
	mtu     *pathMTU
	gateway postern.Gateway // without what may change while it is steered
	boot    string          // of the gateway, the last that was told
	stop    context.CancelFunc
	work    sync.WaitGroup
}

// path returns what carries the datagrams to the gateway with that key.
func (s *steerer) path(gateway postern.WireGuardPublic) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.steer[gateway]; t != nil {
		return t.Path()
	}
	return postern.CarrierUDP
}

// mtu returns how long packets are that pass to the gateway with that key and back; 0 if
// that is not known.
func (s *steerer) mtu(gateway postern.WireGuardPublic) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.steer[gateway]; t != nil {
		return t.mtu.Found()
	}
	return 0
}

// want makes gateways those to which tunnels are steered, until ctx is done; stop waits
// for all of them.
func (s *steerer) want(ctx context.Context, gateways []postern.Gateway) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted, boots := map[postern.WireGuardPublic]postern.Gateway{}, map[postern.WireGuardPublic]string{}
	for _, g := range gateways {
		if g.Endpoint != "" { // else it is no peer yet
			boots[g.WireGuard] = g.Boot
			g.Endpoint, g.Boot = "", ""
			wanted[g.WireGuard] = g
		}
	}
	for key, t := range s.steer {
		if g, ok := wanted[key]; !ok || g != t.gateway {
			t.stop()
			t.work.Wait()
			delete(s.steer, key)
		}
	}
	for key, g := range wanted {
		if s.steer[key] == nil {
			ctx, stop := context.WithCancel(ctx)
			t := &steered{steering: s.steering(g), gateway: g, stop: stop}
			t.mtu = s.pathMTU(t.steering, g)
			s.steer[key] = t
			t.work.Go(func() { t.run(ctx) })
			t.work.Go(func() { t.mtu.run(ctx) })
		}
	}
	for key, boot := range boots {
		if s.steer[key].runs(boot) {
			wake(s.steer[key].hurry)
		}
	}
}

// runs notes what the gateway's present run is called, and reports whether it is another
// than before. A coordinator that does not know yet says nothing.
func (t *steered) runs(boot string) (anew bool) {
	if boot == "" {
		return false
	}
	anew = t.boot != "" && t.boot != boot
	t.boot = boot
	return anew
}

// hurry has all tunnels looked at now.
func (s *steerer) hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.steer {
		wake(t.hurry)
	}
}

// stop ends all and waits for them.
func (s *steerer) stop() { s.want(context.Background(), nil) }

// steering returns the steering of the tunnel to g.
func (s *steerer) steering(g postern.Gateway) *steering {
	n, key := s.node, [32]byte(g.WireGuard)
	return &steering{
		hurry: make(chan struct{}, 1),
		probe: func(ctx context.Context) error { return answers(ctx, s.stack, g.Address) },
		echo:  func(ctx context.Context) error { _, err := s.stack.Echo(ctx, key, netstack.MinPathMTU); return err },
		heard: func() uint64 { return s.received(key) },
		busy:  func() bool { return n.server.entrance.counts().Open > 0 },
		use:   func(relay bool) error { return s.stack.SetRelayed(key, relay) },
		greet: func() error { return s.stack.Greet(key) },
		dial:  func(ctx context.Context) (relayRun, error) { return s.open(ctx, g) },
		told:  func() { wake(n.news) },
		log:   n.log.With("gateway", g.Name),
	}
}

// pathMTU returns what keeps packets of the tunnel to g, which t steers, as long as the
// path carries.
func (s *steerer) pathMTU(t *steering, g postern.Gateway) *pathMTU {
	key := [32]byte(g.WireGuard)
	return &pathMTU{
		top: s.stack.MTU(),
		echo: func(ctx context.Context, mtu int) (time.Duration, error) {
			return s.stack.Echo(ctx, key, mtu)
		},
		use:      func(mtu int) error { return s.stack.SetPathMTU(g.Address, mtu) },
		onUDP:    func() bool { return t.Path() == postern.CarrierUDP },
		timeouts: s.stack.Timeouts,
		heard:    t.heard,
		told:     t.told,
		log:      t.log,
	}
}

// received returns how many bytes came from the peer with that key.
func (s *steerer) received(key [32]byte) uint64 {
	for _, p := range s.stack.Peers() {
		if p.PublicKey == key {
			return p.Received
		}
	}
	return 0
}

// open opens the relay of g.
func (s *steerer) open(ctx context.Context, g postern.Gateway) (relayRun, error) {
	me := relay.Node{ID: s.node.id.Enrollment.ID, Key: s.node.id.Key.Key()}
	c, err := me.Dial(ctx, g, s.proxy.Dial)
	if err != nil {
		return nil, err
	}
	link, err := s.stack.AttachRelay(g.WireGuard, c.Remote(), c.Send)
	if err != nil {
		c.Close()
		return nil, err
	}
	return func(ctx context.Context) error {
		defer link.Detach()
		return c.Run(ctx, link.Receive)
	}, nil
}

// answers returns nil if a connection to a port where no gateway listens is refused in
// time: a refusal is as good an answer as any.
func answers(ctx context.Context, stack *netstack.Net, gateway netip.Addr) error {
	c, err := stack.DialContext(ctx, netip.AddrPortFrom(gateway, postern.HTTPSPort))
	if err == nil {
		c.Close()
	}
	return ctx.Err()
}
