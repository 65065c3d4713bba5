package node

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"postern"
)

func TestHostStatus(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	held := func(c Certificate) *Certificate {
		c.Source, c.SHA256, c.SPKI = SourceACME, "aa", "bb"
		return &c
	}
	soon, later, past := now.Add(time.Hour), now.Add(1000*time.Hour), now.Add(-time.Hour)
	tests := []struct {
		name  string
		route Route
		want  postern.HostStatus
	}{
		{"well", Route{State: RouteReady, Certificate: held(Certificate{NotAfter: later, Renewal: soon})},
			postern.HostStatus{State: postern.CertificateValid, NotAfter: later, Renewal: soon}},
		{"nothing published", Route{State: RouteWaiting, Error: "no service"},
			postern.HostStatus{State: postern.CertificateWaiting, Error: "no service"}},
		{"refused", Route{State: RouteWaiting, Error: "no certificate: caa", Certificate: &Certificate{Source: SourceACME, Error: "caa", Account: "https://ca/1"}},
			postern.HostStatus{State: postern.CertificateWaiting, Error: "caa", Account: "https://ca/1"}},
		{"none, and no attempt yet", Route{State: RouteWaiting, Error: "no certificate: none yet", Certificate: &Certificate{Source: SourceACME}},
			postern.HostStatus{State: postern.CertificateWaiting, Error: "no certificate: none yet"}},
		{"renewal failed, in time yet", Route{State: RouteReady, Certificate: held(Certificate{NotAfter: later, Renewal: soon, Error: "down"})},
			postern.HostStatus{State: postern.CertificateValid, NotAfter: later, Renewal: soon, Error: "down"}},
		{"renewal is late", Route{State: RouteReady, Certificate: held(Certificate{NotAfter: later, Renewal: past, Error: "down"})},
			postern.HostStatus{State: postern.CertificateLate, NotAfter: later, Renewal: past, Error: "down"}},
		{"over", Route{State: RouteReady, Certificate: held(Certificate{NotAfter: past, Error: "down"})},
			postern.HostStatus{State: postern.CertificateExpired, NotAfter: past, Error: "down"}},
		{"somebody in between", Route{State: RouteAlarm, Error: "another certificate", Certificate: held(Certificate{NotAfter: later})},
			postern.HostStatus{State: postern.CertificateValid, NotAfter: later, Alarm: "another certificate"}},
		{"not seen from outside yet", Route{State: RouteWaiting, Error: "no gateway", Certificate: held(Certificate{NotAfter: later})},
			postern.HostStatus{State: postern.CertificateValid, NotAfter: later}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.route.Host, tt.want.Host = "a.test", "a.test"
			if c := tt.route.Certificate; c != nil {
				tt.want.Source, tt.want.SHA256, tt.want.SPKI = c.Source, c.SHA256, c.SPKI
			}
			if got := tt.route.hostStatus(now); got != tt.want {
				t.Errorf("got %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestStatement(t *testing.T) {
	key, other := postern.NewIdentityPrivate(), postern.NewIdentityPrivate()
	now := time.Date(2026, 11, 27, 12, 0, 0, 5, time.UTC)
	s, err := newStatement("n1", key.Key(), []postern.HostStatus{
		{Host: "a.test", SHA256: "aa", SPKI: "bb", NotAfter: now}, {Host: "b.test", State: postern.CertificateWaiting},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	held, err := s.Open(key.Public())
	if err != nil || held.Node != "n1" || !held.Time.Equal(now.Truncate(time.Second)) || len(held.Hosts) != 1 ||
		held.Hosts[0] != (postern.Holding{Host: "a.test", SHA256: "aa", SPKI: "bb", NotAfter: now}) {
		t.Errorf("opened: %+v, %v", held, err)
	}
	if _, err := s.Open(other.Public()); err == nil {
		t.Error("opened with another's identity")
	}
	changed := *s
	changed.Payload = bytes.Replace(s.Payload, []byte("bb"), []byte("cc"), 1)
	if _, err := changed.Open(key.Public()); err == nil || !strings.Contains(err.Error(), "not signed") {
		t.Errorf("opened with a changed payload: %v", err)
	}
	if _, err := new(postern.Statement).Open(key.Public()); err == nil {
		t.Error("opened without a signature")
	}
}
