//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern"
)

// promisedClock is how long it takes a node whose clock was set back to be reached again.
const promisedClock = 10 * time.Second

// The gateway has seen an hour later of the node than the node's clock says when it starts
// again, and takes all its greetings for replays. A new key is the way out (R9).
func TestSurviveClockSetBack(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var id struct {
		WireGuard postern.WireGuardPrivate `json:"wireguard"`
	}
	data, err := os.ReadFile(filepath.Join(l.d.data("office"), "identity.json"))
	if err == nil {
		err = json.Unmarshal(data, &id)
	}
	if err != nil {
		t.Fatal(err)
	}
	var gateways []postern.GatewayState
	l.d.cli(&gateways, "gateways", "list")
	l.office.kill()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sender := start(t, "later", []string{
		childEnv + "=later",
		laterEnv + "=" + hexText(id.WireGuard[:]) + " " + hexText(gateways[0].WireGuard[:]),
	}, "ip", "netns", "exec", l.home, self)
	<-sender.done
	if !strings.Contains(sender.out.String(), "taken") {
		t.Fatalf("the gateway does not take a greeting from later: %s", sender.out.tail(400))
	}
	l.office = l.again(l.office)
	took := l.answered(promisedClock + survivePatience)
	recovered(t, "R9", "the node's clock is an hour earlier than it was", promisedClock, survivePatience, took)
	if now := l.d.nodeStatus("office").Member.WireGuard; now == id.WireGuard.Public() {
		t.Error("the node is reached by the key that it had")
	}
	if n := strings.Count(l.office.out.String(), "another WireGuard key is in use"); n != 1 {
		t.Errorf("%d keys were made", n)
	}
}

// laterEnv has the private key to greet with and the public one to greet, in hex.
const laterEnv = "POSTERN_E2E_LATER"

func hexText(key []byte) string { return fmt.Sprintf("%x", key) }

// later greets the gateway as a node would whose clock is an hour ahead, and waits for its
// answer.
func later() error {
	var private, public []byte
	if _, err := fmt.Sscanf(os.Getenv(laterEnv), "%x %x", &private, &public); err != nil {
		return err
	}
	if err := greet([32]byte(private), [32]byte(public), time.Now().Add(time.Hour)); err != nil {
		return err
	}
	fmt.Println("taken")
	return nil
}

// greet has the gateway with the key peer take a greeting of the node's, made at now.
func greet(private, peer [32]byte, now time.Time) error {
	p, err := newParty(private, peer)
	if err != nil {
		return err
	}
	msg, opening, err := p.initiate(7, now)
	if err != nil {
		return err
	}
	c, err := net.Dial("udp", net.JoinHostPort(natGateway, fmt.Sprint(natPort)))
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write(msg); err != nil {
		return err
	}
	answer := make([]byte, 1500)
	n, err := c.Read(answer)
	if err != nil {
		return err
	}
	if n != responseSize || answer[0] != responseType {
		return fmt.Errorf("the answer has %d bytes and the type %d", n, answer[0])
	}
	_, err = p.conclude(opening, answer[:n])
	return err
}
