package netstack

import (
	"fmt"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const nicID = 1

const (
	// Small to begin with, so that idle connections stay small; both sides grow
	// by themselves, to what a fast path of tens of milliseconds needs.
	bufferMin     = 4 << 10
	bufferDefault = 64 << 10
	bufferMax     = 8 << 20

	// Short, since a gateway and a node are one address pair to one port, and
	// each connection in TIME_WAIT takes one of its 4-tuples. Timestamps
	// (RFC 7323, section 5) guard against what TIME_WAIT otherwise would.
	timeWait = 2 * time.Second

	keepaliveIdle     = 30 * time.Second
	keepaliveInterval = 30 * time.Second
	keepaliveCount    = 3

	// closeTimeout is how long a peer may take none of what was left when the
	// connection was closed. It is a user timeout: nobody waits for that peer.
	closeTimeout = 60 * time.Second
)

// Timeouts are how long TCP waits for what nobody acknowledges.
type timeouts struct {
	// minRTO is when it is sent again at the earliest.
	minRTO time.Duration

	// maxRetries is how often: for two minutes on a short path, where RFC 1122, section
	// 4.2.3.5, asks for 100 s, and for some minutes on a long one. It also bounds probes of
	// a closed window that go unanswered. Those that are answered go on for ever (section
	// 4.2.2.17): a browser may pause a download, and an application an upload, for as
	// long as it likes. A user timeout (RFC 5482) would end those too.
	maxRetries uint64
}

var (
	// What is lost at the end of a burst, where nothing that follows can tell, is
	// sent again after this or a round trip and a bit, whichever is longer, instead
	// of the 200 ms that TCP takes elsewhere: both ends are ours, and neither delays
	// acknowledgements. docs/decisions/tcp-inside-the-tunnel.md has the figures.
	plainTimeouts = timeouts{60 * time.Millisecond, 10}

	// A path (path.go) sends again what is lost on a long way, and sooner. TCP, which
	// hears of it only by silence, is to give it the time for a second attempt, also
	// after a burst of losses: a timeout costs it its congestion window. The 200 ms
	// that TCP takes elsewhere are not enough (docs/decisions/path-below-tcp.md).
	pathTimeouts = timeouts{500 * time.Millisecond, 7}
)

// newStack returns a TCP stack with one address on one interface, nic, to which it
// writes through q. It forwards nothing, and neither sends from nor receives for
// another address.
func newStack(nic stack.LinkEndpoint, q stack.QueueingDiscipline, address netip.Addr, p timeouts) (*stack.Stack, error) {
	muteStack()
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	if err := configure(s, nic, q, address, p); err != nil {
		s.Destroy()
		return nil, fmt.Errorf("configure tcp stack: %v", err)
	}
	return s, nil
}

func configure(s *stack.Stack, nic stack.LinkEndpoint, q stack.QueueingDiscipline, address netip.Addr, p timeouts) tcpip.Error {
	sack := tcpip.TCPSACKEnabled(true)
	recovery := tcpip.TCPRecovery(0) // no RACK: slower, and it collapses on a drop-tail queue
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: bufferMin, Default: bufferDefault, Max: bufferMax}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: bufferMin, Default: bufferDefault, Max: bufferMax}
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	retries := tcpip.TCPMaxRetriesOption(p.maxRetries)
	rto := tcpip.TCPMinRTOOption(p.minRTO)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &recovery, &moderate, &receive, &send, &wait, &retries, &rto} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return err
		}
	}
	if err := s.CreateNICWithOptions(nicID, nic, stack.NICOptions{QDisc: q}); err != nil {
		return err
	}
	if err := s.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
		Protocol:          ipv6.ProtocolNumber,
		AddressWithPrefix: tcpip.AddrFrom16(address.As16()).WithPrefix(),
	}, stack.AddressProperties{}); err != nil {
		return err
	}
	s.AddRoute(tcpip.Route{Destination: header.IPv6EmptySubnet, NIC: nicID})
	return nil
}

// harden sets what bounds the life of an idle connection whose peer is gone.
func harden(ep tcpip.Endpoint) tcpip.Error {
	idle := tcpip.KeepaliveIdleOption(keepaliveIdle)
	interval := tcpip.KeepaliveIntervalOption(keepaliveInterval)
	for _, o := range []tcpip.SettableSocketOption{&idle, &interval} {
		if err := ep.SetSockOpt(o); err != nil {
			return err
		}
	}
	if err := ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepaliveCount); err != nil {
		return err
	}
	ep.SocketOptions().SetKeepAlive(true)
	return nil
}
