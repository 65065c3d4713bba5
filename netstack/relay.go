package netstack

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// A Relay is another carrier of a peer's datagrams than UDP. What it is made of is its
// owner's: it gives what it receives to Receive, and send gets what is to go out.
type Relay struct {
	send     func(datagrams [][]byte)
	carriers *carriers
	end      *relayEnd

	delivery delivery // owned by Receive
	gone     chan struct{}
	once     sync.Once
}

// AttachRelay makes send the relay of a peer that is at remote, in place of the one that
// it had. It must not block, and must not keep the datagrams when it returns; it is
// called by many at once. The caller detaches the relay.
func (n *Net) AttachRelay(peer [32]byte, remote netip.AddrPort, send func(datagrams [][]byte)) (*Relay, error) {
	n.configuring.Lock()
	defer n.configuring.Unlock()
	if n.isClosed() {
		return nil, net.ErrClosed
	}
	if _, ok := n.peers[peer]; !ok {
		return nil, errors.New("attach a relay: no peer has this key")
	}
	r := &Relay{send: send, carriers: n.carriers, end: n.carriers.end(peer), gone: make(chan struct{})}
	r.delivery = delivery{from: r.end, taken: make(chan struct{}, 1)}
	r.end.remote.Store(&remote)
	r.end.relay.Store(r)
	return r, nil
}

// Receive hands datagrams that came over the relay to WireGuard, which decides what they
// are worth. It waits while WireGuard is busy, and does not keep them. It returns
// net.ErrClosed once the relay is detached or the Net closed. It has one caller at a time.
func (r *Relay) Receive(datagrams [][]byte) error {
	if len(datagrams) == 0 {
		return nil
	}
	select {
	case <-r.gone: // even if WireGuard would take them
		return net.ErrClosed
	default:
	}
	r.delivery.datagrams = datagrams
	select {
	case r.carriers.deliveries <- &r.delivery:
		<-r.delivery.taken
		return nil
	case <-r.gone:
	case <-r.carriers.dead:
	}
	return net.ErrClosed
}

// Detach takes the relay away. A newer one of the same peer stays.
func (r *Relay) Detach() {
	r.once.Do(func() { close(r.gone) })
	r.end.relay.CompareAndSwap(r, nil)
}

// SetRelayed says whether datagrams to peer go by its relay from now on, or over UDP,
// and has it learn that at once. A peer that never answered is greeted anew: WireGuard
// would do so seconds later. It is for a Net with Config.FixedEndpoints.
func (n *Net) SetRelayed(peer [32]byte, on bool) error {
	n.configuring.Lock()
	defer n.configuring.Unlock()
	if n.isClosed() {
		return net.ErrClosed
	}
	p, ok := n.peers[peer]
	switch {
	case !ok:
		return errors.New("choose a carrier: no peer has this key")
	case !on && !p.Endpoint.IsValid():
		return errors.New("choose a carrier: the peer has no udp endpoint")
	case n.relayed[peer] == on:
		return nil
	}
	n.relayed[peer] = on
	status, err := n.status()
	if err != nil {
		return err
	}
	for _, s := range status.peers {
		if s.PublicKey == peer && s.Handshake.IsZero() {
			return n.remake(p)
		}
	}
	if err := n.device.IpcSet(fmt.Sprintf("public_key=%s\nupdate_only=true\n%s", hex.EncodeToString(peer[:]), n.endpointLine(p))); err != nil {
		return fmt.Errorf("choose the carrier of peer %v: %w", Key(peer), err)
	}
	n.device.SendKeepalivesToPeersWithCurrentKeypair()
	return nil
}

// remake makes the device forget p and know it again.
func (n *Net) remake(p Peer) error {
	err := n.device.IpcSet(fmt.Sprintf("public_key=%s\nremove=true\n", hex.EncodeToString(p.PublicKey[:])))
	if err == nil {
		err = n.device.IpcSet(n.changes(Peer{}, p))
	}
	if err != nil {
		return fmt.Errorf("greet peer %v anew: %w", Key(p.PublicKey), err)
	}
	return nil
}

// endpointLine says, in WireGuard's configuration protocol, where datagrams to p go.
// Where endpoints are fixed, a peer without one is at its relay.
func (n *Net) endpointLine(p Peer) string {
	switch {
	case n.relayed[p.PublicKey], n.fixed && !p.Endpoint.IsValid():
		return "endpoint=" + relayPrefix + hex.EncodeToString(p.PublicKey[:]) + "\n"
	case p.Endpoint.IsValid():
		return fmt.Sprintf("endpoint=%v\n", p.Endpoint)
	}
	return ""
}

// Greet makes a new session with peer, at once. It is for who knows that the peer lost
// the one that there is: WireGuard would find out seconds later. Connections go on.
func (n *Net) Greet(peer [32]byte) error {
	n.configuring.Lock()
	defer n.configuring.Unlock()
	p, ok := n.peers[peer]
	switch {
	case n.isClosed():
		return net.ErrClosed
	case !ok:
		return errors.New("greet: no peer has this key")
	}
	return n.remake(p)
}
