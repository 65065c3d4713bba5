package netstack

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

const (
	// maxInside is how many packets may be inside the WireGuard device at a time
	// on their way out: two batches, so that one is encrypted while another is
	// sent. More would only wait there, in buffers of 64 KiB each.
	maxInside = 2 * batchSize

	// creditPatience is how long a device that sends nothing is believed to have
	// packets inside.
	creditPatience = 5 * time.Millisecond
)

// Credits count the packets inside the WireGuard device, between tunDevice.Read and
// the bind's Send, and hold Read back while there are too many: what is sent slowly
// slows TCP down. The device does not say what it drops, and it keeps what is for a
// peer without a session; so a count at which nothing moves begins anew.
type credits struct {
	inside  atomic.Int64
	sending atomic.Int64 // calls of Send
	wanted  atomic.Bool  // somebody waits in take

	freed  chan struct{} // holds one after a release that was wanted
	closed chan struct{}
	once   sync.Once
	timer  *time.Timer // of take
}

func (c *credits) init() {
	c.freed = make(chan struct{}, 1)
	c.closed = make(chan struct{})
	c.timer = time.NewTimer(0)
}

// take returns how many packets may enter: at least one, for which it waits, and at
// most n. It returns 0 once the credits are closed. It has one caller at a time.
func (c *credits) take(n int) int {
	for {
		inside := c.inside.Load()
		if free := maxInside - int(inside); free > 0 {
			n = min(n, free)
			c.inside.Add(int64(n))
			return n
		}
		c.wanted.Store(true)
		if c.inside.Load() < maxInside {
			continue
		}
		c.timer.Reset(creditPatience)
		select {
		case <-c.freed:
		case <-c.closed:
			return 0
		case <-c.timer.C:
			if c.sending.Load() == 0 {
				c.inside.CompareAndSwap(inside, 0)
			}
		}
	}
}

// release says that n packets left the device or did not enter it.
func (c *credits) release(n int) {
	for {
		inside := c.inside.Load()
		if c.inside.CompareAndSwap(inside, max(0, inside-int64(n))) {
			break
		}
	}
	if c.wanted.Swap(false) {
		select {
		case c.freed <- struct{}{}:
		default:
		}
	}
}

func (c *credits) close() { c.once.Do(func() { close(c.closed) }) }

// A creditedBind is a bind whose sent packets are counted.
type creditedBind struct {
	conn.Bind
	credits *credits
}

// Send implements conn.Bind.
func (b creditedBind) Send(bufs [][]byte, to conn.Endpoint) error {
	b.credits.sending.Add(1)
	defer func() {
		b.credits.sending.Add(-1)
		b.credits.release(len(bufs))
	}()
	return b.Bind.Send(bufs, to)
}
