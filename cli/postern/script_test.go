//go:build cgo

package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"postern/internal/archive"
)

func TestMain(m *testing.M) {
	testscript.Main(checked{m}, map[string]func(){
		"postern": main,
		"ledger":  fakeLedger,
	})
}

// checked runs the tests and then looks for goroutines that they left behind.
type checked struct{ m *testing.M }

func (c checked) Run() int {
	code := c.m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fails": fails, "says": says, "await": await, "ports": ports,
			"ask": ask, "hangup": hangup, "repack": repack, "fetch": fetchURL, "execsql": execSQL, "occupy": occupy, "terminate": terminate,
		},
	})
}

// fails CODE PROGRAM ARGS… runs a program that is to exit with CODE.
func fails(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != want {
		ts.Fatalf("%s ended with %v, want exit status %d", args[1], err, want)
	}
}

// says ERROR HINT holds standard error against exactly these two lines. $NAME
// in them is an environment variable.
func says(ts *testscript.TestScript, _ bool, args []string) {
	want := fmt.Sprintf("postern: error: %s\npostern: hint: %s\n", os.Expand(args[0], ts.Getenv), os.Expand(args[1], ts.Getenv))
	if got := ts.ReadFile("stderr"); got != want {
		ts.Fatalf("standard error:\n%swant:\n%s", got, want)
	}
}

// patience bounds every wait of a script.
const scriptPatience = 30 * time.Second

// poll repeats try until it succeeds, or fails the script.
func poll(ts *testscript.TestScript, what string, try func() error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(scriptPatience)
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			ts.Fatalf("waited for %s: %v", what, err)
		}
	}
}

// await FILE REGEXP waits until FILE has a match. await PROGRAM ARGS… -- REGEXP
// repeats the program until its output has one.
func await(ts *testscript.TestScript, _ bool, args []string) {
	re := regexp.MustCompile(args[len(args)-1])
	poll(ts, strings.Join(args, " "), func() error {
		text := ""
		if len(args) == 2 {
			data, err := os.ReadFile(ts.MkAbs(args[0]))
			if err != nil {
				return err
			}
			text = string(data)
		} else {
			err := ts.Exec(args[0], args[1:len(args)-2]...)
			text = ts.ReadFile("stdout")
			if err != nil {
				return err
			}
		}
		if !re.MatchString(text) {
			return fmt.Errorf("no match in:\n%s", text)
		}
		return nil
	})
}

// ports NAME… sets variables to ports that are free on loopback, over TCP and UDP.
func ports(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		defer ln.Close() // not before all are chosen
		ts.Setenv(name, strconv.Itoa(ln.Addr().(*net.TCPAddr).Port))
	}
}

// occupy NAME listens on a port for the rest of the script and sets NAME to it.
func occupy(ts *testscript.TestScript, _ bool, args []string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { ln.Close() })
	ts.Setenv(args[0], strconv.Itoa(ln.Addr().(*net.TCPAddr).Port))
}

// fetch URL CA FILE stores what an https URL answers, under the trust of CA.
func fetchURL(ts *testscript.TestScript, _ bool, args []string) {
	hc, err := trusting(ts.MkAbs(args[1]))
	ts.Check(err)
	defer hc.CloseIdleConnections()
	poll(ts, args[0], func() error {
		resp, err := hc.Get(args[0])
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			return errors.Join(err, errors.New(resp.Status))
		}
		return os.WriteFile(ts.MkAbs(args[2]), body, 0o600)
	})
}

// ask SOCKET PATH FILE stores what is answered at a unix socket, or, if SOCKET is
// HOST:PORT, at a TCP port. With a ! in front it is to be 404.
func ask(ts *testscript.TestScript, neg bool, args []string) {
	dial := dialSocket(ts.MkAbs(args[0]))
	if strings.Contains(args[0], ":") {
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", args[0])
		}
	}
	hc := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	want := http.StatusOK
	if neg {
		want = http.StatusNotFound
	}
	poll(ts, strings.Join(args, " "), func() error {
		resp, err := hc.Get("http://it" + args[1])
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != want {
			return errors.Join(err, errors.New(resp.Status))
		}
		return os.WriteFile(ts.MkAbs(args[2]), body, 0o600)
	})
}

// repack DIR FILE NAME OTHER writes a backup of what was unpacked in DIR, with OTHER in
// place of the file called NAME, and a manifest that says so.
func repack(ts *testscript.TestScript, _ bool, args []string) {
	var m archive.Manifest
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(ts.MkAbs(args[0]+"/manifest.json"))), &m))
	var sources []archive.Source
	for _, f := range m.Files {
		s := archive.Source{Name: f.Name, Mode: 0o600, Path: ts.MkAbs(args[0] + "/" + f.Name)}
		if f.Name == args[2] {
			s.Path = ts.MkAbs(args[3])
		}
		sources = append(sources, s)
	}
	out, err := os.Create(ts.MkAbs(args[1]))
	ts.Check(err)
	defer out.Close()
	_, err = archive.Pack(out, m, sources, "")
	ts.Check(err)
}

// execsql FILE STATEMENT changes an SQLite file behind its owner's back. The
// driver comes with the registry's own.
func execSQL(ts *testscript.TestScript, _ bool, args []string) {
	db, err := sql.Open("sqlite3", ts.MkAbs(args[0]))
	ts.Check(err)
	defer db.Close()
	_, err = db.Exec(args[1])
	ts.Check(err)
}

// terminate WORD sends SIGTERM to the background processes that were started
// with WORD among their arguments.
func terminate(ts *testscript.TestScript, _ bool, args []string) { send(ts, args[0], syscall.SIGTERM) }

// hangup WORD sends them SIGHUP.
func hangup(ts *testscript.TestScript, _ bool, args []string) { send(ts, args[0], syscall.SIGHUP) }

func send(ts *testscript.TestScript, word string, signal os.Signal) {
	for _, cmd := range ts.BackgroundCmds() {
		if strings.Contains(strings.Join(cmd.Args, " "), word) {
			ts.Check(cmd.Process.Signal(signal))
		}
	}
}

// fakeLedger is an application for the demo: it answers with its name, and ends
// by itself when LEDGER_DIES is its sample.
func fakeLedger() {
	sample := ""
	for i, arg := range os.Args {
		if arg == "-sample" {
			sample = os.Args[i+1]
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("ledger: listening on http://%s\n", ln.Addr())
	if os.Getenv("LEDGER_DIES") == sample {
		fmt.Println("the books are on fire")
		os.Exit(3)
	}
	http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"companies":[{"name":%q}]}`, strings.ToUpper(sample))
	}))
}
