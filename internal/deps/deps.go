// Package deps pins modules while the rooms are being built.
package deps

import (
	_ "github.com/chromedp/chromedp"
	_ "github.com/coder/websocket"
	_ "github.com/danielgtaylor/huma/v2"
	_ "github.com/danielgtaylor/huma/v2/adapters/humago"
	_ "github.com/goccy/go-yaml"
	_ "github.com/mattn/go-sqlite3"
	_ "github.com/pires/go-proxyproto"
	_ "github.com/pressly/goose/v3"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/urfave/cli/v2"
	_ "go.uber.org/goleak"
	_ "golang.org/x/crypto/cryptobyte"
	_ "golang.org/x/net/idna"
	_ "golang.org/x/net/nettest"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/term"
	_ "golang.org/x/time/rate"
	_ "golang.zx2c4.com/wireguard/device"
	_ "gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	_ "gvisor.dev/gvisor/pkg/tcpip/link/channel"
	_ "gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	_ "pgregory.net/rapid"
)
