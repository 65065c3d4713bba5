package relay

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"postern"
)

// A Node is who dials a gateway.
type Node struct {
	ID  string
	Key ed25519.PrivateKey // its identity
}

// dialTimeout bounds a Dial.
const dialTimeout = 10 * time.Second

// Dial opens a relay to g, as n. It connects with dial, which is given g.Public. The
// caller runs the relay, or closes it.
func (n Node) Dial(ctx context.Context, g postern.Gateway, dial func(ctx context.Context, addr string) (net.Conn, error)) (*Conn, error) {
	if g.Public == "" || g.Identity.IsZero() {
		return nil, errors.New("the gateway is not known to have a relay")
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := dial(ctx, g.Public)
	if err != nil {
		return nil, err
	}
	tune(raw)
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	c, err := n.open(ctx, g, raw)
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("relay of gateway %q at %s: %w", g.Name, g.Public, err)
	}
	return c, nil
}

// open makes a relay of raw.
func (n Node) open(ctx context.Context, g postern.Gateway, raw net.Conn) (*Conn, error) {
	host, _, err := net.SplitHostPort(g.Public)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{
		ServerName: host, NextProtos: []string{postern.RelayProtocol}, MinVersion: tls.VersionTLS13,
		// What the map says of the gateway counts, and neither names nor authorities.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
			switch {
			case !ok || postern.IdentityPublic(key) != g.Identity:
				return errors.New("who answers is not the gateway; is there a proxy that opens TLS?")
			case s.NegotiatedProtocol != postern.RelayProtocol:
				return fmt.Errorf("the gateway chose protocol %q", s.NegotiatedProtocol)
			}
			return nil
		},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	ws, err := upgrade(ctx, conn, g.Public)
	if err != nil {
		return nil, err
	}
	c := newConn(raw, ws, addrPort(raw.RemoteAddr()), true, new(atomic.Int64))
	if err := n.prove(ctx, conn, ws, g.ID); err != nil {
		ws.CloseNow()
		return nil, err
	}
	return c, nil
}

// upgrade opens the WebSocket on conn.
func upgrade(ctx context.Context, conn *tls.Conn, host string) (*websocket.Conn, error) {
	used := false
	transport := &http.Transport{
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			if used {
				return nil, errors.New("the gateway wants to be asked twice")
			}
			used = true
			return conn, nil
		},
		ReadBufferSize: fullMessage, WriteBufferSize: fullMessage,
	}
	defer transport.CloseIdleConnections()
	ws, _, err := websocket.Dial(ctx, "https://"+host+postern.RelayPath, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport},
	})
	return ws, err
}

// prove shows who the node is.
func (n Node) prove(ctx context.Context, conn *tls.Conn, ws *websocket.Conn, gateway string) error {
	state := conn.ConnectionState()
	binding, err := state.ExportKeyingMaterial(postern.ChannelBinding, nil, 32)
	if err != nil {
		return fmt.Errorf("channel binding: %w", err)
	}
	kind, nonce, err := ws.Read(ctx)
	if err != nil {
		return err
	}
	if kind != websocket.MessageBinary || len(nonce) != postern.RelayNonce {
		return errors.New("what the gateway says first is no nonce")
	}
	proof, err := json.Marshal(postern.RelayProof{
		Node: n.ID, Signature: ed25519.Sign(n.Key, postern.RelayMessage(nonce, binding, gateway)),
	})
	if err != nil {
		return err
	}
	if err := ws.Write(ctx, websocket.MessageText, proof); err != nil {
		return err
	}
	kind, welcome, err := ws.Read(ctx)
	switch {
	case err != nil:
		return err
	case kind != websocket.MessageText || json.Unmarshal(welcome, new(postern.RelayWelcome)) != nil:
		return errors.New("what the gateway answers is no welcome")
	}
	return nil
}

// addrPort returns a TCP address, the zero AddrPort for others.
func addrPort(a net.Addr) netip.AddrPort {
	if a, ok := a.(*net.TCPAddr); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
