package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
)

// statusError is an error with the HTTP status that tells of it.
type statusError struct {
	status int
	detail string
}

func (e statusError) Error() string { return e.detail }

// Problem is the API's answer when something is wrong (RFC 9457), with the
// extension member errors as that RFC's section 3 sketches it.
type Problem struct {
	Type   string  `json:"type"` // always "about:blank": the status says it all
	Title  string  `json:"title"`
	Status int     `json:"status"`
	Detail string  `json:"detail,omitempty"`
	Errors Invalid `json:"errors,omitempty"`
}

// problemOf turns err into what a stranger may know of it. What is our own
// fault is logged and told without detail.
func (a *App) problemOf(ctx context.Context, err error) Problem {
	p := Problem{Type: "about:blank", Detail: err.Error()}
	var status statusError
	var invalid Invalid
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &status):
		p.Status = status.status
	case errors.As(err, &invalid):
		p.Status, p.Detail, p.Errors = http.StatusUnprocessableEntity, "What was sent has errors; nothing was saved.", invalid
	case errors.Is(err, ErrNotFound):
		p.Status = http.StatusNotFound
	case errors.As(err, &tooLong):
		p.Status = http.StatusRequestEntityTooLarge
	default:
		if ctx.Err() == nil {
			a.log.ErrorContext(ctx, "answer request", "err", err)
		}
		p.Status, p.Detail = http.StatusInternalServerError, "The ledger could not do this. The cause is in its log."
	}
	p.Title = http.StatusText(p.Status)
	return p
}

// writeProblem answers with p as application/problem+json.
func writeProblem(w http.ResponseWriter, p Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	writeJSON(w, p.Status, p)
}

// writeJSON answers with v. A write error means that the client is gone.
func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic("encode answer: " + err.Error())
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n'))
}
