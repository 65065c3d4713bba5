package sqlite

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

// crashDir is set in the environment of the process that TestCrash kills.
const crashDir = "POSTERN_CRASH_DIR"

// crashWrite issues tokens for ever and prints each id once it is acknowledged.
func crashWrite(dir string) {
	err := func() error {
		ctx := context.Background()
		s, err := Open(ctx, filepath.Join(dir, "registry.db"))
		if err != nil {
			return err
		}
		a, err := coordinator.OpenAuthority(filepath.Join(dir, "authority"), "apps.test", nil)
		if err != nil {
			return err
		}
		c, err := coordinator.New(coordinator.Config{Store: s, Authority: a, Base: "apps.test"})
		if err != nil {
			return err
		}
		for {
			token, err := c.IssueToken(ctx, postern.TokenRequest{Role: postern.RoleGateway})
			if err != nil {
				return err
			}
			fmt.Println(token.ID)
		}
	}()
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// Whenever the process is killed, all that it acknowledged is there, and the
// registry is whole and can be written to.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	for range 30 {
		crash(t, dir, acknowledged)
		s, err := Open(t.Context(), filepath.Join(dir, "registry.db"))
		must(t, err)
		must(t, coordinator.VerifyAudit(t.Context(), s))
		must(t, s.View(t.Context(), func(tx coordinator.Tx) error {
			rows, err := tx.Tokens().All()
			there := make(map[string]bool, len(rows))
			for _, row := range rows {
				there[row.ID.String()] = true
			}
			for id := range acknowledged {
				if !there[id] {
					t.Errorf("token %s was acknowledged and is gone", id)
				}
			}
			return err
		}))
		must(t, s.Close())
	}
	if len(acknowledged) < 30 {
		t.Errorf("only %d tokens were acknowledged in all", len(acknowledged))
	}
}

// crash runs crashWrite until it printed some ids and a moment longer.
func crash(t *testing.T, dir string, acknowledged map[string]bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer cmd.Wait() // killed: it has nothing to say
	kill := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
	defer kill.Stop()
	first := true
	for in := bufio.NewScanner(out); in.Scan(); {
		acknowledged[in.Text()] = true
		if first {
			first = false
			kill.Reset(time.Duration(rand.IntN(20_000)) * time.Microsecond)
		}
	}
	if first {
		t.Fatal("nothing was acknowledged")
	}
}
