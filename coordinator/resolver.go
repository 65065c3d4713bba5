package coordinator

import (
	"context"

	"postern/internal/dnscheck"
)

// A Resolver asks DNS as certificate authorities do: a dnscheck.Resolver, whose methods
// say more. Names have no trailing dot; its errors are for people to read, and are
// dnscheck.ErrNone where DNS answered that there is nothing. It is safe for concurrent
// use, and ends when ctx does.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
	Addresses(ctx context.Context, name string) (dnscheck.Addresses, error)
	CAA(ctx context.Context, name string) (dnscheck.CAASet, error)
}
