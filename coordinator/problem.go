package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"postern"
)

func invalid(err error, hint string) *postern.Problem {
	return postern.NewProblem(http.StatusUnprocessableEntity, postern.CodeInvalid, err.Error(), hint)
}

func unauthorized(detail, hint string) *postern.Problem {
	return postern.NewProblem(http.StatusUnauthorized, postern.CodeUnauthorized, detail, hint)
}

func forbidden(detail, hint string) *postern.Problem {
	return postern.NewProblem(http.StatusForbidden, postern.CodeForbidden, detail, hint)
}

func taken(detail, hint string) *postern.Problem {
	return postern.NewProblem(http.StatusConflict, postern.CodeTaken, detail, hint)
}

func tooMany() *postern.Problem {
	return postern.NewProblem(http.StatusTooManyRequests, postern.CodeTooMany,
		"too many requests in a short time", "wait a few seconds and try again")
}

// notFound turns an ErrNotFound about what into a Problem and returns any other
// error as it is. An empty hint is for who asks: a command and a page are told
// different things to do about it, by the Problem's code.
func notFound(err error, what, name, hint string) error {
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	return postern.NewProblem(http.StatusNotFound, postern.CodeNotFound, fmt.Sprintf("there is no %s %q", what, name), hint)
}

// Problem returns err as the one who asked may read it. What is not theirs is
// logged.
func (c *Coordinator) Problem(ctx context.Context, err error) *postern.Problem {
	var p *postern.Problem
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &tooLong):
		return postern.NewProblem(http.StatusRequestEntityTooLarge, postern.CodeInvalid,
			fmt.Sprintf("the request's body has more than %d bytes", tooLong.Limit), "")
	case errors.Is(err, ErrFull):
		c.log.Error("disk full", "err", err)
		return postern.NewProblem(http.StatusInsufficientStorage, postern.CodeUnavailable,
			"the coordinator's disk is full; nothing was changed", "")
	case ctx.Err() != nil:
		return postern.NewProblem(http.StatusServiceUnavailable, postern.CodeUnavailable,
			"the coordinator is stopping, or the request was given up", "try again")
	}
	c.log.Error("request failed", "err", err)
	return postern.NewProblem(http.StatusInternalServerError, postern.CodeInternal,
		"the coordinator failed to do it; nothing was changed", "")
}

func writeProblem(w http.ResponseWriter, p *postern.Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	if p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "10")
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer") // RFC 9110, section 11.6.1: a MUST
	}
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p) // the reader's trouble if it fails
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // the reader's trouble if it fails
}

// cut bounds a stranger's text to maxDetail bytes of valid UTF-8.
func cut(s string) string {
	if len(s) > maxDetail {
		s = s[:maxDetail]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// maxTitle bounds titles and notes, in bytes.
const maxTitle = 200

// checkText reports what is wrong with s as a text for people.
func checkText(what, s string) error {
	if len(s) > maxTitle || !utf8.ValidString(s) || strings.ContainsFunc(s, isControl) {
		return fmt.Errorf("the %s is not one line of at most %d bytes of UTF-8", what, maxTitle)
	}
	return nil
}

func isControl(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }
