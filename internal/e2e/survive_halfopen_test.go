//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// patientAddress is where the application listens that answers to the end of its days.
const patientAddress = "192.168.77.2:9000"

// patient is a child: an application that begins an answer and never ends it.
func patient() error {
	return http.ListenAndServe(patientAddress, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "wait")
		_ = http.NewResponseController(w).Flush()
		if r.URL.Path == "/wait" {
			<-r.Context().Done()
		}
	}))
}

// promisedReaped is how long at most an open connection is kept whose other end is gone:
// 30 s without a packet, and three probes as far apart.
const promisedReaped = 120 * time.Second

// A browser, or a node, is gone without a word while a connection is open that neither
// side writes to: the gateway lets go of it (R11).
func TestSurviveHalfOpen(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, blackhole string
		browser         func(*lab) string // its namespace
	}{
		{"browser", "tcp sport 443 drop\n tcp dport 443 drop", func(l *lab) string { return l.home }},
		{"node", "drop", func(l *lab) string { return l.world }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := bareLab(t)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			start(t, "application", []string{childEnv + "=patient"}, "ip", "netns", "exec", l.home, self)
			l.publish = []string{"long=http://" + patientAddress}
			l.settle()
			open := func() int {
				var s struct{ Counts struct{ Open int } }
				if err := l.d.gatewaySocket("/v1/status", &s); err != nil {
					t.Fatal(err)
				}
				return s.Counts.Open
			}
			eventually(t, survivePatience, func() error {
				if n := open(); n != 0 {
					return fmt.Errorf("%d connections are open before there is any", n)
				}
				return nil
			})
			host := "long.acme." + natDomain
			browser := start(t, "browser", nil, "ip", "netns", "exec", tt.browser(l), "curl", "--silent", "--show-error", "--no-buffer",
				"--cacert", l.d.caFile(), "--resolve", host+":443:"+natGateway, "https://"+host+"/wait")
			eventually(t, survivePatience, func() error {
				if !strings.Contains(browser.out.String(), "wait") {
					return errors.New("the answer has not begun")
				}
				return nil
			})
			l.block(tt.blackhole)
			begin := time.Now()
			if n := open(); n == 0 {
				t.Fatal("no connection is open")
			}
			eventually(t, promisedReaped+survivePatience, func() error {
				if n := open(); n != 0 {
					return fmt.Errorf("%d connections are open", n)
				}
				return nil
			})
			recovered(t, "R11", tt.name+" gone without a word: the gateway's connection is closed", promisedReaped, survivePatience, time.Since(begin))
		})
	}
}
