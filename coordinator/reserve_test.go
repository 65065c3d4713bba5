package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"postern"
	"postern/coordinator"
)

// A disk is a Store whose disk is full, but for a reserve if that was given away.
type disk struct {
	coordinator.Store
	full     atomic.Bool
	set      atomic.Bool // the reserve is
	released atomic.Int64
}

func (d *disk) Update(ctx context.Context, fn func(coordinator.Tx) error) error {
	return d.Store.Update(ctx, func(tx coordinator.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		if d.full.Load() && (d.set.Load() || d.released.Load() == 0) {
			return fmt.Errorf("disk: %w", coordinator.ErrFull)
		}
		return nil
	})
}

func (d *disk) Keep() error {
	if d.full.Load() {
		return errors.New("no space left on device")
	}
	d.set.Store(true)
	return nil
}

func (d *disk) Release() (bool, error) {
	there := d.set.Swap(false)
	if there {
		d.released.Add(1)
	}
	return there, nil
}

// With a full disk operators are refused, loudly, and whoever is no operator goes on with
// the reserve; maps are told all the while (R14).
func TestReserve(t *testing.T) {
	var small disk
	d := &deployment{t: t, dir: t.TempDir(), clock: &clock{}, change: func(cfg *coordinator.Config) {
		small.Store = cfg.Store
		cfg.Store, cfg.Reserve = &small, &small
	}}
	d.start()
	t.Cleanup(func() { d.stop() })
	d.addTenant("acme")
	n := d.node("acme", "office", "erp")
	if !small.set.Load() {
		t.Error("no reserve at the start")
	}
	small.full.Store(true)
	refused := func(when string) {
		t.Helper()
		err := d.operate("POST", "/tenants", postern.TenantRequest{Name: "later"}, nil)
		var p *postern.Problem
		if !errors.As(err, &p) || p.Status != http.StatusInsufficientStorage || !strings.Contains(p.Detail, "nothing was changed") {
			t.Errorf("%s: an operator is told %v", when, err)
		}
	}
	refused("full")
	if small.released.Load() > 0 {
		t.Error("an operator has the reserve")
	}
	n.publish("erp", "docs") // as good as signing in: it is not an operator's
	if small.released.Load() != 1 {
		t.Errorf("the reserve was given away %d times", small.released.Load())
	}
	refused("with the reserve given away")
	var all []postern.RouteState
	must(t, d.operate("GET", "/routes", nil, &all))
	if len(all) != 2 {
		t.Errorf("%d routes, want 2", len(all))
	}
	if got := d.gather()["registry_full_total"]; got != 3 {
		t.Errorf("counted %v times, want 3", got)
	}
	small.full.Store(false)
	must(t, d.operate("POST", "/tenants", postern.TenantRequest{Name: "later"}, nil))
}
