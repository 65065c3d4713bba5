// Package netstack is an IP host in this process, reached over WireGuard: dial,
// listen, set peers. It needs no privileges and no network interface: WireGuard
// (whitepaper, section 5) and TCP both run in user space, and the only thing
// asked of the operating system is a UDP socket.
//
// The host has one IPv6 address, speaks TCP and nothing else, and forwards
// nothing: what a peer sends reaches a listener on that address or is refused.
//
// Where UDP does not pass, others may carry WireGuard's datagrams: see Relay.
//
// What it costs is handing over: to another goroutine, to the kernel, to TCP. So
// everything on the way moves in batches of up to batchSize packets, TCP deals in
// segments of up to 64 KiB (GSO and GRO), and the kernel in datagrams as large
// (UDP_SEGMENT and UDP_GRO). Nothing on the way is allocated for each packet.
//
// A packet's way out, in order:
//
//	conn.Write        bytes into a TCP endpoint
//	queue             a segment of up to 64 KiB by reference into the ring; waits while it is full
//	path              in the ring's place, if Config.HideLoss and the peer is far: paced, and sent again if it is lost
//	tunDevice.Read    takes credits, of which there are 256: that many packets are inside WireGuard
//	cutter            cuts segments to what the path to the peer carries, into WireGuard's buffers
//	wireguard-go      peer by destination address, encrypt
//	creditedBind      gives the credits back
//	carriers          to a relay, if the peer is at one, else
//	bind              datagrams of one size in a row are one large one to the kernel
//
// and in:
//
//	bind              the kernel's large datagrams, each into as many of WireGuard's buffers
//	carriers          without echoes; or Relay.Receive, what came by a relay
//	wireguard-go      decrypt, check the source address against the peer
//	tunDevice.Write   drop what link.admits does not admit; heed how long packets may be
//	path              learns what arrived there, and hides from TCP what was lost
//	coalescer         joins a flow's consecutive segments to one of up to 64 KiB
//	gVisor            DeliverNetworkPacket, to the TCP endpoint of the 4-tuple or a listener's queue
//	conn.Read         bytes out of the endpoint
package netstack

import (
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/device"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// MinMTU is the least MTU of a tunnel: a link of IPv6 has that (RFC 8200, section 5).
const MinMTU = 1280

const defaultMTU = 1420

// A Key is a peer's X25519 public key. Its String is base64, as in wg(8).
type Key [32]byte

func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Config says who the host is. It prints without its private key.
type Config struct {
	PrivateKey [32]byte   // X25519 (RFC 7748); required
	Address    netip.Addr // the host's virtual IPv6 address, a /128; required

	// Port is the UDP port that WireGuard listens on, IPv4 and IPv6. If zero,
	// any free one.
	Port uint16

	// MTU is the largest packet inside the tunnel, in bytes, at least 1280. If
	// zero, 1420, which fits a path of 1500 over IPv6. Packets to a peer are shorter
	// where SetPathMTU, here or there, has said that its path carries less.
	MTU int

	// HideLoss sends again what is lost on a long way before TCP hears of it, and paces
	// what is sent, so that packets lost by chance do not slow connections down. It
	// concerns what this host sends; the other end need not know. See
	// docs/decisions/path-below-tcp.md for when it pays.
	HideLoss bool

	// FixedEndpoints keeps each peer where SetPeers and SetRelayed say that it is,
	// wherever its packets come from: for who dials peers that are there to be dialed,
	// and chooses between UDP and a relay. Otherwise the last packet of a peer says
	// where it is, and by which carrier.
	FixedEndpoints bool

	// Logger is told of WireGuard's events at Debug, and of its errors at Warn.
	// If nil, they are discarded.
	Logger *slog.Logger
}

// Format prints the config without its private key, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "netstack.Config{Address:%v Port:%d MTU:%d}", c.Address, c.Port, c.MTU)
}

// LogValue shows the config without its private key.
func (c Config) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// A Net is a running host. All its methods may be called concurrently.
type Net struct {
	// Static after New.
	address  netip.Addr
	anyPort  bool
	fixed    bool // Config.FixedEndpoints
	carriers *carriers
	link     *link
	stack    *stack.Stack
	device   *device.Device

	// routes is the addresses that may be dialed and accepted from. A map that
	// was stored is never written again.
	routes atomic.Pointer[map[netip.Addr]bool]
	port   atomic.Uint32

	// configuring is held while the device is being changed.
	configuring sync.Mutex
	key         Key          // our own, public
	peers       map[Key]Peer // as last applied to the device
	relayed     map[Key]bool // peers that SetRelayed said are

	// open is held for reading while a TCP endpoint is made, so that none is
	// made after Close.
	open   sync.RWMutex
	closed bool

	close sync.Once
}

// New opens the UDP socket and brings the host up, without peers. The caller
// closes it.
func New(cfg Config) (*Net, error) {
	if cfg.MTU == 0 {
		cfg.MTU = defaultMTU
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("netstack config: %w", err)
	}
	key, err := publicKey(cfg.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("netstack config: %w", err)
	}
	link, times := newLink(cfg.Address, cfg.MTU), pathTimeouts
	if !cfg.HideLoss {
		link.paths.off, times = true, plainTimeouts
	}
	stack, err := newStack(linkEndpoint{link}, queue{link}, cfg.Address, times)
	if err != nil {
		return nil, err
	}
	carriers := newCarriers(newBind(cfg.Logger), key, newEcho(key, !cfg.FixedEndpoints))
	n := &Net{
		key:      key,
		address:  cfg.Address,
		anyPort:  cfg.Port == 0,
		fixed:    cfg.FixedEndpoints,
		carriers: carriers,
		link:     link,
		stack:    stack,
		device:   device.NewDevice(tunDevice{link}, creditedBind{carriers, &link.credits}, newDeviceLogger(cfg.Logger)),
		peers:    map[Key]Peer{},
		relayed:  map[Key]bool{},
	}
	if cfg.FixedEndpoints {
		n.device.DisableSomeRoamingForBrokenMobileSemantics()
	}
	n.routes.Store(&map[netip.Addr]bool{})
	if err := n.up(cfg); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (c Config) check() error {
	if c.PrivateKey == [32]byte{} {
		return errors.New("no private key")
	}
	if c.MTU < MinMTU || c.MTU > device.MaxContentSize {
		return fmt.Errorf("mtu %d is not within %d to %d", c.MTU, MinMTU, device.MaxContentSize)
	}
	return checkAddress(c.Address)
}

// checkAddress reports why a cannot be a host's address in the overlay.
func checkAddress(a netip.Addr) error {
	if !a.Is6() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return fmt.Errorf("%v is no IPv6 address of a host in an overlay", a)
	}
	return nil
}

func publicKey(private [32]byte) (Key, error) {
	k, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return Key{}, errors.New("private key is refused")
	}
	return Key(k.PublicKey().Bytes()), nil
}

func (n *Net) up(cfg Config) error {
	// The error is not wrapped: it may quote the line that holds the key.
	if n.device.IpcSet("private_key="+hex.EncodeToString(cfg.PrivateKey[:])+"\n") != nil {
		return errors.New("set wireguard private key: refused")
	}
	if err := n.device.IpcSet(fmt.Sprintf("listen_port=%d\n", cfg.Port)); err != nil {
		return fmt.Errorf("set udp port %d: %w", cfg.Port, err)
	}
	if err := n.device.Up(); err != nil {
		return fmt.Errorf("open udp port %d: %w", cfg.Port, err)
	}
	return n.learnPort()
}

// learnPort asks the device which port it is bound to.
func (n *Net) learnPort() error {
	status, err := n.status()
	if err != nil {
		return err
	}
	n.port.Store(uint32(status.port))
	return nil
}

// Port returns the UDP port that WireGuard listens on.
func (n *Net) Port() uint16 { return uint16(n.port.Load()) }

// Rebind opens the UDP socket anew, on the same port where it can, and greets
// every peer from it, so that they learn where we are now. It is for a change of
// network; sessions and connections go on. After an error there is no socket
// until a Rebind succeeds.
func (n *Net) Rebind() error {
	n.configuring.Lock()
	defer n.configuring.Unlock()
	if n.isClosed() {
		return net.ErrClosed
	}
	n.link.ring.setLossy(true)
	defer n.link.ring.setLossy(false)
	port := n.Port()
	err := n.device.IpcSet(fmt.Sprintf("listen_port=%d\n", port))
	if err != nil && n.anyPort {
		err = n.device.IpcSet("listen_port=0\n")
	}
	if err != nil {
		return fmt.Errorf("reopen udp port %d: %w", port, err)
	}
	n.device.SendKeepalivesToPeersWithCurrentKeypair()
	return n.learnPort()
}

// Behind reports whether more datagrams have come than were read lately, or more is to be
// sent than goes out: the processors, or the line, are full, and what comes waits
// behind what came. Of what comes it is not known on all systems. It takes a microsecond.
func (n *Net) Behind() bool {
	if n.link.ring.crowded() {
		return true
	}
	b, ok := n.carriers.Bind.(interface{ behind() bool })
	return ok && b.behind()
}

func (n *Net) isClosed() bool {
	n.open.RLock()
	defer n.open.RUnlock()
	return n.closed
}

// Close stops the host. When it returns, no packet moves any more, every
// connection is aborted and every listener closed; WireGuard's idle workers are
// on their way out. Peers are not told. Further calls do nothing but wait for
// the first; the error is always nil.
func (n *Net) Close() error {
	n.close.Do(n.shutdown)
	return nil
}

func (n *Net) shutdown() {
	n.open.Lock()
	n.closed = true
	n.open.Unlock()

	n.configuring.Lock()
	defer n.configuring.Unlock()
	n.carriers.shut()
	n.device.Close()
	n.carriers.handshakes.close()
	n.stack.Close()
	// A processor may have been turning a queued segment into an endpoint while
	// the stack aborted the others; Wait would wait for that one for ever.
	n.stack.TransportProtocolInstance(tcp.ProtocolNumber).Wait()
	for _, ep := range n.stack.RegisteredEndpoints() {
		ep.Abort()
	}
	n.stack.Wait()
}
