//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// systemctl stands in for systemd, which runs nowhere in these tests: it remembers what it
// is asked, and starts and stops what the unit says.
const systemctl = `#!/bin/sh
unit=/etc/systemd/system/postern-node.service
echo "$@" >>$HERE/asked
case "$1" in
show)
	[ -e $unit ] || { echo LoadState=not-found; exit; }
	state=inactive; [ ! -e $HERE/pid ] || state=active
	printf 'LoadState=loaded\nActiveState=%s\nUnitFileState=enabled\nFragmentPath=%s\n' $state $unit ;;
start)
	[ ! -e /etc/default/postern-node ] || . /etc/default/postern-node
	export POSTERN_DATA=$(sed -n 's/^Environment=POSTERN_DATA=//p' $unit)
	eval "set -- $(sed -n 's/^ExecStart=//p' $unit | sed "s|[$]POSTERN_OPTIONS|$POSTERN_OPTIONS|")"
	setsid "$@" >>$HERE/log 2>&1 &
	echo $! >$HERE/pid ;;
stop)
	[ ! -e $HERE/pid ] || { kill $(cat $HERE/pid); while kill -0 $(cat $HERE/pid) 2>/dev/null; do sleep .1; done; rm $HERE/pid; } ;;
esac
`

// served is what is done on a machine that systemd seems to run, whose /etc is a copy.
const served = `
set -e
cp -a /etc $HERE/etc
mount --bind $HERE/etc /etc
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /etc/systemd/system
export PATH=$HERE:$PATH
ready() { for i in $(seq 300); do ! "$1" node status --data $DATA 2>/dev/null | grep -q ', ready$' || return 0; sleep .1; done; return 1; }
! "$1" node service status --data $DATA
"$1" node service install --data $DATA
ready "$1"
"$1" node service install --data $DATA --log-level debug --mtu 1300
ready "$1"
"$1" node service status --data $DATA
cat /etc/systemd/system/postern-node.service /etc/default/postern-node
"$1" node service uninstall --data $DATA
! "$1" node service status --data $DATA
ls /etc/systemd/system/postern-node.service /etc/default/postern-node $DATA/identity.json || true
`

// A node is installed as a service, and once more with other options, answers each time,
// and is taken away again.
func TestSurviveServiceInstall(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	site := d.data("site")
	if err := os.Mkdir(site, 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, append([]string{program("postern"), "node", "join", "--no-run", "--data", d.data("office"), "--name", "office",
		"--token-file", d.secretFile(d.tenant("acme"))}, publicly(site)...)...)
	here := t.TempDir()
	if err := os.WriteFile(filepath.Join(here, "systemctl"), []byte(systemctl), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // if it was not stopped
		if pid, err := os.ReadFile(filepath.Join(here, "pid")); err == nil {
			if n, err := strconv.Atoi(strings.TrimSpace(string(pid))); err == nil {
				syscall.Kill(n, syscall.SIGKILL)
			}
		}
	})
	out, err := run(t, "", "env", "HERE="+here, "DATA="+d.data("office"),
		"unshare", "--mount", "sh", "-c", served, "sh", program("postern"))
	log, _ := os.ReadFile(filepath.Join(here, "log"))
	if err != nil {
		t.Fatalf("%v\n%s\nthe service said:\n%s", err, out, log)
	}
	for _, want := range []string{
		"postern-node, not installed", "postern-node, runs since", "ProtectSystem=strict",
		`POSTERN_OPTIONS="--mtu=1300 --log-level=debug"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if !strings.Contains(string(log), "level=DEBUG") {
		t.Errorf("the options of the second time were not heard:\n%s", log)
	}
	if _, err := os.Stat(d.data("office")); err != nil {
		t.Error(err)
	}
}
