package netstack

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A PeerStatus is what WireGuard knows of a peer now.
type PeerStatus struct {
	PublicKey [32]byte
	Address   netip.Addr
	Endpoint  netip.AddrPort // where it is reached; zero: not known
	Relayed   bool           // Endpoint is that of its relay, which carries its datagrams
	Handshake time.Time      // when the last handshake was done; zero: never
	Received  uint64         // bytes of datagrams, all told
	Sent      uint64         // bytes of datagrams, all told
	MTU       int            // how long packets to it may be
}

// Peers returns the peers' state, in no order. It costs some microseconds a
// peer. It returns nil after Close.
func (n *Net) Peers() []PeerStatus {
	status, err := n.status()
	if err != nil {
		panic("netstack: read wireguard's status: " + err.Error())
	}
	for i, p := range status.peers {
		status.peers[i].MTU = n.link.pathMTUs.to(p.Address.As16(), n.link.mtu)
	}
	return status.peers
}

// A deviceStatus is what the device says of itself.
type deviceStatus struct {
	port  uint16
	peers []PeerStatus
}

func (n *Net) status() (deviceStatus, error) {
	var s deviceStatus
	err := n.device.IpcGetOperation(&s)
	return s, err
}

// Write parses a whole "get" answer of WireGuard's configuration protocol
// (wireguard.com/xplatform). Its errors never quote the text, which holds the
// private key.
func (s *deviceStatus) Write(text []byte) (int, error) {
	s.peers = make([]PeerStatus, 0, bytes.Count(text, []byte("\npublic_key=")))
	for line := range bytes.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), "=")
		if err := s.set(key, value); err != nil {
			return 0, fmt.Errorf("line %q of wireguard's status is not understood", key)
		}
	}
	return len(text), nil
}

// set takes one line. The lines after a public_key are that peer's.
func (s *deviceStatus) set(key, value string) (err error) {
	if key == "listen_port" {
		port, err := strconv.ParseUint(value, 10, 16)
		s.port = uint16(port)
		return err
	}
	if key == "public_key" {
		s.peers = append(s.peers, PeerStatus{})
	}
	if len(s.peers) == 0 {
		return nil // another line of the device
	}
	p := &s.peers[len(s.peers)-1]
	switch key {
	case "public_key":
		_, err = hex.Decode(p.PublicKey[:], []byte(value))
	case "endpoint":
		if value, p.Relayed = strings.CutPrefix(value, relayPrefix); value != "" {
			p.Endpoint, err = netip.ParseAddrPort(value)
		}
	case "allowed_ip":
		var prefix netip.Prefix
		prefix, err = netip.ParsePrefix(value)
		p.Address = prefix.Addr()
	case "last_handshake_time_sec":
		var sec int64
		if sec, err = strconv.ParseInt(value, 10, 64); sec != 0 {
			p.Handshake = time.Unix(sec, 0)
		}
	case "last_handshake_time_nsec":
		var nsec int64
		if nsec, err = strconv.ParseInt(value, 10, 64); nsec != 0 {
			p.Handshake = p.Handshake.Add(time.Duration(nsec))
		}
	case "rx_bytes":
		p.Received, err = strconv.ParseUint(value, 10, 64)
	case "tx_bytes":
		p.Sent, err = strconv.ParseUint(value, 10, 64)
	}
	return err
}
