//go:build e2e

package e2e

import (
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"

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
func later() int {
	var private, public []byte
	if _, err := fmt.Sscanf(os.Getenv(laterEnv), "%x %x", &private, &public); err != nil {
		fmt.Println(err)
		return 1
	}
	c, err := net.Dial("udp", net.JoinHostPort(natGateway, fmt.Sprint(natPort)))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write(initiation(private, public, time.Now().Add(time.Hour))); err != nil {
		fmt.Println(err)
		return 1
	}
	answer := make([]byte, 1500)
	if n, err := c.Read(answer); err != nil || n != 92 || answer[0] != 2 {
		fmt.Println("answer", n, err)
		return 1
	}
	fmt.Println("taken")
	return 0
}

// initiation returns WireGuard's first message of a handshake, made at now (whitepaper,
// section 5.4.2).
func initiation(private, peer []byte, now time.Time) []byte {
	curve := ecdh.X25519()
	static, err := curve.NewPrivateKey(private)
	if err != nil {
		panic(err)
	}
	remote, err := curve.NewPublicKey(peer)
	if err != nil {
		panic(err)
	}
	ephemeral, err := curve.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	shared := func(k *ecdh.PrivateKey) []byte {
		s, err := k.ECDH(remote)
		if err != nil {
			panic(err)
		}
		return s
	}
	mix := func(parts ...[]byte) []byte {
		sum := blake2s.Sum256(slices.Concat(parts...))
		return sum[:]
	}
	mac := func(key []byte, parts ...[]byte) []byte {
		h := hmac.New(func() hash.Hash { h, _ := blake2s.New256(nil); return h }, key)
		h.Write(slices.Concat(parts...))
		return h.Sum(nil)
	}
	kdf := func(key, input []byte) (first, second []byte) {
		secret := mac(key, input)
		first = mac(secret, []byte{1})
		return first, mac(secret, first, []byte{2})
	}
	seal := func(key, text, additional []byte) []byte {
		aead, err := chacha20poly1305.New(key)
		if err != nil {
			panic(err)
		}
		return aead.Seal(nil, make([]byte, chacha20poly1305.NonceSize), text, additional)
	}
	stamp := binary.BigEndian.AppendUint64(nil, 0x400000000000000a+uint64(now.Unix()))
	stamp = append(stamp, 0, 0, 0, 0)

	chain := mix([]byte("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"))
	sum := mix(mix(chain, []byte("WireGuard v1 zx2c4 Jason@zx2c4.com")), peer)
	chain, _ = kdf(chain, ephemeral.PublicKey().Bytes())
	sum = mix(sum, ephemeral.PublicKey().Bytes())
	chain, key := kdf(chain, shared(ephemeral))
	sealedStatic := seal(key, static.PublicKey().Bytes(), sum)
	sum = mix(sum, sealedStatic)
	_, key = kdf(chain, shared(static))
	sealedStamp := seal(key, stamp, sum)

	msg := slices.Concat([]byte{1, 0, 0, 0, 7, 7, 7, 7}, ephemeral.PublicKey().Bytes(), sealedStatic, sealedStamp)
	mac1, err := blake2s.New128(mix([]byte("mac1----"), peer))
	if err != nil {
		panic(err)
	}
	mac1.Write(msg)
	return append(mac1.Sum(msg), make([]byte, 16)...)
}
