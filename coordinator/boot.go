package coordinator

import (
	"maps"
	"net/http"
)

// keepBoot tells nodes that gateway m was started anew, if the run that boot names is
// not the one that they were told of: their sessions with it are gone. It is kept in
// memory alone. After a restart of the coordinator nodes are told of no run until the
// gateway's next report, and of the same one then.
func (c *Coordinator) keepBoot(r *http.Request, m *Member, boot string) error {
	if boot == "" || boot == c.snapshot.Load().boots[m.ID] || !c.limits.record.allow(m.ID) {
		return nil
	}
	return c.updateMember(r, m, func(ch *change, now *Member) error {
		ch.boots = map[string]string{now.ID: boot}
		ch.touch("")
		return nil
	})
}

// settleBoots brings the runs of s' gateways up to date with ch.
func (s *snapshot) settleBoots(ch *change) {
	boots := maps.Clone(ch.boots)
	if boots == nil {
		boots = make(map[string]string)
	}
	for _, g := range s.gateways {
		if boot, ok := s.boots[g.ID]; ok && boots[g.ID] == "" {
			boots[g.ID] = boot
		}
	}
	s.boots = boots
}
