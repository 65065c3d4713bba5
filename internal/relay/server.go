package relay

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"postern"
)

const (
	// provingTime is how long who connects may take to show who it is.
	provingTime = 5 * time.Second

	// maxProving is how many may be at that at a time.
	maxProving = 1024

	// maxRequest bounds the request for the WebSocket, in bytes, and maxProof what
	// comes after it.
	maxRequest = 8 << 10
	maxProof   = 1 << 10
)

// A Link is where a node's datagrams go to; see netstack.Relay.
type Link interface {
	Receive(datagrams [][]byte) error
	Detach()
}

// A ServerConfig says what a Server needs.
type ServerConfig struct {
	Gateway     string          // id
	Certificate tls.Certificate // of its identity

	// Identity returns the identity of a node of the current map, false for who is none.
	Identity func(node string) (postern.IdentityPublic, bool)

	// Attach gives a node's datagrams a way: send for those to it, the Link for those
	// from it, which is at remote.
	Attach func(node string, remote netip.AddrPort, send func([][]byte)) (Link, error)

	Logger *slog.Logger // If nil, nothing is logged.
}

// A Server is a gateway's end of its nodes' relays. Its methods are safe for concurrent
// use.
type Server struct {
	cfg     ServerConfig
	log     *slog.Logger
	tls     *tls.Config
	proving chan struct{} // holds one for who has not shown yet who it is
	time    time.Duration // provingTime, but for tests

	crowded atomic.Int64 // times that too many were at proving

	mu   sync.Mutex
	open map[string]*Conn // by node id
}

// NewServer returns a Server. It starts nothing.
func NewServer(cfg ServerConfig) *Server {
	return &Server{
		cfg: cfg, log: cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)),
		tls: &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: []string{postern.RelayProtocol},
			Certificates: []tls.Certificate{cfg.Certificate}, SessionTicketsDisabled: true,
		},
		proving: make(chan struct{}, maxProving),
		time:    provingTime,
		open:    map[string]*Conn{},
	}
}

// Open returns how many relays are open.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// Crowded returns how many were turned away because too many were about to show who they
// are.
func (s *Server) Crowded() int64 { return s.crowded.Load() }

// Retain closes the relays of nodes that are none any more, by ServerConfig.Identity.
func (s *Server) Retain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for node, c := range s.open {
		if _, ok := s.cfg.Identity(node); !ok {
			c.Close()
		}
	}
}

var (
	errTooMany  = errors.New("too many are about to show who they are")
	errNewer    = errors.New("the node has opened another relay")
	errNotKnown = errors.New("the proof is of no node that is known here")
)

// Serve serves a relay on raw, of who is at remote, until ctx is done, and closes raw. It
// returns why it ended.
func (s *Server) Serve(ctx context.Context, raw net.Conn, remote netip.AddrPort) error {
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	select {
	case s.proving <- struct{}{}:
	default:
		s.crowded.Add(1)
		return errTooMany
	}
	tune(raw)
	heard := new(atomic.Int64)
	node, ws, err := s.welcome(ctx, raw, heard)
	<-s.proving
	if err != nil {
		return err
	}
	c := newConn(raw, ws, remote, false, heard)
	defer c.Close()
	link, err := s.cfg.Attach(node, remote, c.Send)
	if err != nil {
		return err
	}
	defer link.Detach()
	s.enter(node, c)
	defer s.leave(node, c)
	s.log.Info("relay open", "node", node, "remote", remote)
	err = c.Run(ctx, link.Receive)
	log := s.log
	if !errors.Is(err, io.EOF) { // the node hung up, as doctor's probes do
		log = log.With("err", err)
	}
	log.Info("relay closed", "node", node, "remote", remote, "dropped", c.Dropped())
	return err
}

// enter makes c the relay of node.
func (s *Server) enter(node string, c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.open[node]; old != nil {
		old.end(errNewer)
	}
	s.open[node] = c
	if _, ok := s.cfg.Identity(node); !ok { // removed since it was welcomed
		c.Close()
	}
}

func (s *Server) leave(node string, c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[node] == c {
		delete(s.open, node)
	}
}

// welcome takes who connected through TLS, the upgrade and the proof, within provingTime.
func (s *Server) welcome(ctx context.Context, raw net.Conn, heard *atomic.Int64) (string, *websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.time)
	defer cancel()
	raw.SetDeadline(time.Now().Add(s.time))
	conn := tls.Server(raw, s.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		return "", nil, err
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != postern.RelayProtocol {
		return "", nil, fmt.Errorf("protocol %q", got)
	}
	ws, err := accept(conn, heard)
	if err != nil {
		return "", nil, err
	}
	node, err := s.verify(ctx, conn, ws)
	if err != nil {
		raw.Close() // or TLS would want to say goodbye
		ws.CloseNow()
		return "", nil, err
	}
	raw.SetDeadline(time.Time{})
	return node, ws, nil
}

// verify finds out which node it is.
func (s *Server) verify(ctx context.Context, conn *tls.Conn, ws *websocket.Conn) (string, error) {
	state := conn.ConnectionState()
	binding, err := state.ExportKeyingMaterial(postern.ChannelBinding, nil, 32)
	if err != nil {
		return "", fmt.Errorf("channel binding: %w", err)
	}
	nonce := make([]byte, postern.RelayNonce)
	rand.Read(nonce)
	if err := ws.Write(ctx, websocket.MessageBinary, nonce); err != nil {
		return "", err
	}
	ws.SetReadLimit(maxProof)
	kind, text, err := ws.Read(ctx)
	if err != nil {
		return "", err
	}
	var proof postern.RelayProof
	if kind != websocket.MessageText || json.Unmarshal(text, &proof) != nil {
		ws.Close(websocket.StatusPolicyViolation, "want a proof")
		return "", errors.New("what was sent is no proof")
	}
	key, ok := s.cfg.Identity(proof.Node)
	if !ok || !ed25519.Verify(key.Key(), postern.RelayMessage(nonce, binding, s.cfg.Gateway), proof.Signature) {
		ws.Close(websocket.StatusPolicyViolation, "not a node of this gateway's map")
		return "", errNotKnown
	}
	welcome, err := json.Marshal(postern.RelayWelcome{})
	if err != nil {
		return "", err
	}
	return proof.Node, ws.Write(ctx, websocket.MessageText, welcome)
}
