package dnscheck

import (
	"context"
	"net/netip"

	"postern"
)

type Resolver struct{}

func New(server string) (*Resolver, error) { return &Resolver{}, nil }

type Addresses struct {
	Addrs []netip.Addr
	Via   []string
}
type CAA struct {
	Flag       uint8
	Tag, Value string
}
type CAASet struct {
	Asked, Found string
	Via          []string
	Records      []CAA
}
type Wish struct {
	Authority, Account, Method string
	Wildcard                   bool
}
type Grade string

func (r *Resolver) TXT(ctx context.Context, name string) ([]string, error) { return nil, nil }
func (r *Resolver) Addresses(ctx context.Context, name string) (Addresses, error) {
	return Addresses{}, nil
}
func (r *Resolver) CAA(ctx context.Context, name string) (CAASet, error) { return CAASet{}, nil }
func (s CAASet) Permits(w Wish) error                                    { return nil }
func (s CAASet) Grade(base string) (Grade, string)                       { return "", "" }
func Record(host, authority, account string) postern.DNSRecord           { return postern.DNSRecord{} }
func NoWildcards(host string) postern.DNSRecord                          { return postern.DNSRecord{} }

const (
	GradeA    Grade = "A"
	GradeB    Grade = "B"
	GradeC    Grade = "C"
	GradeNone Grade = "none"
)
