package coordinator

import (
	"context"
	"errors"
	"net/netip"
)

// A Resolver asks DNS as certificate authorities do. Names have no trailing dot; its
// errors are for people to read, and wrap ErrNoRecord where DNS answered that there is
// nothing. It is safe for concurrent use, and ends when ctx does.
type Resolver interface {
	// TXT returns the TXT records of name, at least one, the strings of each joined.
	TXT(ctx context.Context, name string) ([]string, error)

	// Addresses returns where name leads, at least one, and the aliases on the way.
	Addresses(ctx context.Context, name string) (addrs []netip.Addr, via []string, err error)

	// CAA returns who may issue certificates for name. That there are no records at
	// all is an answer, and no error.
	CAA(ctx context.Context, name string) (CAA, error)
}

// ErrNoRecord is what a Resolver's errors wrap where there is no such record or name.
var ErrNoRecord = errors.New("no such record")

// A CAA is the set of CAA records that is in force for a name (RFC 8659, section 3).
type CAA interface {
	// Grade says who is kept from getting a certificate, as "A", "B", "C" or "none",
	// and why, for people. base is the deployment's domain.
	Grade(base string) (grade, why string)

	// Permits returns nil if authority, such as "letsencrypt.org", may issue to an ACME
	// account by a method (RFC 8657, section 3 and 4), else why not, for people.
	Permits(authority, account, method string) error
}
