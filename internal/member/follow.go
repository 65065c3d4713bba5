package member

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"time"

	"postern"
)

// ErrRemoved says that the coordinator no longer knows this member.
var ErrRemoved = errors.New("no longer a member of the deployment")

const (
	minBackoff = time.Second
	maxBackoff = 30 * time.Second

	// silence is how long a stream may be quiet: three heartbeats.
	silence = 45 * time.Second
)

// Resume calls apply with the map on disk, if there is one, and returns it, for Follow.
func (c *Client) Resume(apply func(postern.Map)) (held postern.Map) {
	held, err := LoadMap(c.dir)
	if err != nil {
		c.log.Error("read the map on disk; starting without", "err", err)
		return postern.Map{}
	}
	if held.Version > 0 {
		c.lease.grant(held)
		apply(held)
	}
	return held
}

// Follow keeps the map current until ctx is done, and then returns nil. It calls
// apply, from its own goroutine, with every map newer than held, which Resume
// returned; what changed while the member was away, or busy, is shown to it in one
// call. What apply was given is on disk already.
//
// It fails only with ErrRemoved, after which the map on disk is gone, so that
// the member does not come up from it again. A coordinator that is away, or that
// offers a map older than the one held, is asked again, ever more slowly.
func (c *Client) Follow(ctx context.Context, held postern.Map, apply func(postern.Map)) error {
	for failures := 0; ; failures++ {
		s := stream{client: c, held: held.Clone(), apply: apply}
		err := s.run(ctx)
		held = s.held
		if ctx.Err() != nil {
			c.setLink(false, nil)
			return nil
		}
		var refused *postern.Problem
		if errors.As(err, &refused) && refused.Code == postern.CodeRevoked {
			c.setLink(false, err)
			return errors.Join(fmt.Errorf("%w: %w", ErrRemoved, err), c.dir.Remove(mapFile))
		}
		if s.synced {
			failures = 0
		}
		c.setLink(false, err)
		if !errors.Is(err, errMoved) {
			c.url.Add(1)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.again:
			failures = 0
		case <-time.After(c.backoff(failures)):
		}
	}
}

// backoff returns a wait with full jitter, of up to 2^failures seconds.
func backoff(failures int) time.Duration {
	limit := min(maxBackoff, minBackoff<<min(failures, 5))
	return minBackoff/10 + rand.N(limit)
}

func (c *Client) setLink(up bool, err error) {
	was := c.link.Load()
	if was.Up != up || was.Since.IsZero() || (err != nil && (was.Err == nil || was.Err.Error() != err.Error())) {
		switch {
		case up:
			c.log.Info("control stream up", "coordinator", c.base())
		case errors.Is(err, postern.ErrOldMap):
			c.log.Error("the coordinator's map is refused; going on with the one held", "err", err)
		case err != nil:
			c.log.Warn("control stream down; going on with the map held", "err", err)
		}
	}
	since := was.Since
	if was.Up != up || since.IsZero() {
		since = time.Now()
	}
	c.link.Store(&Link{Up: up, Since: since, Err: err})
}

// A stream is one control stream from its opening to its end.
type stream struct {
	client *Client
	apply  func(postern.Map)
	held   postern.Map
	seen   map[string]bool // tenants that this stream has spoken of, until synced
	synced bool
	news   bool // since held was last shown to apply
}

// run follows one stream until it ends, which is always an error.
func (s *stream) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.client.stop.Store(&cancel)
	// Opening the stream is bounded as its silences are.
	quiet := time.AfterFunc(silence, func() { cancel(errors.New("the coordinator fell silent")) })
	defer quiet.Stop()

	resp, err := send(ctx, s.client.hc(), http.MethodGet, s.client.base()+postern.PathMap, nil, nil)
	if err != nil {
		return cause(ctx, err)
	}
	defer resp.Body.Close()
	s.seen = map[string]bool{}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 64<<10), postern.MaxMapLine)
	more := false // lines that came already
	lines.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		advance, line, err := bufio.ScanLines(data, atEOF)
		more = bytes.IndexByte(data[advance:], '\n') >= 0
		return advance, line, err
	})
	for lines.Scan() {
		quiet.Reset(silence)
		err := s.take(lines.Bytes())
		// The whole map goes to disk each time: many lines are one piece of news.
		if s.synced && s.news && (!more || err != nil) {
			s.show(ctx)
		}
		if err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return cause(ctx, fmt.Errorf("map stream: %w", err))
	}
	return errors.New("the coordinator ended the map stream")
}

// cause prefers the reason for which ctx was cancelled to what that broke.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// take works one line of the stream in.
func (s *stream) take(line []byte) error {
	msg, err := postern.DecodeMapMessage(line)
	if err != nil {
		return err
	}
	if !msg.Time.IsZero() {
		s.client.told.Store(&reading{msg.Time, time.Now()})
	}
	if s.synced && !s.news {
		s.held = s.held.Clone() // apply was given the other
	}
	if err := s.held.Apply(msg); err != nil {
		return err
	}
	if s.synced {
		s.client.lease.heard(time.Now())
		s.news = s.news || msg.Section != nil || msg.Removed != "" // or it is a heartbeat
		return nil
	}
	if msg.Section != nil {
		s.seen[msg.Section.Tenant] = true
	}
	if msg.Synced {
		maps.DeleteFunc(s.held.Sections, func(tenant string, _ postern.Section) bool { return !s.seen[tenant] })
		s.synced, s.news, s.seen = true, true, nil
		s.client.lease.heard(time.Now())
	}
	return nil // half a map is shown to nobody
}

// show keeps the map on disk and gives it to apply.
func (s *stream) show(ctx context.Context) {
	s.news = false
	if err := s.client.dir.WriteJSON(mapFile, s.held); err != nil {
		// The data plane must not wait for a full disk.
		s.client.log.Error("keep the map on disk", "err", err)
	}
	s.client.lease.grant(s.held)
	s.apply(s.held)
	if !s.client.Link().Up {
		s.client.setLink(true, nil)
		s.client.renew(ctx, time.Now())
	}
}
