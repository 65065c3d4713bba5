package coordinator

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/alexedwards/argon2id"
)

// What waits for its turn to be hashed can be given up, and takes no turn then.
func TestHashingInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPasswords()
		p.params.Memory = 64
		hash, err := p.hash(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if n := cap(p.slots); n < 1 || n > maxHashing {
			t.Fatalf("%d at one time, want 1 to %d", n, maxHashing)
		}
		for range cap(p.slots) {
			if err := p.enter(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		// Nobody's password takes a turn like everybody's.
		work := []func() error{
			func() error { _, err := p.hash(ctx, "x"); return err },
			func() error { _, _, err := p.matches(ctx, "x", hash); return err },
			func() error { _, _, err := p.matches(ctx, "x", ""); return err },
		}
		done := make(chan error)
		for _, do := range work {
			go func() { done <- do() }()
		}
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("one did not wait: %v", err)
		default:
		}
		cancel()
		for range work {
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v", err, context.Canceled)
			}
		}
		p.leave()
		if _, err := p.hash(t.Context(), "x"); err != nil {
			t.Errorf("with a turn free: %v", err)
		}
	})
}

func TestMatches(t *testing.T) {
	p := newPasswords()
	if today := p.params; today.Memory < 46<<10 || today.SaltLength < 16 || today.KeyLength < 32 {
		t.Errorf("the parameters are %+v", today)
	}
	p.params.Memory = 64
	hash, err := p.hash(t.Context(), "pass")
	if err != nil {
		t.Fatal(err)
	}
	older := p.params
	older.Iterations++
	old, err := argon2id.CreateHash("pass", &older)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, password, hash string
		ok, stale            bool
	}{
		{"right", "pass", hash, true, false},
		{"wrong", "pass ", hash, false, false},
		{"right, of other parameters", "pass", old, true, true},
		{"nobody's", "pass", "", false, false},
		{"nobody's, and empty", "", "", false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ok, stale, err := p.matches(t.Context(), tt.password, tt.hash)
			if ok != tt.ok || stale != tt.stale || err != nil {
				t.Errorf("got %v, %v, %v, want %v, %v", ok, stale, err, tt.ok, tt.stale)
			}
		})
	}
	if _, _, err := p.matches(t.Context(), "pass", "no hash"); err == nil {
		t.Error("no error for what is no hash")
	}
}

func TestCommonPasswords(t *testing.T) {
	for p := range common {
		if checkPassword(p, "anna") == nil {
			t.Errorf("%q is let through", p)
		}
		if len([]rune(p)) < MinPassword {
			t.Errorf("%q is too short to be asked for", p)
		}
	}
	if len(common) < 100 {
		t.Errorf("only %d", len(common))
	}
}
