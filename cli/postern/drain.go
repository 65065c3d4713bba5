package main

import (
	"context"
	"errors"
	"time"

	"postern"
)

// drainNotice is how long a gateway that is to stop waits at most until the coordinator
// has heard so.
const drainNotice = 2 * time.Second

// drain returns when no new connections are to be taken: after ctx is done, the
// coordinator was told, and those who come by DNS of before had the drain delay to
// learn of other gateways; or when life is done.
func (d *door) drain(ctx, life context.Context) {
	select {
	case <-ctx.Done():
	case <-life.Done():
		return
	}
	d.stopping.Store(true)
	d.log.Info("gateway draining", "delay", d.opts.drainDelay)
	select {
	case d.news <- struct{}{}:
	default:
	}
	if d.client.Link().Up {
		select {
		case <-d.parted:
		case <-time.After(drainNotice):
			d.log.Warn("the coordinator does not answer, and may have this gateway in DNS for some seconds more")
		case <-life.Done():
		}
	}
	select {
	case <-time.After(d.opts.drainDelay):
	case <-life.Done():
	}
}

// ready returns why browsers are better led elsewhere, nil if they are not.
func (d *door) ready() error {
	switch {
	case d.stopping.Load():
		return errors.New("draining: it is stopping")
	case d.drained.Load():
		return errors.New("draining: by an operator")
	case d.acting.Load() == 0:
		return errors.New("it has no map yet")
	}
	return nil
}

// state returns the gateway's state in a word.
func (d *door) state() string {
	if d.stopping.Load() || d.drained.Load() {
		return postern.StateDraining
	}
	return postern.StateReady
}
