package node

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// Codes of a bearerError (RFC 6750, section 3.1).
const (
	bearerRequest = "invalid_request"
	bearerToken   = "invalid_token"
	bearerScope   = "insufficient_scope"

	bearerTooMany = "" // none of the standard's: nothing is said of the token
)

// A bearerError is why a bearer token gets no request through.
type bearerError struct {
	code   string // bearerXxx
	detail string // a sentence for people
	err    error  // for the log; nil: detail says it all
}

func (e *bearerError) Error() string {
	if e.err != nil {
		return e.err.Error()
	}
	return e.detail
}

func (e *bearerError) Unwrap() error { return e.err }

// bearers returns the bearer tokens in h (RFC 6750, section 2.1). In a request that
// is as it should be there is one at most.
func bearers(h http.Header) (tokens []string) {
	for _, value := range h["Authorization"] {
		scheme, token, ok := strings.Cut(value, " ")
		token = strings.Trim(token, " ")
		if ok && token != "" && strings.EqualFold(scheme, "bearer") {
			tokens = append(tokens, token)
		}
	}
	return tokens
}

// issuerOf returns the issuer that a token names if it is a JWT, which is not
// verified; empty if it is anything else.
func issuerOf(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	return claims.Issuer
}

// ourBearer returns the bearer token of r that is for the node and not for the
// application: a personal access token, or one of the portal, be it good or not.
func (g *gate) ourBearer(t *table, r *http.Request) (string, error) {
	tokens := bearers(r.Header)
	for _, token := range tokens {
		if !isPAT(token) && (t.portal == nil || issuerOf(token) != t.portal.issuer) {
			continue
		}
		if len(r.Header["Authorization"]) > 1 {
			return token, &bearerError{code: bearerRequest, detail: "There is more than one Authorization header."}
		}
		return token, nil
	}
	return "", nil
}

// tokenPrefix begins every personal access token, so that secret scanners and people
// can tell what it is.
const tokenPrefix = "pst_pat_"

// bearer returns what token, one of ours, is worth at host. It fails with a
// *bearerError.
func (g *gate) bearer(t *table, r *http.Request, host, token string) (*credential, error) {
	if isPAT(token) {
		if g.ways.token == nil {
			return nil, &bearerError{code: bearerToken, detail: "The token is unknown here."}
		}
		return g.ways.token(r, host, token)
	}
	v, err := t.portal.accessToken(r.Context(), token, t.origin(host), t.tenant, g.now())
	if err != nil {
		return nil, &bearerError{bearerToken, "The token is not good for this address, or no longer good.", err}
	}
	arrived := g.now()
	return &credential{
		person: v.person, sid: v.sid, since: v.since, methods: v.methods, token: "access token",
		// What it began may outlast it, and no longer than a session may last.
		good: func(now time.Time) bool { return now.Before(arrived.Add(g.sessions.longest())) },
	}, nil
}
