package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"syscall"

	"postern"
)

// Socket is the local API's unix socket in the node's data directory, for
// whoever may open it:
//
//	GET /metrics       metrics, as Prometheus reads them
//	GET /debug/pprof/  profiles, as go tool pprof reads them
//	GET /v1/status     Status
//	GET /v1/relays     []RelayCheck; a relay to each gateway is opened and closed
//	GET /v1/services   Published
//	PUT /v1/services   Published -> Published; what is missing is published no longer
//
//	POST /v1/certificates/{host}/renew   Route; its certificate is got anew
//
//	POST /v1/key   Membership, with another key of the tunnels; connections go on
//
//	GET    /v1/passkeys               Passkeys
//	POST   /v1/passkeys/invitations   PasskeyRequest -> PasskeyLinks; earlier ones of the person are void
//	DELETE /v1/passkeys/{id}          Passkey, which is removed
//	GET    /v1/tokens                 []PersonalToken
//	DELETE /v1/tokens/{id}            PersonalToken, which is revoked
//
// Any other outcome than 200 is a postern.Problem. A PUT replaces all services or
// none. It is refused while a File or the program itself says what is published,
// and remembered otherwise. Paths in it are absolute.
const Socket = "node.sock"

const (
	pathStatus   = "/v1/status"
	pathServices = "/v1/services"
	pathRelays   = "/v1/relays"

	pathCertificates = "/v1/certificates"
	pathKey          = "/v1/key"

	pathPasskeys           = "/v1/passkeys"
	pathPasskeyInvitations = pathPasskeys + "/invitations"
	pathLocalTokens        = "/v1/tokens"
)

// ErrNotRunning says that no node answers on a socket, and ErrNoSockets that this system has
// none, as Windows before version 1803 and Server 2019.
var (
	ErrNotRunning = errors.New("the node is not running")
	ErrNoSockets  = errors.New("this version of Windows has no unix sockets, by which a node is asked")
)

// QueryStatus asks the node whose Socket has the given path how it does. It
// fails with ErrNotRunning if there is none.
func QueryStatus(ctx context.Context, socket string) (s Status, err error) {
	err = askLocal(ctx, socket, http.MethodGet, pathStatus, nil, &s)
	return s, err
}

// maxAnswer bounds what is read of a local API's answer, in bytes.
const maxAnswer = 16 << 20

// askLocal does a request of the local API: in, if not nil, goes there as JSON, and the
// answer comes to out. What is refused is a *postern.Problem.
func askLocal(ctx context.Context, socket, method, path string, in, out any) error {
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer t.CloseIdleConnections()
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://node"+path, &body)
	if err != nil {
		return err
	}
	resp, err := t.RoundTrip(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errRefused) {
		return fmt.Errorf("%s: %w", socket, ErrNotRunning)
	}
	if errors.Is(err, errNoFamily) {
		return ErrNoSockets
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s %s of the node: %w", method, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		p := new(postern.Problem)
		if json.Unmarshal(data, p) != nil || p.Detail == "" {
			return fmt.Errorf("%s %s of the node: %s", method, path, resp.Status)
		}
		return p
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("%s %s of the node: %w", method, path, err)
	}
	return nil
}

// closeAll closes all of these that are not nil.
func closeAll(all ...net.Listener) {
	for _, ln := range all {
		if ln != nil {
			ln.Close()
		}
	}
}

// listenLocal opens the socket at path, mode 0600. What a process that died left
// there is replaced; the data directory's lock says that none is alive. It fails with
// ErrNoSockets where there are none.
func listenLocal(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		if errors.Is(err, errNoFamily) {
			return nil, ErrNoSockets
		}
		if errors.Is(err, syscall.EINVAL) {
			return nil, fmt.Errorf("%w (a socket's path has at most 107 bytes, this one %d)", err, len(path))
		}
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}
