package netstack

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// A slowBind sends when it is let.
type slowBind struct {
	conn.Bind
	let chan error
}

func (b slowBind) Send([][]byte, conn.Endpoint) error { return <-b.let }

func newCredits() *credits {
	c := new(credits)
	c.init()
	return c
}

func TestCredits(t *testing.T) {
	c := newCredits()
	if got := c.take(100); got != 100 {
		t.Fatalf("took %d, want 100", got)
	}
	if got := c.take(1000); got != maxInside-100 {
		t.Fatalf("took %d, want what is left", got)
	}
	c.release(30)
	if got := c.take(1000); got != 30 {
		t.Errorf("took %d, want the 30 that were released", got)
	}
	c.release(maxInside + 5) // a handshake was never taken
	if got := c.take(1000); got != maxInside {
		t.Errorf("took %d, want no more than there are", got)
	}
}

// Who takes waits for what is sent.
func TestCreditsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCredits()
		bind := creditedBind{slowBind{let: make(chan error)}, c}
		c.take(maxInside)
		sent := make(chan error, 1)
		go func() { sent <- bind.Send(make([][]byte, 7), nil) }()
		took := make(chan int, 1)
		go func() { took <- c.take(1000) }()

		<-time.After(100 * creditPatience) // of the fake clock
		synctest.Wait()
		select {
		case n := <-took:
			t.Fatalf("took %d while the device was sending", n)
		default:
		}
		begin := time.Now()
		want := errors.New("no route")
		bind.Bind.(slowBind).let <- want
		if got := <-sent; got != want {
			t.Errorf("Send: got %v, want %v", got, want)
		}
		if got := <-took; got != 7 {
			t.Errorf("took %d, want the 7 that were sent", got)
		}
		if got := time.Since(begin); got > 0 {
			t.Errorf("took them %v after they were sent", got)
		}
	})
}

// What the device dropped, or keeps for a peer that is away, does not stop the others.
func TestCreditsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCredits()
		c.take(maxInside)
		begin := time.Now()
		if got := c.take(10); got != 10 {
			t.Errorf("took %d, want 10", got)
		}
		if got := time.Since(begin); got != creditPatience {
			t.Errorf("waited %v, want %v", got, creditPatience)
		}
	})
}

func TestCreditsClosed(t *testing.T) {
	c := newCredits()
	c.take(maxInside)
	c.sending.Store(1)
	took := make(chan int, 1)
	go func() { took <- c.take(1) }()
	c.close()
	c.close()
	if got := within(t, "take", func() int { return <-took }); got != 0 {
		t.Errorf("took %d from closed credits", got)
	}
}
