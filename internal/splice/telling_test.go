package splice

import (
	"net"
	"sync"
)

// A telling conn is a socket with ReadReady: it reads ahead.
type telling struct {
	*net.TCPConn

	mu      sync.Mutex
	changed *sync.Cond
	ahead   []byte // read and not handed out yet
	end     error  // what comes after that
	watcher func()
}

func newTelling(c *net.TCPConn) *telling {
	t := &telling{TCPConn: c}
	t.changed = sync.NewCond(&t.mu)
	go t.readAhead() // until c ends or is closed
	return t
}

func (t *telling) readAhead() {
	buf := make([]byte, largeSize)
	for {
		n, err := t.TCPConn.Read(buf)
		t.mu.Lock()
		t.ahead, t.end = buf[:n], err
		f := t.watcher
		t.watcher = nil
		t.mu.Unlock()
		if f != nil {
			f()
		}
		t.mu.Lock()
		for len(t.ahead) > 0 {
			t.changed.Wait()
		}
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (t *telling) ReadReady(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ahead) > 0 || t.end != nil {
		return true
	}
	t.watcher = f
	return false
}

// Read does not wait: who asks is told before.
func (t *telling) Read(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ahead) == 0 {
		return 0, t.end
	}
	n := copy(b, t.ahead)
	t.ahead = t.ahead[n:]
	t.changed.Signal()
	return n, nil
}

// Close also ends reading ahead.
func (t *telling) Close() error {
	t.mu.Lock()
	t.ahead = nil
	t.changed.Signal()
	t.mu.Unlock()
	return t.TCPConn.Close()
}
