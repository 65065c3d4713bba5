package longline

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A visit measures one way, from the cloud: what is at URL, dialed at Addr.
type visit struct {
	URL, Addr string
	Wanted    []string // of the measurements below
	Span      time.Duration
}

// Measurements, by name. What they return is called NAME or NAME.SOMETHING.
var measurements = map[string]func(v visit, ctx context.Context, f Figures) error{
	// Mbit/s (10⁶) of 1 or 8 transfers at a time.
	"bulk1.down": bulk("bulk1.down", 1, http.MethodGet),
	"bulk1.up":   bulk("bulk1.up", 1, http.MethodPost),
	"bulk8.down": bulk("bulk8.down", 8, http.MethodGet),
	"bulk8.up":   bulk("bulk8.up", 8, http.MethodPost),
	// Milliseconds for small answers on kept connections beside 8 downloads: p50, p99.
	"small": visit.small,
	// Milliseconds to the first answer on a new connection: p50, p99.
	"new": visit.fresh,
	// New connections with a ClientHello each, 2,000 a second for five spans: how
	// many a second there were (rate), the share that was answered within a second
	// (prompt), and how long the slowest took in milliseconds (max).
	"storm": visit.storm,
}

// Figures are what was measured, by name.
type Figures map[string]float64

func (v visit) run() error {
	f := Figures{}
	if len(v.Wanted) == 0 {
		if _, err := v.get(context.Background(), v.client(false), "/small"); err != nil {
			return err
		}
	}
	for _, name := range v.Wanted {
		ctx, cancel := context.WithCancel(context.Background())
		err := measurements[name](v, ctx, f)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(f)
}

// client dials Addr whatever the host name, and verifies no certificates: the
// bench is no client of anybody's data.
func (v visit) client(keepAlive bool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, v.Addr)
		},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13},
		DisableKeepAlives: !keepAlive, MaxIdleConnsPerHost: 64,
		WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10,
	}}
}

// get asks for path and returns the answer.
func (v visit) get(ctx context.Context, c *http.Client, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.URL+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", v.URL+path, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// bulk measures flows transfers at a time for Span, after half a span to get going.
func bulk(name string, flows int, method string) func(visit, context.Context, Figures) error {
	return func(v visit, ctx context.Context, f Figures) error {
		t, err := v.transfer(ctx, flows, method)
		if err != nil {
			return err
		}
		defer t.stop()
		time.Sleep(v.Span / 2)
		bytes, at, err := t.moved(ctx)
		if err != nil {
			return err
		}
		time.Sleep(v.Span)
		after, then, err := t.moved(ctx)
		f[name] = float64(after-bytes) * 8 / 1e6 / then.Sub(at).Seconds()
		return err
	}
}

// A transfer is a number of flows that go on for ever.
type transfer struct {
	visit  visit
	method string
	name   string // of uploads
	client *http.Client
	down   atomic.Int64 // bytes of downloads
	cancel func()
	flows  sync.WaitGroup
}

func (v visit) transfer(ctx context.Context, flows int, method string) (*transfer, error) {
	t := &transfer{visit: v, method: method, name: fmt.Sprint(time.Now().UnixNano()), client: v.client(true)}
	if _, _, err := t.moved(ctx); err != nil {
		return nil, err
	}
	ctx, t.cancel = context.WithCancel(ctx)
	for range flows {
		t.flows.Go(func() { t.flow(ctx) })
	}
	return t, nil
}

func (t *transfer) flow(ctx context.Context) {
	var body io.Reader
	if t.method == http.MethodPost {
		body = zeros{}
	}
	req, err := http.NewRequestWithContext(ctx, t.method, t.visit.URL+"/endless?name="+t.name, body)
	if err != nil {
		return
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return // it ends with ctx, or moves nothing and so shows
	}
	defer resp.Body.Close()
	io.CopyBuffer(counter{&t.down}, resp.Body, make([]byte, 256<<10))
}

// moved returns how many bytes have arrived, and when that was.
func (t *transfer) moved(ctx context.Context) (int64, time.Time, error) {
	if t.method == http.MethodGet {
		return t.down.Load(), time.Now(), nil
	}
	text, err := t.visit.get(ctx, t.client, "/received?name="+t.name)
	if err != nil {
		return 0, time.Time{}, err
	}
	var n, at int64
	_, err = fmt.Sscan(string(text), &n, &at)
	return n, time.Unix(0, at), err
}

func (t *transfer) stop() {
	t.cancel()
	t.flows.Wait()
	t.client.CloseIdleConnections()
}

func (v visit) small(ctx context.Context, f Figures) error {
	t, err := v.transfer(ctx, 8, http.MethodGet)
	if err != nil {
		return err
	}
	defer t.stop()
	time.Sleep(v.Span / 2)
	c := v.client(true)
	defer c.CloseIdleConnections()
	took, err := v.times(ctx, 2*v.Span, 8, c, true)
	f["small.p50"], f["small.p99"] = quantile(took, 0.50), quantile(took, 0.99)
	return err
}

func (v visit) fresh(ctx context.Context, f Figures) error {
	took, err := v.times(ctx, 2*v.Span, 16, v.client(false), false)
	f["new.p50"], f["new.p99"] = quantile(took, 0.50), quantile(took, 0.99)
	return err
}

// times has workers ask one after the other, and returns how long answers took.
// With warm each worker's first does not count.
func (v visit) times(ctx context.Context, span time.Duration, workers int, c *http.Client, warm bool) ([]time.Duration, error) {
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var wg sync.WaitGroup
	end := time.Now().Add(span)
	for range workers {
		wg.Go(func() {
			var mine []time.Duration
			var err error
			for first := warm; err == nil && time.Now().Before(end); first = false {
				start := time.Now()
				if _, err = v.get(ctx, c, "/small"); !first {
					mine = append(mine, time.Since(start))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
			if failed == nil {
				failed = err
			}
		})
	}
	wg.Wait()
	if len(all) == 0 && failed == nil {
		failed = fmt.Errorf("no answer within %v", span)
	}
	slices.Sort(all)
	return all, failed
}

// quantile returns the p-quantile of sorted times, in milliseconds.
func quantile(sorted []time.Duration, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[int(p*float64(len(sorted)-1))]) / 1e6
}
