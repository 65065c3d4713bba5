package netstack

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// SetPrivateKey makes key the host's own, in place of the one that it had, and has a new
// session made with every peer that has a keepalive, at once. They have to know the key by
// then. Connections go on; what peers sent before under the old sessions is still taken.
//
// A peer has no memory of a key that is new to it: where the clock was set back, so that
// peers take all that is sent for a replay (WireGuard whitepaper, section 5.1), another
// key is the way out.
func (n *Net) SetPrivateKey(key [32]byte) error {
	public, err := publicKey(key)
	if err != nil {
		return err
	}
	n.configuring.Lock()
	defer n.configuring.Unlock()
	_, taken := n.peers[public]
	switch {
	case n.isClosed():
		return net.ErrClosed
	case taken:
		return errors.New("set the private key: a peer has that key")
	case public == n.key:
		return nil
	}
	// The error is not wrapped: it may quote the line that holds the key.
	if n.device.IpcSet("private_key="+hex.EncodeToString(key[:])+"\n") != nil {
		return errors.New("set wireguard private key: refused")
	}
	n.key = public
	n.carriers.echo.setKey(public)
	n.carriers.handshakes.setKey(public)
	return n.greetAll()
}

// greetAll makes a new session with each peer that is kept alive from here. The others
// greet us: if both do, WireGuard may lose both, and waits 5 s.
func (n *Net) greetAll() error {
	status, err := n.status()
	if err != nil {
		return err
	}
	now := time.Now()
	var failed []error
	for _, s := range status.peers {
		p := n.peers[s.PublicKey]
		if p.Keepalive == 0 {
			continue
		}
		if age := now.Sub(s.Handshake); age >= 0 && age < device.RejectAfterTime {
			if peer := n.device.LookupPeer(s.PublicKey); peer != nil {
				peer.SendKeepalive()
			}
			continue
		}
		if err := n.remake(p); err != nil {
			failed = append(failed, err)
		}
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("after a new private key: %w", err)
	}
	return nil
}
