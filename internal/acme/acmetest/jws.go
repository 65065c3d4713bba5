package acmetest

import (
	"encoding/base64"
	"encoding/json"
)

// keyID returns the account's URI in a request's protected header (RFC 8555, section
// 6.2).
func keyID(body []byte) (string, error) {
	var jws struct{ Protected string }
	if err := json.Unmarshal(body, &jws); err != nil {
		return "", err
	}
	text, err := base64.RawURLEncoding.DecodeString(jws.Protected)
	if err != nil {
		return "", err
	}
	var head struct{ Kid string }
	return head.Kid, json.Unmarshal(text, &head)
}
