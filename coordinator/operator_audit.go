package coordinator

import (
	"context"
	"fmt"

	"postern"
)

// An AuditQuery picks entries of the audit log.
type AuditQuery struct {
	After  uint64 // only entries with a greater Seq
	Before uint64 // only entries with a smaller Seq; zero: all. With Newest, pages back
	Newest bool   // the newest first
	Tenant string // only this tenant's
	Actor  string // only this actor's
	Action string // only those whose action begins so
	Limit  int    // 1 to 1000
}

// maxAudit is how many entries of the audit log are answered at once.
const maxAudit = 1000

// Audit returns entries that o may see: all of them, or those of its tenants.
func (o *Operator) Audit(ctx context.Context, q AuditQuery) ([]postern.AuditEntry, error) {
	if q.Limit < 1 || q.Limit > maxAudit {
		return nil, invalid(fmt.Errorf("%d entries cannot be asked for", q.Limit), fmt.Sprintf("give a limit from 1 to %d", maxAudit))
	}
	var among []string
	if !o.all {
		among = []string{}
		for tenant := range o.roles {
			among = append(among, tenant)
		}
	}
	all := []postern.AuditEntry{}
	err := o.c.cfg.Store.View(ctx, func(tx Tx) error {
		rows, err := tx.Audit(q, among)
		for _, r := range rows {
			all = append(all, r.AuditEntry)
		}
		return err
	})
	return all, err
}
