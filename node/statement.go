package node

import (
	"crypto/ed25519"
	"encoding/json"
	"time"

	"postern"
)

// hostStatuses returns what the coordinator is told of our host names, sorted.
func (n *Node) hostStatuses(now time.Time) []postern.HostStatus {
	hosts := []postern.HostStatus{}
	for _, r := range n.Status().Routes {
		hosts = append(hosts, r.hostStatus(now))
	}
	return hosts
}

func (r Route) hostStatus(now time.Time) postern.HostStatus {
	h := postern.HostStatus{Host: r.Host, State: postern.CertificateWaiting, Error: r.Error}
	if r.State == RouteAlarm {
		h.Alarm, h.Error = r.Error, ""
	}
	c := r.Certificate
	if c == nil {
		return h
	}
	h.Source, h.Issuer, h.SHA256, h.SPKI = c.Source, c.Issuer, c.SHA256, c.SPKI
	h.NotAfter, h.Renewal, h.Account = c.NotAfter, c.Renewal, c.Account
	if len(c.Authorities) > 0 {
		h.Authority = c.Authorities[0]
	}
	if c.SHA256 != "" || c.Error != "" {
		h.Error = c.Error
	}
	switch {
	case c.SHA256 == "": // still to come
	case now.After(c.NotAfter):
		h.State = postern.CertificateExpired
	case c.Error != "" && !c.Renewal.IsZero() && now.After(c.Renewal):
		h.State = postern.CertificateLate
	default:
		h.State = postern.CertificateValid
	}
	return h
}

// newStatement returns what the node with id says of the certificates of hosts, signed
// with key.
func newStatement(id string, key ed25519.PrivateKey, hosts []postern.HostStatus, now time.Time) (*postern.Statement, error) {
	held := postern.Holdings{Node: id, Time: now.UTC().Truncate(time.Second), Hosts: []postern.Holding{}}
	for _, h := range hosts {
		if h.SPKI != "" {
			held.Hosts = append(held.Hosts, postern.Holding{Host: h.Host, SHA256: h.SHA256, SPKI: h.SPKI, NotAfter: h.NotAfter})
		}
	}
	payload, err := json.Marshal(held)
	if err != nil {
		return nil, err
	}
	return &postern.Statement{Payload: payload, Signature: ed25519.Sign(key, postern.StatementMessage(payload))}, nil
}
