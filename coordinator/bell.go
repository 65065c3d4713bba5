package coordinator

import "sync"

// A bell wakes whoever waits for it. The zero bell is ready for use, by many at a time.
type bell struct {
	mu   sync.Mutex
	next chan struct{} // closed when it rings; nil: nobody waits
}

// rings returns a channel that is closed when the bell rings the next time.
func (b *bell) rings() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// Changed returns a channel that is closed when the registry or somebody's
// presence, so that any Catalogue, may have changed. A tunnel that is silent for too
// long is noticed within StatusInterval while a gateway reports, else within a minute.
func (c *Coordinator) Changed() <-chan struct{} { return c.changed.rings() }
