package dnscheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	rounds = 2 // over all servers, until one answers
	// udpSize is the largest answer over UDP that is asked for (RFC 6891,
	// section 6.2.3): what crosses any network without fragments.
	udpSize = 1232
	maxJunk = 100 // datagrams of one try that do not match the question
)

// ask asks the servers in turn for records of type typ at name, and returns the
// first answer that says yes or no: NOERROR or NXDOMAIN.
func (r *Resolver) ask(ctx context.Context, name string, typ uint16) (*dns.Msg, netip.AddrPort, error) {
	servers, err := r.servers()
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), typ)
	query.SetEdns0(udpSize, false)
	var failed error
	for range rounds {
		failed = nil
		for _, server := range servers {
			query.Id = dns.Id()
			answer, err := r.try(ctx, server, query)
			if err == nil {
				return answer, server, nil
			}
			if ctx.Err() != nil {
				err = fmt.Errorf("ask DNS server %v for %s: %w", server, asked(query), context.Cause(ctx))
			}
			if failed != nil {
				err = fmt.Errorf("%w; %w", failed, err)
			}
			failed = err
			if ctx.Err() != nil {
				return nil, server, failed
			}
		}
	}
	return nil, netip.AddrPort{}, failed
}

// try asks one server, over TCP if it cuts the answer short.
func (r *Resolver) try(ctx context.Context, server netip.AddrPort, query *dns.Msg) (*dns.Msg, error) {
	answer, err := r.exchange(ctx, "udp", server, query)
	if err == nil && answer.Truncated {
		answer, err = r.exchange(ctx, "tcp", server, query)
		if err == nil && answer.Truncated {
			err = errors.New("the answer is cut short, even over TCP")
		}
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("DNS server %v did not answer for %s within %v", server, asked(query), r.timeout)
	case err != nil:
		return nil, fmt.Errorf("ask DNS server %v for %s: %w", server, asked(query), err)
	case answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError:
		return nil, fmt.Errorf("DNS server %v answered %s for %s%s", server, rcode(answer.Rcode), asked(query), reason(answer))
	}
	return answer, nil
}

func (r *Resolver) exchange(ctx context.Context, network string, server netip.AddrPort, query *dns.Msg) (*dns.Msg, error) {
	deadline := time.Now().Add(r.timeout)
	dialer := net.Dialer{Deadline: deadline}
	c, err := dialer.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, timedOut(err)
	}
	defer c.Close()
	if err := c.SetDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()

	// What is longer than was asked for is still read whole.
	conn := &dns.Conn{Conn: c, UDPSize: 4096}
	if err := conn.WriteMsg(query); err != nil {
		return nil, timedOut(err)
	}
	// Over UDP anybody may have sent what comes: all but a match is passed over
	// (RFC 5452, section 9.1).
	for range maxJunk {
		wire, err := conn.ReadMsgHeader(nil)
		if errors.Is(err, dns.ErrShortRead) && network == "udp" {
			continue
		}
		if err != nil {
			return nil, timedOut(err)
		}
		answer, err := match(query, wire)
		if err == nil || network == "tcp" {
			return answer, err
		}
	}
	return nil, errors.New("too much came that is no answer")
}

// timedOut makes one error of the several that say so: a dialer has its own.
func timedOut(err error) error {
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return os.ErrDeadlineExceeded
	}
	return err
}

// match parses wire and reports what keeps it from being the answer to query.
func match(query *dns.Msg, wire []byte) (*dns.Msg, error) {
	answer := new(dns.Msg)
	// One that was cut in the middle of a record has a whole beginning, which
	// is enough to ask again over TCP.
	if err := answer.Unpack(wire); err != nil && !answer.Truncated {
		return nil, fmt.Errorf("the answer is malformed: %w", err)
	}
	q := query.Question[0]
	switch {
	case answer.Id != query.Id || !answer.Response || answer.Opcode != dns.OpcodeQuery:
		return nil, errors.New("what came is no answer to the question")
	case len(answer.Question) == 0 && answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError:
		// Some refuse with no more than a header. That decides nothing.
		return answer, nil
	case len(answer.Question) != 1 || fold(answer.Question[0].Name) != fold(q.Name) ||
		answer.Question[0].Qtype != q.Qtype || answer.Question[0].Qclass != q.Qclass:
		return nil, errors.New("what came answers another question")
	}
	return answer, nil
}

// asked names the question of a query, such as "CAA of example.com".
func asked(query *dns.Msg) string {
	q := query.Question[0]
	return dns.TypeToString[q.Qtype] + " of " + fold(q.Name)
}

func rcode(code int) string {
	if s, ok := dns.RcodeToString[code]; ok {
		return s
	}
	return fmt.Sprintf("RCODE %d", code)
}

// reason returns what a server adds to a failure (RFC 8914), "" if nothing.
func reason(answer *dns.Msg) string {
	opt := answer.IsEdns0()
	if opt == nil {
		return ""
	}
	for _, option := range opt.Option {
		if ede, ok := option.(*dns.EDNS0_EDE); ok {
			words := dns.ExtendedErrorCodeToString[ede.InfoCode]
			if ede.ExtraText != "" {
				words = strings.TrimPrefix(words+": "+clip(escape(ede.ExtraText)), ": ")
			}
			if words != "" {
				return " (" + words + ")"
			}
		}
	}
	return ""
}
