package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"postern"
	"postern/internal/dnscheck"
)

// How often the coordinator looks for the proof of a claim by itself: each time after
// half of the claim's age, within these bounds, and every lookLater once it is old.
const (
	lookFirst = 10 * time.Second
	lookYoung = 10 * time.Minute
	lookLater = time.Hour
	claimOld  = 24 * time.Hour
)

// Bounds of one round of looks.
const (
	maxLooks    = 64 // claims
	maxOwnLooks = 8  // of one tenant
	looksAtOnce = 8
	lookTimeout = 10 * time.Second // for one question to DNS
	lookPause   = time.Second      // between rounds
	lookIdle    = 10 * time.Minute // until the next, with nothing to do
)

// due returns when DNS is to be asked for the proof next.
func (c Claim) due() time.Time {
	if c.Checked.IsZero() {
		return c.Created.Add(lookFirst)
	}
	age := c.Checked.Sub(c.Created)
	if age >= claimOld {
		return c.Checked.Add(lookLater)
	}
	return c.Checked.Add(min(max(age/2, lookFirst), lookYoung))
}

// A look is what DNS said of a claim's proof.
type look struct {
	ClaimKey
	result string // one of postern.FindingXxx
	detail string
}

// proveClaims looks for the proof of each claim until ctx is done, and forgets those
// whose time is over.
func (c *Coordinator) proveClaims(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-c.claimed:
		case <-ctx.Done():
			return nil
		}
		wait, err := c.lookRound(ctx)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("proofs of host names not looked for", "err", err)
			wait = lookIdle
		}
		timer.Reset(wait)
	}
}

// lookRound looks for the proofs of the claims that are due, and returns when to do so
// again.
func (c *Coordinator) lookRound(ctx context.Context) (time.Duration, error) {
	var all []Claim
	err := c.cfg.Store.View(ctx, func(tx Tx) (err error) {
		all, err = tx.Claims().Unproven()
		return err
	})
	if err != nil || len(all) == 0 {
		return lookIdle, err
	}
	now := c.cfg.Now()
	if all[0].lapsed(now) {
		if err := c.update(ctx, actorSelf, (*change).lapseClaims); err != nil {
			return 0, err
		}
		all = slices.DeleteFunc(all, func(claim Claim) bool { return claim.lapsed(now) })
	}
	due, wait := c.pickDue(all, now)
	looks := make([]look, len(due))
	var g errgroup.Group
	g.SetLimit(looksAtOnce)
	for i, claim := range due {
		g.Go(func() error {
			looks[i] = c.lookFor(ctx, claim)
			return nil
		})
	}
	g.Wait()
	if ctx.Err() != nil {
		return 0, nil // the answers say more of the end than of DNS
	}
	return wait, c.settle(ctx, actorSelf, looks)
}

// pickDue returns the claims in all to be looked at now, and when to pick again.
func (c *Coordinator) pickDue(all []Claim, now time.Time) (due []Claim, wait time.Duration) {
	slices.SortStableFunc(all, func(a, b Claim) int { return a.due().Compare(b.due()) })
	snap := c.snapshot.Load()
	own := make(map[string]int) // by tenant
	wait = lookIdle
	for _, claim := range all {
		switch in := claim.due().Sub(now); {
		case c.cfg.Resolver == nil || snap.custom(claim.Host) != nil:
			// There is nothing that DNS could say.
		case in > 0:
			return due, max(min(wait, in), lookPause) // and so are all that follow
		default:
			// Those that do not fit come in the next round; those that do, too, unless
			// they are proven.
			wait = lookPause
			if len(due) < maxLooks && own[claim.Tenant] < maxOwnLooks && c.limits.look.allow(claim.Tenant) {
				own[claim.Tenant]++
				due = append(due, claim)
			}
		}
	}
	return due, wait
}

// lookFor asks DNS for the proof of claim.
func (c *Coordinator) lookFor(ctx context.Context, claim Claim) look {
	l := look{ClaimKey: claim.ClaimKey, result: postern.FindingError}
	if c.cfg.Resolver == nil {
		l.detail = noResolver
		return l
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	texts, err := c.cfg.Resolver.TXT(ctx, claim.challengeName())
	switch {
	case errors.Is(err, dnscheck.ErrNone):
		l.result, l.detail = postern.FindingMissing, "there is no TXT record at "+claim.challengeName()
	case err != nil:
		l.detail = "DNS does not answer for " + claim.challengeName() + ": " + words(err.Error())
	case slices.Contains(texts, claim.challengeText()):
		l.result, l.detail = postern.FindingOK, "the TXT record is there"
	default:
		l.result, l.detail = postern.FindingMissing, fmt.Sprintf("no TXT record at %s is %q; %s", claim.challengeName(), claim.challengeText(), nearly(texts, claim))
	}
	return l
}

// noResolver is said where the coordinator cannot ask DNS.
const noResolver = "this coordinator asks no DNS, so no host name can be proven"

// nearly says of the TXT records texts, which are not the proof of claim, what people
// most often get wrong.
func nearly(texts []string, claim Claim) string {
	for _, text := range texts {
		switch {
		case strings.Trim(text, "\"' ") == claim.challengeText():
			return "there is one with quotes or spaces around it: enter it without them"
		case strings.EqualFold(text, claim.Secret):
			return "there is one without " + challengePrefix + " in front"
		}
	}
	if len(texts) == 1 {
		return "there is another one"
	}
	return fmt.Sprintf("there are %d others", len(texts))
}

// settle makes routes of the claims whose proof was seen, in actor's name, and keeps of
// the others what was found. A proof that comes too late is put down as an error.
func (c *Coordinator) settle(ctx context.Context, actor string, looks []look) error {
	var rest []look
	for i := range looks {
		l := &looks[i]
		if l.result == postern.FindingOK {
			err := c.update(ctx, actor, func(ch *change) error { return ch.proveClaim(l.ClaimKey) })
			var p *postern.Problem
			switch {
			case err == nil:
				continue
			case !errors.As(err, &p):
				return err
			}
			l.result, l.detail = postern.FindingError, p.Detail
		}
		rest = append(rest, *l)
	}
	if len(rest) == 0 {
		return nil
	}
	return c.update(ctx, actor, func(ch *change) error {
		for _, l := range rest {
			claim, err := ch.Claims().Get(l.ClaimKey)
			if errors.Is(err, ErrNotFound) || err == nil && !claim.Proven.IsZero() {
				continue // removed, or proven, in the meantime
			}
			if err != nil {
				return err
			}
			ch.shown = ch.shown || claim.Finding != l.detail
			claim.Checked, claim.Finding = ch.now, l.detail
			if err := ch.Claims().Put(claim); err != nil {
				return err
			}
		}
		return nil
	})
}
