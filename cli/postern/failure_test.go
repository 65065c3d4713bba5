package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"postern"
	"postern/internal/datadir"
	"postern/node"
)

func TestReport(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want string
		code int
	}{
		{"done", nil, "", 0},
		{"misuse", misuse("do this", "that is %q", "x"), "postern: error: that is \"x\"\npostern: hint: do this\n", 2},
		{"a sentinel behind words", fmt.Errorf("/data: %w", datadir.ErrInUse),
			"postern: error: /data: another process is using this data directory\n" +
				"postern: hint: stop the other process, or choose another directory with --data\n", 1},
		{"joined errors stay on one line", errors.Join(errors.New("one"), datadir.ErrInUse),
			"postern: error: one; another process is using this data directory\n" +
				"postern: hint: stop the other process, or choose another directory with --data\n", 1},
		{"the coordinator's own hint", fmt.Errorf("join: %w", postern.NewProblem(409, postern.CodeTokenUsed, "used", "get another")),
			"postern: error: join: used\npostern: hint: get another\n", 1},
		{"what is not there", postern.NewProblem(404, postern.CodeNotFound, "there is no user \"x\"", ""),
			"postern: error: there is no user \"x\"\npostern: hint: look it up in its list: `postern tenants list`, and so for users, tokens, nodes, gateways, routes and issuers\n", 1},
		{"an unhealthy node", fmt.Errorf("doctor: %w", node.ErrUnhealthy),
			"postern: error: doctor: " + node.ErrUnhealthy.Error() + "\npostern: hint: do what stands behind the arrows, and run it again\n", 1},
		{"a full disk", postern.NewProblem(507, postern.CodeUnavailable, "full", ""),
			"postern: error: full\npostern: hint: free space on the coordinator's disk and try again\n", 1},
		{"our hint around a problem", fail("ours", postern.NewProblem(409, postern.CodeTaken, "taken", "theirs")),
			"postern: error: taken\npostern: hint: ours\n", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var w bytes.Buffer
			if code := report(&w, tt.err); code != tt.code || w.String() != tt.want {
				t.Errorf("exit code %d, want %d; said:\n%swant:\n%s", code, tt.code, w.String(), tt.want)
			}
		})
	}
}

// Whatever goes wrong, there are two lines, and the second says something.
func TestEveryErrorHasAHint(t *testing.T) {
	errs := []error{errors.New("something nobody thought of")}
	for _, h := range hints {
		errs = append(errs, h.err)
	}
	for _, code := range []string{
		postern.CodeInvalid, postern.CodeUnauthorized, postern.CodeForbidden, postern.CodeNotFound, postern.CodeTaken,
		postern.CodeQuarantined, postern.CodeTokenUnknown, postern.CodeTokenUsed, postern.CodeTokenExpired,
		postern.CodeTokenRevoked, postern.CodeProof, postern.CodeRevoked, postern.CodeTooMany,
		postern.CodeUnavailable, postern.CodeInternal, "of a later version",
	} {
		errs = append(errs, postern.NewProblem(400, code, "problem "+code, ""))
	}
	for _, err := range errs {
		var w bytes.Buffer
		report(&w, err)
		lines := strings.Split(w.String(), "\n")
		if len(lines) != 3 || len(strings.TrimPrefix(lines[1], "postern: hint: ")) < 10 {
			t.Errorf("%v is told as:\n%s", err, w.String())
		}
	}
}

// Who ends a command is not told to look for what is wrong.
func TestInterrupted(t *testing.T) {
	signalled := errors.New("interrupt signal received")
	ended, end := context.WithCancelCause(t.Context())
	end(signalled)
	other := errors.New("other")
	tests := []struct {
		name string
		ctx  context.Context
		err  error
		want string
	}{
		{"done", ended, nil, ""},
		{"by the signal", ended, signalled, "interrupted"},
		{"in the middle of a request", ended, fail("check --portal", fmt.Errorf("portal: %w", context.Canceled)), "interrupted"},
		{"something else", ended, other, "other"},
		{"not ended", t.Context(), context.Canceled, "context canceled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := interrupted(tt.ctx, tt.err); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzReport(f *testing.F) {
	f.Add("line\r\nline", "hint\n")
	f.Fuzz(func(t *testing.T, message, hint string) {
		var w bytes.Buffer
		report(&w, fail(hint, errors.New(message)))
		if got := w.String(); strings.Count(got, "\n") != 2 || strings.Contains(got, "\r") || !strings.HasSuffix(got, "\n") {
			t.Errorf("not two lines: %q", got)
		}
	})
}
