package node

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
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
	steer map[string]*steered // by the gateway's id
}

// A steered is one tunnel.
type steered struct {
	*steering
	mtu     *pathMTU
	gateway postern.Gateway // without what may change while it is steered
	key     atomic.Pointer[postern.WireGuardPublic]
	boot    string // of the gateway, the last that was told
	stop    context.CancelFunc
	work    sync.WaitGroup
}

// path returns what carries the datagrams to the gateway with that id.
func (s *steerer) path(gateway string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.steer[gateway]; t != nil {
		return t.Path()
	}
	return postern.CarrierUDP
}

// mtu returns how long packets are that pass to the gateway with that id and back; 0 if
// that is not known.
func (s *steerer) mtu(gateway string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.steer[gateway]; t != nil {
		return t.mtu.Found()
	}
	return 0
}

// want makes gateways those to which tunnels are steered, until ctx is done; stop waits
// for all of them. Those that lost their sessions, as what is said of them says, are
// looked at now.
func (s *steerer) want(ctx context.Context, gateways []postern.Gateway) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[string]postern.Gateway{}
	for _, g := range gateways {
		if g.Endpoint != "" { // else it is no peer yet
			wanted[g.ID] = g
		}
	}
	for id, t := range s.steer {
		if g, ok := wanted[id]; !ok || lasting(g) != t.gateway {
			t.stop()
			t.work.Wait()
			delete(s.steer, id)
		}
	}
	for id, g := range wanted {
		t := s.steer[id]
		if t == nil {
			ctx, stop := context.WithCancel(ctx)
			t = s.steered(g)
			t.stop = stop
			s.steer[id] = t
			t.work.Go(func() { t.run(ctx) })
			t.work.Go(func() { t.mtu.run(ctx) })
		}
		key := g.WireGuard
		if before := t.key.Swap(&key); t.runs(g.Boot) || *before != key {
			wake(t.hurry)
		}
	}
}

// lasting returns g without what may change while its tunnel is steered.
func lasting(g postern.Gateway) postern.Gateway {
	g.Endpoint, g.Boot, g.WireGuard = "", "", postern.WireGuardPublic{}
	return g
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
		wake(t.mtu.again)
	}
}

// stop ends all and waits for them.
func (s *steerer) stop() { s.want(context.Background(), nil) }

// steered returns the tunnel to g, which is not steered yet.
func (s *steerer) steered(g postern.Gateway) *steered {
	n, t := s.node, &steered{gateway: lasting(g)}
	t.key.Store(&g.WireGuard)
	key := func() [32]byte { return *t.key.Load() }
	t.steering = &steering{
		hurry: make(chan struct{}, 1),
		probe: func(ctx context.Context) error { return answers(ctx, s.stack, g.Address) },
		echo:  func(ctx context.Context) error { _, err := s.stack.Echo(ctx, key(), netstack.MinPathMTU); return err },
		heard: func() uint64 { return s.received(key()) },
		busy:  func() bool { return n.server.entrance.counts().Open > 0 },
		use:   func(relay bool) error { return s.stack.SetRelayed(key(), relay) },
		greet: func() error { return s.stack.Greet(key()) },
		dial:  func(ctx context.Context) (relayRun, error) { return s.open(ctx, g, key()) },
		told:  func() { wake(n.news) },
		log:   n.log.With("gateway", g.Name),
	}
	t.mtu = s.pathMTU(t.steering, g.Address, key)
	return t
}

// pathMTU returns what keeps packets of the tunnel to a gateway, which t steers, as long as
// the path carries.
func (s *steerer) pathMTU(t *steering, gateway netip.Addr, key func() [32]byte) *pathMTU {
	return &pathMTU{
		top: s.stack.MTU(), again: make(chan struct{}, 1),
		echo: func(ctx context.Context, mtu int) (time.Duration, error) {
			return s.stack.Echo(ctx, key(), mtu)
		},
		use:      func(mtu int) error { return s.stack.SetPathMTU(gateway, mtu) },
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

// open opens the relay of g, for the tunnel with that key.
func (s *steerer) open(ctx context.Context, g postern.Gateway, key [32]byte) (relayRun, error) {
	me := relay.Node{ID: s.node.id.Enrollment.ID, Key: s.node.id.Key.Key()}
	c, err := me.Dial(ctx, g, s.proxy.Dial)
	if err != nil {
		return nil, err
	}
	link, err := s.stack.AttachRelay(key, c.Remote(), c.Send)
	if err != nil {
		c.Close()
		return nil, err
	}
	return func(ctx context.Context) error {
		defer link.Detach()
		// Receive waits for as long as there is no UDP socket, and Run for Receive.
		defer context.AfterFunc(ctx, link.Detach)()
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

const (
	// stuckFor is how long a gateway hears us while no tunnel comes up, after a first probe,
	// until that is taken for the fault of our key: three greetings went unanswered.
	stuckFor = 5 * time.Second

	// setBack is how much earlier than its last handshake a clock is that was set back.
	setBack = 10 * time.Second
)

// stuck returns why no tunnel comes up, or will after the present session, although a
// gateway hears us; "" if that is not so. A gateway that has seen a later clock takes our
// greetings for replays (WireGuard whitepaper, section 5.1).
func (s *steerer) stuck() string {
	now := time.Now()
	for _, p := range s.stack.Peers() {
		if p.Handshake.Sub(now) > setBack {
			return "this machine's clock was set back"
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	heard := false
	for _, t := range s.steer {
		if t.works.Load() {
			return ""
		}
		since := t.stuck.Load()
		heard = heard || since != nil && now.Sub(*since) > stuckFor
	}
	if !heard {
		return ""
	}
	return "gateways hear this node, and no tunnel comes up"
}
