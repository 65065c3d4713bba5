package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"postern"
	"postern/internal/archive"
	"postern/internal/datadir"
	"postern/internal/identity"
	"postern/internal/member"
	"postern/node"
)

// Exit codes.
const (
	exitDone    = 0
	exitFailed  = 1
	exitMisused = 2
)

// A failure is an error that knows what a person can do about it.
type failure struct {
	err  error
	hint string
	code int
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// misuse says that the command line makes no sense, in the words of format.
func misuse(hint, format string, args ...any) error {
	return &failure{err: fmt.Errorf(format, args...), hint: hint, code: exitMisused}
}

// fail adds to what went wrong what a person can do about it.
func fail(hint string, err error) error {
	return &failure{err: err, hint: hint, code: exitFailed}
}

// usageError puts what the flag package says into our words.
func usageError(c *cli.Context, err error, _ bool) error {
	name := "postern"
	if c.Command != nil && c.Command.HelpName != "" {
		name = c.Command.HelpName
	}
	text := err.Error()
	if option, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		text = fmt.Sprintf("unknown option %q", dashes(option))
	} else if option, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		text = fmt.Sprintf("option %q needs a value", dashes(option))
	} else if value, rest, ok := strings.Cut(text, " for flag -"); ok {
		option, reason, _ := strings.Cut(rest, ": ")
		if reason == "parse error" {
			reason = wanted(c, option)
		}
		text = fmt.Sprintf("%s for option %q: %s", value, dashes(option), reason)
	}
	return misuse("`"+name+" --help` shows its options", "%s: %s", name, text)
}

// wanted says what the option called name takes.
func wanted(c *cli.Context, name string) string {
	if c.Command != nil {
		for _, f := range c.Command.Flags {
			if _, is := f.(*cli.DurationFlag); is && slices.Contains(f.Names(), name) {
				return "want a time such as 72h or 30m; there are no days"
			}
		}
	}
	return "want a whole number"
}

func dashes(option string) string {
	if len(option) == 1 {
		return "-" + option
	}
	return "--" + option
}

// report tells a person of err in two lines on w, with the place in a file between
// them if it lies in one, and returns the exit code.
func report(w io.Writer, err error) int {
	if err == nil {
		return exitDone
	}
	message, hint, code := explain(err)
	fmt.Fprintf(w, "postern: error: %s\n", message)
	if file := (*node.FileError)(nil); errors.As(err, &file) && file.Source != "" {
		fmt.Fprintln(w, strings.TrimRight(file.Source, "\n"))
	}
	fmt.Fprintf(w, "postern: hint: %s\n", hint)
	return code
}

// explain returns err in one line, what to do about it in another, and the exit
// code it stands for.
func explain(err error) (message, hint string, code int) {
	message, code = oneLine(err.Error()), exitFailed
	var f *failure
	var p *postern.Problem
	var file *node.FileError
	switch {
	case errors.As(err, &file):
		hint = "correct the file; `postern node check " + file.Path + "` tries it"
	case errors.As(err, &f):
		hint, code = f.hint, f.code
	case errors.As(err, &p):
		hint = problemHint(p)
	default:
		hint = hintFor(err)
	}
	return message, oneLine(hint), code
}

// oneLine keeps an error that joins others on its line.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// hints are what to do about the errors that our own rooms name.
var hints = []struct {
	err  error
	hint string
}{
	{datadir.ErrInUse, "stop the other process, or choose another directory with --data"},
	{datadir.ErrOtherRole, "choose another directory with --data: each role keeps its own"},
	{datadir.ErrNewer, "install the Postern that wrote it, or a newer one; nothing was changed"},
	{datadir.ErrForeign, "choose an empty directory, or one that is not there yet, with --data"},
	{datadir.ErrUnwritable, "choose a directory that this user may write to with --data, or run as the user that owns it"},
	{member.ErrJoined, "`postern ROLE run` starts it; to join anew, stop it and use another --data directory"},
	{member.ErrNotJoined, "join first: `postern node join --token-file FILE`, or `postern gateway join` for a gateway"},
	{member.ErrUnreachable, "check that the coordinator runs and that this machine reaches its address; the token is not used up"},
	{archive.ErrEncrypted, "give the passphrase with --passphrase-file"},
	{archive.ErrPassphrase, "try the passphrase again, or another backup; nothing was changed"},
	{archive.ErrDamaged, "take another backup; nothing was changed"},
	{archive.ErrForeign, "name a file that `postern backup` wrote; nothing was changed"},
	{archive.ErrNewer, "install the Postern that wrote it, or a newer one; nothing was changed"},
	{node.ErrUnhealthy, "do what stands behind the arrows, and run it again"},
	{errNoGateway, "start it with `postern gateway run` or `postern up`, or name its data directory with --data"},
	{node.ErrNotRunning, "start it with `postern node run`, or name its data directory with --data"},
	{identity.ErrWrongRoot, "the token is of another deployment, or something in between answers in the coordinator's place; get a token from this coordinator"},
	{postern.ErrToken, "copy the whole token again, or make a new one on the coordinator: postern tokens create"},
	{node.ErrNoSockets, "the node itself does without; Windows has them from version 1803 and Server 2019 on"},
	{errAddrInUse, "another program listens there: stop it, or choose another address (`postern COMMAND --help` names the option)"},
	{errAddrNotAvail, "no network interface of this machine has that address; an address like :443 takes all of them"},
	{errDiskFull, "make room on the disk; nothing that was acknowledged is lost"},
}

// hintFor returns what to do about an error that is nobody's refusal.
func hintFor(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.hint
		}
	}
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return "check the name and this machine's DNS"
	case errors.As(err, &op) && op.Op == "listen" && errors.Is(err, fs.ErrPermission):
		return "ports below 1024 are for root: run as root, grant CAP_NET_BIND_SERVICE, or choose another address"
	case errors.As(err, &op) && op.Op == "listen":
		return "want HOST:PORT or :PORT with a port that is free"
	case errors.Is(err, fs.ErrPermission):
		return "run it as a user who may, such as root"
	case errors.Is(err, fs.ErrNotExist):
		return "check the path"
	case errors.As(err, &op) && op.Op == "dial", errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "check that the coordinator runs and that this machine reaches its address"
	}
	return "if the words above do not help, see `postern COMMAND --help`; where a command has --log-level, debug tells more"
}

// problemHint returns the coordinator's own hint, else one for its code.
func problemHint(p *postern.Problem) string {
	if p.Hint != "" {
		return p.Hint
	}
	switch p.Code {
	case postern.CodeInvalid:
		return "correct it and try again; `postern COMMAND --help` shows what is wanted"
	case postern.CodeUnauthorized:
		return "use a token of this deployment; on the coordinator's machine: postern tokens create --admin"
	case postern.CodeForbidden:
		return "ask the operator of the deployment"
	case postern.CodeNotFound:
		return "look it up in its list: `postern tenants list`, and so for users, tokens, nodes, gateways, routes and issuers"
	case postern.CodeTaken:
		return "choose another name, or remove the one that has it first"
	case postern.CodeQuarantined:
		return "names rest for 30 days after their release, so that nobody inherits another's visitors; choose another"
	case postern.CodeTokenUnknown, postern.CodeTokenUsed, postern.CodeTokenExpired, postern.CodeTokenRevoked:
		return "make a new one on the coordinator: postern tokens create --tenant NAME"
	case postern.CodeProof:
		return "try again; if it stays so, something in between changes what this machine sends"
	case postern.CodeRevoked:
		return "if that was a mistake, join again with a new token and an empty --data directory"
	case postern.CodeUnavailable:
		if p.Status == http.StatusInsufficientStorage {
			return "free space on the coordinator's disk and try again"
		}
		return "wait a moment and try again"
	case postern.CodeTooMany:
		return "wait a moment and try again"
	}
	return "the coordinator's log says why"
}
