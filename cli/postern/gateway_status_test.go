package main

import (
	"os"
	"strings"
	"testing"

	"postern/gateway"
)

// Every reason has words, the same in the operator's guide.
func TestRefusals(t *testing.T) {
	guide, err := os.ReadFile("../../docs/operator.md")
	if err != nil {
		t.Fatal(err)
	}
	for r := gateway.Reason(0); ; r++ {
		if strings.HasPrefix(r.String(), "Reason(") {
			break
		}
		if row := "| `" + r.String() + "` | " + refusals[r] + " |"; refusals[r] == "" || !strings.Contains(string(guide), row) {
			t.Errorf("docs/operator.md has no line %s", row)
		}
	}
}

func TestRefusedFields(t *testing.T) {
	var s doorStatus
	s.Counts.Refused = map[gateway.Reason]int64{gateway.Offline: 2, gateway.PlainHTTP: 7}
	var out table
	doorFields(&out, s)
	if got, want := out.String(), "Refused:      7: HTTP without TLS\n              2: no node answered\n"; !strings.HasSuffix(got, want) {
		t.Errorf("got:\n%swant at the end:\n%s", got, want)
	}
}
