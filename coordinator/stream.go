package coordinator

import (
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"time"

	"postern"
)

const (
	// heartbeat is how often a stream with nothing to say shows that it lives.
	heartbeat = 15 * time.Second
	// streamWrite is how long a member may take to read one line.
	streamWrite = 30 * time.Second
)

// A mapWriter writes one member's map stream.
type mapWriter struct {
	enc  *json.Encoder
	rc   *http.ResponseController
	now  func() time.Time
	sent map[string]uint64 // versions of the sections that the member has

	own *postern.Section // of a node, as it was sent last; nil: it was not
}

// serveMap sends m its map, for ever: first all of it, then each section that
// changed as it is by then. Only versions are remembered between, so a member
// that reads slowly misses what came and went, and has no backlog. It returns
// when m goes away, opens another stream, or is no member any more.
func (c *Coordinator) serveMap(w http.ResponseWriter, r *http.Request, m *Member) {
	stream := c.presence.open(m.ID, c.cfg.Now())
	c.changed.ring()
	defer func() {
		c.presence.close(m.ID, stream, c.cfg.Now())
		c.changed.ring()
	}()
	w.Header().Set("Content-Type", "application/x-ndjson")
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Time{}) // the request was read; HTTP/1.1 would end the stream on it
	mw := &mapWriter{enc: json.NewEncoder(w), rc: rc, now: c.cfg.Now, sent: make(map[string]uint64)}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	log := c.log.With("tenant", m.Tenant, string(m.Role), m.Name, "remote", r.RemoteAddr)
	log.Debug("map stream opened")
	defer log.Debug("map stream ended")
	for first := true; ; first = false {
		snap := c.snapshot.Load()
		m := snap.members[m.Identity]
		if m == nil {
			return
		}
		if err := mw.send(snap, m, first); err != nil {
			return
		}
		select {
		case <-snap.superseded:
		case <-beat.C:
			if err := mw.write(postern.MapMessage{Version: snap.version}); err != nil {
				return
			}
		case <-stream.ended:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// send writes what m has not had of snap: the deployment's section first, then
// tenants by name, then what is gone.
func (w *mapWriter) send(snap *snapshot, m *Member, first bool) error {
	if !first && w.has(snap, m) {
		return nil
	}
	sections := snap.sections(m)
	for _, tenant := range slices.Sorted(maps.Keys(sections)) {
		s := sections[tenant]
		if s.Version <= w.sent[tenant] {
			continue
		}
		if m.Role == postern.RoleNode && tenant != "" {
			same := sameSection(w.own, s)
			if w.own = s; same { // it was another node that changed
				w.sent[tenant] = s.Version
				continue
			}
		}
		if err := w.write(postern.MapMessage{Version: snap.version, Section: s}); err != nil {
			return err
		}
		w.sent[tenant] = s.Version
	}
	for _, tenant := range slices.Sorted(maps.Keys(w.sent)) {
		if sections[tenant] != nil {
			continue
		}
		if err := w.write(postern.MapMessage{Version: snap.version, Removed: tenant}); err != nil {
			return err
		}
		delete(w.sent, tenant)
	}
	if !first {
		return nil
	}
	return w.write(postern.MapMessage{Version: snap.version, Synced: true})
}

// has reports whether m, a node, has all of snap that it is told. Most changes are other
// tenants', and wake all streams.
func (w *mapWriter) has(snap *snapshot, m *Member) bool {
	t := snap.tenants[m.Tenant]
	return m.Role == postern.RoleNode && t != nil &&
		w.sent[""] == snap.deployment.Version && w.sent[m.Tenant] == t.section.Version
}

// sameSection reports whether two sections differ in no more than their version. a may be
// nil.
func sameSection(a, b *postern.Section) bool {
	if a == nil {
		return false
	}
	c := *a
	c.Version = b.Version
	return reflect.DeepEqual(&c, b)
}

// write writes one line; it is on its way when write returns.
func (w *mapWriter) write(msg postern.MapMessage) error {
	msg.Time = w.now()
	if err := w.rc.SetWriteDeadline(time.Now().Add(streamWrite)); err != nil {
		return err
	}
	if err := w.enc.Encode(msg); err != nil {
		return err
	}
	if err := w.rc.Flush(); err != nil {
		return err
	}
	return w.rc.SetWriteDeadline(time.Time{}) // HTTP/2 would end a stream that is only silent
}
