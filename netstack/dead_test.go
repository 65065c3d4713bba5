package netstack

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// A deafDevice hears nothing more once it is deaf.
type deafDevice struct {
	tun.Device
	deaf atomic.Bool
}

func (d *deafDevice) Write(bufs [][]byte, offset int) (int, error) {
	if d.deaf.Load() {
		return len(bufs), nil
	}
	return d.Device.Write(bufs, offset)
}

// A peer that is gone is noticed by TCP itself, with a path below it and without: a
// path does not answer in the peer's place.
func TestDeadPeerIsNoticed(t *testing.T) {
	for k, name := range map[kind]string{fast: "short path", covered: "long path"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, aDevice := bareHost(t, 1, defaultMTU, k)
			b, bDevice := bareHost(t, 2, defaultMTU, plain)
			retries := tcpip.TCPMaxRetriesOption(2)
			if err := a.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &retries); err != nil {
				t.Fatal(err)
			}
			peer := &deafDevice{Device: bDevice}
			var wires sync.WaitGroup
			wires.Go(func() { faultyWire{}.run(aDevice, peer, 1) })
			wires.Go(func() { faultyWire{}.run(bDevice, aDevice, 2) })
			t.Cleanup(func() { aDevice.Close(); bDevice.Close(); wires.Wait() })
			dialed, accepted := connect(t, &host{Net: a}, &host{Net: b})
			mustEcho(t, dialed, accepted)
			peer.deaf.Store(true)
			dialed.SetDeadline(time.Now().Add(patience))
			for {
				if _, err := dialed.Write(make([]byte, 1<<10)); errors.Is(err, syscall.ETIMEDOUT) {
					break
				} else if err != nil {
					t.Fatalf("got %v, want %v", err, syscall.ETIMEDOUT)
				}
			}
		})
	}
}
