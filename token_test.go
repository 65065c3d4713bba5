package postern_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"reflect"
	"strings"
	"testing"

	"postern"
)

func newToken() postern.Token {
	root := postern.RootHash{1, 2, 3}
	return postern.NewToken(postern.JoinToken, root, "https://control.apps.example.com", "https://203.0.113.7:8443")
}

// resealed returns text with a line break at i and the checksum that belongs to it.
func resealed(text string, i int) string {
	signed := text[:i] + "\n" + text[i:strings.LastIndexByte(text, '_')]
	return fmt.Sprintf("%s_%08x", signed, crc32.ChecksumIEEE([]byte(signed)))
}

func TestTokenRoundTrip(t *testing.T) {
	for _, kind := range []postern.TokenKind{postern.JoinToken, postern.AdminToken} {
		want := postern.NewToken(kind, postern.RootHash{9}, "https://[2001:db8::1]:8443")
		got, err := postern.ParseToken(" " + want.Secret() + "\n")
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) || got.Public() != want.Public() {
			t.Errorf("got %#v, want %#v", got, want)
		}
	}
}

func TestParseTokenRefuses(t *testing.T) {
	good := newToken().Secret()
	middle := len(good) / 2
	flip := byte('A')
	if good[middle] == 'A' {
		flip = 'B'
	}
	bad := newToken()
	bad.URLs = []string{"http://control.example.com"}
	none := newToken()
	none.URLs = nil
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "empty"},
		{"white space", " \n", "empty"},
		{"something else", "hello", "does not start with"},
		{"another's token", "ghp_0123456789", "does not start with"},
		{"one character wrong", good[:middle] + string(flip) + good[middle+1:], "checksum"},
		{"cut short", good[:len(good)-1], "checksum"},
		{"line break", resealed(good, middle), "base64url"},
		{"no checksum", "pstjoin1_AAAA", "no checksum"},
		{"too long", "pstjoin1_" + strings.Repeat("A", 5000), "characters"},
		{"other kind's prefix", "pstadmin1" + strings.TrimPrefix(good, "pstjoin1"), "checksum"},
		{"plain http", bad.Secret(), "want https://"},
		{"no coordinator", none.Secret(), "names 0 coordinators"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := postern.ParseToken(tt.text)
			if !errors.Is(err, postern.ErrToken) {
				t.Fatalf("got %v, want ErrToken", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want it to say %q", err, tt.want)
			}
			if len(tt.text) > 20 && strings.Contains(err.Error(), tt.text[9:20]) {
				t.Errorf("the error quotes the token: %v", err)
			}
		})
	}
}

func TestCheckControlURL(t *testing.T) {
	for _, good := range []string{"https://a.example", "https://203.0.113.7:8443", "https://[2001:db8::1]", "https://a.example/"} {
		if err := postern.CheckControlURL(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "a.example", "http://a.example", "https://", "https://a.example/x", "https://u:p@a.example", "https://a.example?x", "https:a.example", "https://a.example:x"} {
		if err := postern.CheckControlURL(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestIDsInText(t *testing.T) {
	type ids struct {
		Token postern.TokenID
		Root  postern.RootHash
	}
	want := ids{postern.TokenID{1, 2}, postern.RootHash{3, 4}}
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got ids
	if err := json.Unmarshal(data, &got); err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if err := postern.CheckLabel("node", postern.NewID()); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{`{"Token":"x"}`, `{"Root":"x"}`, `{"Token":"AAAAAAAAAAAAAAAA"}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(newToken().Secret())
	f.Add(postern.NewToken(postern.AdminToken, postern.RootHash{}, "https://x").Secret())
	f.Add("pstjoin1_AQAA_00000000")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := postern.ParseToken(text)
		if err != nil {
			return
		}
		// What is accepted has one spelling.
		if got := token.Secret(); got != strings.TrimSpace(text) {
			t.Errorf("%q came back as %q", text, got)
		}
	})
}
