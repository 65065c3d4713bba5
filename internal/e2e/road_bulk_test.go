//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	bulk = 1 << 30 // bytes, each way

	// roomForBulk is how much memory, in bytes, the gateway and the node may ever
	// have held. Whoever buffers the bulk, or half of it, is found out.
	roomForBulk = 512 << 20
)

// TestRoadBulk moves 1 GiB down and 1 GiB up. It is made and digested on the fly
// at both ends, and neither gateway nor node may keep it on the way.
func TestRoadBulk(t *testing.T) {
	r := newRoad(t)
	want, err := digest(stream(bulk))
	if err != nil {
		t.Fatal(err)
	}
	c := r.client()
	t.Run("download", func(t *testing.T) {
		begin := time.Now()
		resp, err := c.Get(r.url("acme", fmt.Sprintf("/bytes?n=%d", bulk)))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := digest(resp.Body)
		if err != nil || got != want {
			t.Errorf("got %+v and %v, want %+v", got, err, want)
		}
		recordRate(t, "download of 1 GiB", begin)
	})
	t.Run("upload", func(t *testing.T) {
		begin := time.Now()
		req, err := http.NewRequest(http.MethodPut, r.url("acme", "/bytes"), stream(bulk))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var got received
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || got != want {
			t.Errorf("got status %d, %+v and %v, want %+v", resp.StatusCode, got, err, want)
		}
		recordRate(t, "upload of 1 GiB", begin)
	})
	for _, p := range []*process{r.gateway, r.acmeNode} {
		peak := p.peakMemory()
		noteFigure(t, "road", p.name+" at most in memory", float64(peak)/(1<<20), "MiB")
		if peak > roomForBulk {
			t.Errorf("%s held %d MiB, want at most %d", p.name, peak>>20, roomForBulk>>20)
		}
	}
}

func recordRate(t *testing.T, what string, begin time.Time) {
	t.Helper()
	noteFigure(t, "road", what, float64(bulk)/(1<<20)/time.Since(begin).Seconds(), "MiB/s")
}

// peakMemory returns the most memory that the process has held, in bytes.
func (p *process) peakMemory() int64 {
	p.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return kib << 10
		}
	}
	p.t.Fatal("the system does not tell peak memory")
	return 0
}
