package coordinator

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"postern"
)

// chain returns the hash of e behind an entry whose hash is prev: SHA-256 over
// prev, Seq, Time in Unix nanoseconds, both as 8 bytes big endian, and the texts
// in the struct's order, each behind its length as 4 bytes big endian.
func chain(prev [32]byte, e postern.AuditEntry) [32]byte {
	b := append([]byte(nil), prev[:]...)
	b = binary.BigEndian.AppendUint64(b, e.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time.UnixNano()))
	for _, s := range []string{e.Actor, e.Action, e.Tenant, e.Target, e.Detail} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return sha256.Sum256(b)
}

// auditPage is how many records are read at a time.
const auditPage = 1000

// VerifyAudit reads the whole audit log of s and reports the first entry that is
// not what was written, or does not follow the one before it. It reads a page at a
// time, so that nothing waits for it that is to be stored in between.
func VerifyAudit(ctx context.Context, s Store) error {
	var last AuditRecord
	for {
		var page []AuditRecord
		err := s.View(ctx, func(tx Tx) (err error) {
			page, err = tx.Audit(AuditQuery{After: last.Seq, Limit: auditPage}, nil)
			return err
		})
		if err != nil {
			return err
		}
		for _, r := range page {
			if r.Seq != last.Seq+1 {
				return fmt.Errorf("audit log: entry %d follows entry %d", r.Seq, last.Seq)
			}
			if r.Hash != chain(last.Hash, r.AuditEntry) {
				return fmt.Errorf("audit log: entry %d or one before it was changed", r.Seq)
			}
			last = r
		}
		if len(page) < auditPage {
			return nil
		}
	}
}

// checkAudit says whether the audit log is as it was written. Whoever changed it would
// like nothing better than a coordinator that does not start, or that first reads what
// years have left: members and operators are served all the same, and meanwhile.
func (c *Coordinator) checkAudit(ctx context.Context) error {
	if err := VerifyAudit(ctx, c.cfg.Store); err != nil && ctx.Err() == nil {
		c.log.Error("audit log is not as it was written", "err", err)
	}
	return nil
}

// auditUser adds an entry about u to the log.
func (ch *change) auditUser(action string, u User, detail string) error {
	tenant, err := ch.homeOf(u.ID)
	return errors.Join(err, ch.audit(action, tenant, u.ID, detail))
}

// homeOf returns the tenant whose managers an entry about the user with id is for: the
// one that they were granted, if it is one alone and they do not operate the deployment.
// It is "" else, and if there is no such user.
func (ch *change) homeOf(id string) (string, error) {
	u, err := ch.Users().Get(id)
	if errors.Is(err, ErrNotFound) || err == nil && u.Operator {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	grants, err := ch.Grants().Of(id)
	if len(grants) != 1 {
		return "", err
	}
	return grants[0].Tenant, err
}

// refused records that somebody was refused, as often as limits allow.
func (c *Coordinator) refused(ctx context.Context, actor, action, tenant, target string, remote netip.Addr, why error) {
	c.Note(ctx, actor, action, tenant, target, fmt.Sprintf("%v: %v", remote, why))
}

// Note records in the audit log what became of an attempt to sign in or to open
// something. It is limited: for strangers' refusals, whose actions end in .refused, all
// in all, and for the rest by actor. So no stranger keeps anybody else's from it.
func (c *Coordinator) Note(ctx context.Context, actor, action, tenant, target, detail string) {
	refused := strings.HasSuffix(action, refusedSuffix)
	if refused {
		c.refusals.count(action)
	}
	switch {
	case refused && actor == ActorStranger:
		skipped, ok := c.limits.strangers.pass()
		if !ok {
			return
		}
		if skipped > 0 {
			detail = fmt.Sprintf("%s (and %d more refusals, not recorded)", cut(detail), skipped)
		}
	case refused && !c.limits.refused.allow(actor), !refused && !c.limits.record.allow(actor):
		c.log.Warn("not recorded in the audit log: too many entries of one actor", "actor", actor, "action", action)
		return
	}
	c.note(ctx, actor, action, tenant, target, detail)
}

func (c *Coordinator) note(ctx context.Context, actor, action, tenant, target, detail string) {
	err := c.update(context.WithoutCancel(ctx), actor, func(ch *change) error {
		of := tenant
		if of == "" && strings.HasPrefix(action, "signin.") {
			var err error
			if of, err = ch.homeOf(target); err != nil {
				return err
			}
		}
		return ch.audit(action, of, target, detail)
	})
	if err != nil {
		c.log.Error("not recorded in the audit log", "err", err)
	}
}
