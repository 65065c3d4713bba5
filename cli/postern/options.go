package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"postern"
)

// operands returns the words behind the command, one for each of names, which
// are for complaints. Those for names in brackets, the last, may be missing.
func operands(c *cli.Context, names ...string) ([]string, error) {
	words := c.Args().Slice()
	name := c.Command.HelpName
	for _, word := range words {
		// What stands on a command line is seen by every user of the machine,
		// and would be once more in the complaint.
		if isSecret(word) {
			return nil, secretMisplaced(name)
		}
	}
	switch {
	case len(words) < len(names) && names[len(words)][0] != '[':
		return nil, misuse("`"+name+" --help` shows examples", "%s: %s is missing", name, names[len(words)])
	case len(words) > len(names):
		return nil, misuse("`"+name+" --help` shows what it takes", "%s: unexpected argument %q", name, words[len(names)])
	}
	return words, nil
}

func secretMisplaced(name string) error {
	return misuse("put it into a file and name that with --token-file, or - for standard input",
		"%s: a token does not belong on a command line", name)
}

func isSecret(word string) bool {
	kinds := []postern.TokenKind{postern.JoinToken, postern.AdminToken}
	return slices.ContainsFunc(kinds, func(k postern.TokenKind) bool { return strings.HasPrefix(word, string(k)+"_") })
}

func dataFlag(usage string) cli.Flag {
	return &cli.StringFlag{Name: "data", EnvVars: []string{"POSTERN_DATA"}, Usage: usage}
}

// dataDir returns what --data says, else the place that role has by default.
func dataDir(c *cli.Context, role postern.Role) string {
	if dir := c.String("data"); dir != "" {
		return dir
	}
	return defaultData(role)
}

// defaultData returns where role keeps its state if nothing else is said; an
// empty role stands for the directory above all of them.
func defaultData(role postern.Role) string {
	if runtime.GOOS == "windows" {
		return filepath.Join(os.Getenv("ProgramData"), "postern", string(role))
	}
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib/postern", string(role))
	}
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) { // as the XDG base directory specification asks
		home, err := os.UserHomeDir()
		if err != nil {
			home = "."
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "postern", string(role))
}

// logFlags are the options of everything that runs until it is stopped.
func logFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "log-level", Value: "info", Usage: "`LEVEL`: debug, info, warn or error"},
		&cli.StringFlag{Name: "log-format", Value: "text", Usage: "`FORMAT` of the log on standard error: text or json"},
	}
}

// logger returns the logger that c's options ask for.
func logger(c *cli.Context) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return nil, misuse("choose debug, info, warn or error", "unknown log level %q", c.String("log-level"))
	}
	opts := &slog.HandlerOptions{Level: level}
	switch format := c.String("log-format"); format {
	case "json":
		return slog.New(slog.NewJSONHandler(c.App.ErrWriter, opts)), nil
	case "text":
		// Under systemd the journal has the time already.
		if os.Getenv("JOURNAL_STREAM") != "" {
			opts.ReplaceAttr = withoutTime
		}
		return slog.New(slog.NewTextHandler(c.App.ErrWriter, opts)), nil
	default:
		return nil, misuse("choose text or json", "unknown log format %q", format)
	}
}

func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// joinTokenEnv holds a join token.
const joinTokenEnv = "POSTERN_TOKEN"

func tokenFlag() cli.Flag {
	return &cli.StringFlag{Name: "token-file", Usage: "`FILE`: holds the join token, - for standard input; else it is in $" + joinTokenEnv}
}

// joinToken returns the token that c's options name.
func joinToken(c *cli.Context) (postern.Token, error) {
	text := os.Getenv(joinTokenEnv)
	if file := c.String("token-file"); file != "" {
		var err error
		if text, err = readSecret(c, "token", file); err != nil {
			return postern.Token{}, err
		}
	} else if text == "" {
		return postern.Token{}, misuse("give --token-file FILE (- for standard input) or set "+joinTokenEnv+"; `postern tokens create` makes one",
			"%s: no join token", c.Command.HelpName)
	}
	token, err := postern.ParseToken(text)
	if err != nil {
		return postern.Token{}, err
	}
	if token.Kind != postern.JoinToken {
		return postern.Token{}, fail("make one on the coordinator: postern tokens create",
			fmt.Errorf("%w: it is a %s token, and joining takes a %s token", postern.ErrToken, token.Kind, postern.JoinToken))
	}
	return token, nil
}

// maxSecret bounds a file with a token, in bytes.
const maxSecret = 64 << 10

// readSecret returns the content of file, of standard input for "-", where a secret is
// that is called what. From a terminal it reads one line, unseen.
func readSecret(c *cli.Context, what, file string) (string, error) {
	if file != "-" {
		if isSecret(file) {
			return "", secretMisplaced(c.Command.HelpName)
		}
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			return "", fail("name the file that holds the "+what+", or - for standard input", fmt.Errorf("%s file %s: no such file", what, file))
		} else if err != nil {
			return "", err
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, maxSecret))
		return string(data), err
	}
	if in, ok := c.App.Reader.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		fmt.Fprintf(c.App.ErrWriter, "The %s (not shown): ", what)
		defer fmt.Fprintln(c.App.ErrWriter)
		line, err := term.ReadPassword(int(in.Fd()))
		return string(bytes.TrimSpace(line)), err
	}
	data, err := io.ReadAll(io.LimitReader(c.App.Reader, maxSecret))
	return string(data), err
}
