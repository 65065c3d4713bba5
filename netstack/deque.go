package netstack

// A deque is a queue in a ring that grows. The zero deque is empty.
type deque[T any] struct {
	ring  []T // its length is a power of two
	first int
	count int
}

func (d *deque[T]) len() int { return d.count }

func (d *deque[T]) cap() int { return len(d.ring) }

// clear removes all elements.
func (d *deque[T]) clear() {
	for d.count > 0 {
		d.pop()
	}
	d.first = 0
}

// at returns the i-th element from the front, which must exist.
func (d *deque[T]) at(i int) *T { return &d.ring[(d.first+i)&(len(d.ring)-1)] }

func (d *deque[T]) push(x T) {
	if d.count == len(d.ring) {
		grown := make([]T, max(8, 2*len(d.ring)))
		n := copy(grown, d.ring[d.first:])
		copy(grown[n:], d.ring[:d.first])
		d.ring, d.first = grown, 0
	}
	d.count++
	*d.at(d.count - 1) = x
}

// pop removes the front element, which must exist.
func (d *deque[T]) pop() T {
	var none T
	x := *d.at(0)
	*d.at(0) = none
	d.first = (d.first + 1) & (len(d.ring) - 1)
	d.count--
	return x
}
