package acmetest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// part decodes the part called name of a signed request (RFC 8555, section 6.2) into
// v: "protected", with the account's URI in it, or "payload".
func part(body []byte, name string, v any) error {
	var jws map[string]string
	if err := json.Unmarshal(body, &jws); err != nil {
		return err
	}
	text, err := base64.RawURLEncoding.DecodeString(jws[name])
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return json.Unmarshal(text, v)
}
