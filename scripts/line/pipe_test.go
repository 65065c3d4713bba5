//go:build linux

package main

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"
)

// start is when the tests' clock begins.
var start = time.Unix(0, 0)

// A delivery is a packet that came out, by its number.
type delivery struct {
	number uint64
	at     time.Duration // since start
}

// packet returns a packet of size bytes with a number in it.
func packet(number uint64, size int) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 0, size), number)[:size]
}

// drain gives all that is on its way, each when it is due.
func drain(t *testing.T, p *pipe) (out []delivery) {
	t.Helper()
	for {
		due, ok := p.next()
		if !ok {
			return out
		}
		n := len(out)
		p.give(due, func(b []byte) error {
			out = append(out, delivery{binary.BigEndian.Uint64(b), due.Sub(start)})
			return nil
		})
		if len(out) == n {
			t.Fatalf("none is given at %v, when the next is due", due.Sub(start))
		}
	}
}

// numbers returns the numbers of deliveries, in order.
func numbers(ds []delivery) (out []uint64) {
	for _, d := range ds {
		out = append(out, d.number)
	}
	return out
}

func TestPacketsArriveByRateAndDelay(t *testing.T) {
	// 1000 bytes take 1 ms.
	p := newPipe(conditions{delay: 20 * time.Millisecond, rate: 8e6, queue: 1e6}, 0)
	for i := range 3 {
		p.take(start, packet(uint64(i), 1000))
	}
	p.take(start.Add(10*time.Millisecond), packet(3, 500)) // when the sender is free again
	want := []delivery{
		{0, 21 * time.Millisecond},
		{1, 22 * time.Millisecond},
		{2, 23 * time.Millisecond},
		{3, 30*time.Millisecond + 500*time.Microsecond},
	}
	if got := drain(t, p); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNothingIsEarly(t *testing.T) {
	p := newPipe(conditions{delay: time.Second, rate: 8e6, queue: 1e6}, 0)
	p.take(start, packet(0, 1000))
	p.give(start.Add(time.Second), func([]byte) error {
		t.Error("a packet arrived before it was sent in full")
		return nil
	})
}

func TestFullQueueDropsItsTail(t *testing.T) {
	p := newPipe(conditions{delay: time.Millisecond, rate: 8e6, queue: 3000}, 0)
	for i := range 5 {
		p.take(start, packet(uint64(i), 1000))
	}
	p.take(start.Add(time.Millisecond), packet(5, 1000)) // the first has left
	p.take(start.Add(time.Millisecond), packet(6, 1000))
	if got, want := numbers(drain(t, p)), []uint64{0, 1, 2, 5}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if p.dropped != 3 || p.carried != 4 || p.lost != 0 {
		t.Errorf("got %d dropped, %d carried, %d lost, want 3, 4, 0", p.dropped, p.carried, p.lost)
	}
}

func TestLossIsOfItsShareAndSeed(t *testing.T) {
	const packets = 100_000
	through := func(direction, seed uint64) []uint64 {
		p := newPipe(conditions{rate: 1e12, queue: 1e9, loss: 0.01, seed: seed}, direction)
		for i := range packets {
			p.take(start, packet(uint64(i), 100))
		}
		if p.lost+p.carried != packets {
			t.Errorf("%d lost and %d carried are not %d", p.lost, p.carried, packets)
		}
		return numbers(drain(t, p))
	}
	one := through(0, 1)
	if lost := packets - len(one); lost < packets/120 || lost > packets/80 {
		t.Errorf("%d of %d lost, want about 1%%", lost, packets)
	}
	if !slices.Equal(one, through(0, 1)) {
		t.Error("the same seed lost other packets")
	}
	if slices.Equal(one, through(1, 1)) {
		t.Error("both directions lost the same packets")
	}
	if slices.Equal(one, through(0, 2)) {
		t.Error("two seeds lost the same packets")
	}
}

func TestReorderedArriveLaterAndAll(t *testing.T) {
	const packets = 1000
	p := newPipe(conditions{delay: time.Millisecond, rate: 1e9, queue: 1e9, reorder: 0.1, seed: 1}, 0)
	for i := range packets {
		p.take(start, packet(uint64(i), 1000)) // 8 µs each
	}
	got := drain(t, p)
	if !slices.IsSortedFunc(got, func(a, b delivery) int { return int(a.at - b.at) }) {
		t.Error("time went backwards")
	}
	overtaken := 0
	for i, number := range numbers(got) {
		if i > 0 && number < got[i-1].number {
			overtaken++
		}
	}
	if overtaken < packets/20 || overtaken > packets/5 {
		t.Errorf("%d of %d were overtaken, want about a tenth", overtaken, packets)
	}
	all := numbers(got)
	slices.Sort(all)
	for i := range packets {
		if len(all) != packets || all[i] != uint64(i) {
			t.Fatal("not each packet arrived once")
		}
	}
}

func TestDuplicatesArriveTwice(t *testing.T) {
	p := newPipe(conditions{rate: 1e9, queue: 1e9, duplicate: 1}, 0)
	p.take(start, packet(0, 100))
	p.take(start, packet(1, 100))
	if got, want := numbers(drain(t, p)), []uint64{0, 0, 1, 1}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A buffer is used again only when its packet has been given.
func TestBuffersAreUsedAgain(t *testing.T) {
	p := newPipe(conditions{delay: time.Millisecond, rate: 8e9, queue: 1e9}, 0)
	next := uint64(0)
	for step := range 1000 {
		now := start.Add(time.Duration(step) * 100 * time.Microsecond)
		for i := range 10 {
			p.take(now, packet(uint64(step*10+i), 100))
		}
		p.give(now, func(b []byte) error {
			if got := binary.BigEndian.Uint64(b); got != next {
				t.Fatalf("got packet %d, want %d", got, next)
			}
			next++
			return nil
		})
	}
	if buffers := len(p.spare) + p.wire.len(); buffers > 200 {
		t.Errorf("%d buffers for 110 packets on their way", buffers)
	}
}

func TestFlags(t *testing.T) {
	for _, test := range []struct {
		text string
		want rate
	}{
		{"500mbit", 500e6}, {"1gbit", 1e9}, {"64kbit", 64e3}, {"2.5gbit", 2.5e9},
		{"500", 0}, {"0mbit", 0}, {"-1mbit", 0}, {"mbit", 0}, {"nanmbit", 0},
	} {
		var got rate
		if err := got.Set(test.text); got != test.want || (err == nil) != (test.want != 0) {
			t.Errorf("rate %q: got %v, %v", test.text, int64(got), err)
		}
	}
	for _, test := range []struct {
		text string
		want share
		ok   bool
	}{
		{"1%", 0.01, true}, {"0.5", 0.5, true}, {"0", 0, true}, {"100%", 1, true},
		{"101%", 0, false}, {"-1%", 0, false}, {"", 0, false}, {"nan", 0, false},
	} {
		var got share
		if err := got.Set(test.text); got != test.want || (err == nil) != test.ok {
			t.Errorf("share %q: got %v, %v", test.text, float64(got), err)
		}
	}
}
