package coordinator

import (
	"errors"
	"fmt"
)

// A Reserve is room on the registry's disk, for when there is no other: people go on to
// sign in with it, and machines to join, while operators are refused.
type Reserve interface {
	Keep() error                      // sets it aside, unless it is; fails if there is no room
	Release() (there bool, err error) // gives it to whoever writes next
}

// errTight refuses operators while there is only what was the reserve.
var errTight = fmt.Errorf("%w: what room is left is for people who sign in", ErrFull)

// retryFull does what failed with err again, if that was for want of room and the reserve
// makes some.
func (c *Coordinator) retryFull(err error, again func() error) error {
	if !errors.Is(err, ErrFull) {
		return err
	}
	c.full.Add(1)
	if c.cfg.Reserve == nil {
		return err
	}
	there, rerr := c.cfg.Reserve.Release()
	if rerr != nil {
		c.log.Error("give away the reserve on the disk", "err", rerr)
	}
	if !there {
		return err
	}
	c.tight.Store(true)
	c.log.Error("disk full; people can sign in with what was the reserve, operators are refused")
	return again()
}

// refill sets the reserve aside, if there is room for it, and has operators let in again.
// The caller holds writing: trying takes what room there is, for a moment.
func (c *Coordinator) refill() {
	if c.cfg.Reserve == nil {
		return
	}
	err := c.cfg.Reserve.Keep()
	switch was := c.tight.Swap(err != nil); {
	case err != nil && !was:
		c.log.Error("no room for a reserve on the disk; operators are refused", "err", err)
	case err == nil && was:
		c.log.Info("there is room on the disk again")
	}
}

// keepReserve is refill for who does not hold writing.
func (c *Coordinator) keepReserve() {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.refill()
}
