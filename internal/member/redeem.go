package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"postern"
)

// redeemTimeout bounds what a browser waits for a code to be redeemed.
const redeemTimeout = 10 * time.Second

// Tokens are what a sign-in's code is worth (RFC 6749, section 5.1, and OpenID Connect
// Core 1.0, section 3.1.3.3).
type Tokens struct {
	IDToken     string `json:"id_token"`
	AccessToken string `json:"access_token"`
}

// A TokenError is a refusal of a code (RFC 6749, section 5.2).
type TokenError struct {
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

func (e *TokenError) Error() string {
	if e.Description == "" {
		return fmt.Sprintf("the portal refuses the code: %s", e.Code)
	}
	return fmt.Sprintf("the portal refuses the code: %s: %.200s", e.Code, e.Description)
}

// Redeem changes a code of the portal, which form carries (RFC 6749, section 4.1.3),
// for tokens. It fails with a *TokenError if the code is refused, and with a
// *postern.Problem if this member is.
func (c *Client) Redeem(ctx context.Context, form url.Values) (Tokens, error) {
	ctx, cancel := context.WithTimeout(ctx, redeemTimeout)
	defer cancel()
	var out Tokens
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base()+postern.PathToken, strings.NewReader(form.Encode()))
	if err != nil {
		return out, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	resp, err := c.hc().Do(req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return out, fmt.Errorf("redeem a code: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		refused := new(TokenError)
		if json.Unmarshal(body, refused) == nil && refused.Code != "" {
			return out, refused
		}
		resp.Body = io.NopCloser(strings.NewReader(string(body)))
		return out, readProblem(resp)
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return out, fmt.Errorf("redeem a code: decode the answer: %w", err)
	}
	if out.IDToken == "" {
		return out, errors.New("redeem a code: the answer has no ID token")
	}
	return out, nil
}
