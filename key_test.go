package postern_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"postern"
)

func TestPrivateKeysNeverPrint(t *testing.T) {
	wg, id, token := postern.NewWireGuardPrivate(), postern.NewIdentityPrivate(), newToken()
	text := func(k interface{ MarshalText() ([]byte, error) }) string {
		b, err := k.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	secrets := []string{text(wg), text(id), token.Secret(), fmt.Sprintf("%x", token.Seed), fmt.Sprint(token.Seed)}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("keys", "wg", wg, "id", id, "token", token)
	}
	for _, verb := range []string{"%v", "%s", "%q", "%+v", "%#v"} {
		fmt.Fprintf(&log, verb+verb+verb, wg, id, token)
	}
	for _, secret := range secrets {
		if strings.Contains(log.String(), secret) {
			t.Errorf("a secret was printed in\n%s", log.String())
		}
	}
}

func TestKeyText(t *testing.T) {
	k := postern.NewWireGuardPrivate()
	data, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	var back postern.WireGuardPrivate
	if err := json.Unmarshal(data, &back); err != nil || back != k {
		t.Errorf("key %s came back different, err %v", data, err)
	}
	for _, bad := range []string{"", "x", strings.Repeat("A", 43), strings.Repeat("A", 44), strings.Repeat("!", 44), strings.Repeat("A", 88), strings.Repeat("A", 43) + "\n="} {
		err := back.UnmarshalText([]byte(bad))
		if err == nil {
			t.Errorf("UnmarshalText(%q) took it", bad)
			continue
		}
		if bad != "" && bad != "x" && strings.Contains(err.Error(), bad) {
			t.Errorf("UnmarshalText(%q) quotes what may be a key: %v", bad, err)
		}
	}
}

func TestSharedSecret(t *testing.T) {
	a, b := postern.NewWireGuardPrivate(), postern.NewWireGuardPrivate()
	ab, err := a.Shared(b.Public())
	if err != nil {
		t.Fatal(err)
	}
	ba, err := b.Shared(a.Public())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ab, ba) {
		t.Error("the two halves do not agree")
	}
	if _, err := a.Shared(postern.WireGuardPublic{}); err == nil {
		t.Error("a public key of low order was taken (RFC 7748, section 6.1)")
	}
}
