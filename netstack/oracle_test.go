package netstack

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// A plainDevice is the link without anything that makes it fast: one packet of TCP
// is one packet of the tunnel, both ways. It is what the fast one must be equal to.
type plainDevice struct{ tunDevice }

func (d plainDevice) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	var one [1]*stack.PacketBuffer
	if d.ring.next(one[:]) == 0 {
		return 0, os.ErrClosed
	}
	defer one[0].DecRef()
	sizes[0] = copy(bufs[0][offset:], one[0].ToView().AsSlice())
	return 1, nil
}

func (d plainDevice) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		if !d.admits(b[offset:]) {
			continue
		}
		p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b[offset:])})
		d.dispatcher.DeliverNetworkPacket(header.IPv6ProtocolNumber, p)
		p.DecRef()
	}
	return len(bufs), nil
}

// A plainEndpoint takes no segments longer than the MTU, and verifies checksums.
type plainEndpoint struct{ stack.LinkEndpoint }

func (plainEndpoint) Capabilities() stack.LinkEndpointCapabilities { return 0 }

// A plainQueue knows no paths.
type plainQueue struct{ *link }

func (q plainQueue) WritePacket(p *stack.PacketBuffer) tcpip.Error {
	if !q.ring.push(p) {
		return &tcpip.ErrClosedForSend{}
	}
	return nil
}

func (q plainQueue) Close() {}

// A kind is how a host gets its packets to the other end.
type kind int

const (
	plain   kind = iota // as simply as possible
	fast                // as over a short path
	covered             // as over a long one
)

// bareHost starts a host without WireGuard; what it sends is read from the device.
func bareHost(t *testing.T, n byte, mtu int, k kind) (*Net, tun.Device) {
	t.Helper()
	l := newLink(overlay(n), mtu)
	var device tun.Device = tunDevice{l}
	var nic stack.LinkEndpoint = linkEndpoint{l}
	var q stack.QueueingDiscipline = queue{l}
	times := plainTimeouts
	switch k {
	case covered:
		l.paths.longRTT, times = 0, pathTimeouts
	case plain:
		device, nic, q = plainDevice{tunDevice{l}}, plainEndpoint{nic}, plainQueue{l}
	}
	s, err := newStack(nic, q, overlay(n), times)
	if err != nil {
		t.Fatal(err)
	}
	h := &Net{address: overlay(n), link: l, stack: s}
	h.routes.Store(&map[netip.Addr]bool{overlay(1): true, overlay(2): true})
	t.Cleanup(func() {
		device.Close()
		s.Close()
		s.TransportProtocolInstance(tcp.ProtocolNumber).Wait()
		for _, ep := range s.RegisteredEndpoints() {
			ep.Abort()
		}
		s.Wait()
	})
	return h, device
}

// A faultyWire carries packets from one device to another in batches, and not all
// of them, not once and not in order. Of a thousand packets so many are:
type faultyWire struct{ lost, doubled, late int }

func (w faultyWire) run(from, to tun.Device, seed uint64) {
	const offset = 16
	rng := rand.New(rand.NewPCG(seed, 0))
	bufs, sizes := make([][]byte, batchSize), make([]int, batchSize)
	for i := range bufs {
		bufs[i] = make([]byte, 1<<16)
	}
	var batch, late [][]byte
	for {
		// Rarely all that there is, so that long segments are cut in several goes.
		n, err := from.Read(bufs[:1+rng.IntN(batchSize)], sizes, offset)
		if err != nil {
			return
		}
		from.(interface{ sent(int) }).sent(n)
		for i := range n {
			p := bytes.Clone(bufs[i][:offset+sizes[i]])
			switch k := rng.IntN(1000); {
			case k < w.lost:
			case k < w.lost+w.doubled:
				batch = append(batch, p, bytes.Clone(p))
			case k < w.lost+w.doubled+w.late:
				late = append(late, p)
			default:
				batch = append(batch, p)
			}
		}
		to.Write(batch, offset)
		batch, late = append(batch[:0], late...), late[:0]
	}
}

// sent says that n packets that were read are on their way.
func (t tunDevice) sent(n int) { t.credits.release(n) }

// The fast link carries the bytes that the plain one does, whatever happens to the
// packets and whoever the other end is.
func TestSameAsPlain(t *testing.T) {
	for _, mtu := range []int{1280, 1420, 8920} {
		for _, ends := range []struct {
			name  string
			kinds [2]kind
		}{
			{"fast to fast", [2]kind{fast, fast}},
			{"fast to plain", [2]kind{fast, plain}},
			{"plain to fast", [2]kind{plain, fast}},
			{"plain to plain", [2]kind{plain, plain}},
			{"covered to covered", [2]kind{covered, covered}},
			{"covered to plain", [2]kind{covered, plain}},
			{"plain to covered", [2]kind{plain, covered}},
		} {
			for _, line := range []struct {
				name   string
				wire   faultyWire
				window int // bytes of the receive buffer; 0: as it is
				size   int // bytes each way
			}{
				{"good line", faultyWire{}, 0, 3 << 20},
				{"bad line", faultyWire{lost: 4, doubled: 20, late: 20}, 0, 1 << 20},
				{"tiny window", faultyWire{}, bufferMin, 64 << 10},
			} {
				t.Run(fmt.Sprintf("mtu %d, %s, %s", mtu, ends.name, line.name), func(t *testing.T) {
					t.Parallel()
					a, aDevice := bareHost(t, 1, mtu, ends.kinds[0])
					b, bDevice := bareHost(t, 2, mtu, ends.kinds[1])
					var wires sync.WaitGroup
					wires.Go(func() { line.wire.run(aDevice, bDevice, 1) })
					wires.Go(func() { line.wire.run(bDevice, aDevice, 2) })
					t.Cleanup(func() { aDevice.Close(); bDevice.Close(); wires.Wait() })
					dialed, accepted := connect(t, &host{Net: a}, &host{Net: b})
					if line.window > 0 {
						dialed.ep.SocketOptions().SetReceiveBufferSize(int64(line.window), true)
						accepted.ep.SocketOptions().SetReceiveBufferSize(int64(line.window), true)
					}
					mustCarry(t, dialed, accepted, line.size)
				})
			}
		}
	}
}

// mustCarry sends size random bytes each way at once, in writes of all sizes, and
// checks that they arrive, and the end after them.
func mustCarry(t *testing.T, a, b *tcpConn, size int) {
	t.Helper()
	var wg sync.WaitGroup
	for i, dir := range [][2]*tcpConn{{a, b}, {b, a}} {
		rng := rand.New(rand.NewPCG(uint64(i), 7))
		want := make([]byte, size)
		for j := range want {
			want[j] = byte(rng.Uint32())
		}
		for _, c := range dir {
			c.SetDeadline(time.Now().Add(3 * patience))
		}
		wg.Go(func() {
			for rest := want; len(rest) > 0; {
				n := min(len(rest), 1+rng.IntN(1<<rng.IntN(19)))
				if _, err := dir[0].Write(rest[:n]); err != nil {
					t.Errorf("after %d bytes: %v", size-len(rest), err)
					return
				}
				rest = rest[n:]
			}
			dir[0].CloseWrite()
		})
		wg.Go(func() {
			got, err := io.ReadAll(dir[1])
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes and %v, want %d bytes, the same ones", len(got), err, len(want))
			}
		})
	}
	wg.Wait()
}
