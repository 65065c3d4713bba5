package process

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// What a process started is of its family, and its memory and time are counted.
func TestFamily(t *testing.T) {
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	pid, err := c.Start("shell", exec.Command("sh", "-c", "sleep 1000 & wait"))
	if err != nil {
		t.Fatal(err)
	}
	err = Poll(t.Context(), func() error {
		if n := len(Family(pid)); n != 2 {
			return fmt.Errorf("got a family of %d, want 2", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	one, err := Resident([]int{Family(pid)[1]})
	if err != nil {
		t.Fatal(err)
	}
	if both, err := Resident([]int{pid}); err != nil || both <= one || one <= 0 {
		t.Errorf("resident: got %v KiB of both, %v of one, %v", both, one, err)
	}
	if took, err := CPU([]int{os.Getpid()}); err != nil || took < 0 {
		t.Errorf("cpu: got %v, %v", took, err)
	}
}
