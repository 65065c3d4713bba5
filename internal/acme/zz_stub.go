package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"time"

	"postern"
)

type Issuer struct {
	postern.ACMEIssuer
	Email, KeyID, HMAC string
}
type Config struct {
	Dir     string
	Await   func(ctx context.Context, host string) error
	Settled func(host string)
	Changed func()
	Logger  *slog.Logger
}
type Manager struct{}

func New(cfg Config) (*Manager, error)                            { return &Manager{}, nil }
func (m *Manager) Want(hosts []string, issuers []Issuer)          {}
func (m *Manager) Run(ctx context.Context) error                  { <-ctx.Done(); return nil }
func (m *Manager) Get(host string) (*tls.Certificate, error)      { return nil, errors.New("stub") }
func (m *Manager) Challenge(host string) (*tls.Certificate, bool) { return nil, false }
func (m *Manager) State(host string) State                        { return State{} }
func (m *Manager) Renew(host string) error                        { return nil }
func (m *Manager) Accounts() []Account                            { return nil }

type Account struct {
	Directory, URI string
	CAA            []string
}
type State struct {
	Certificate     *tls.Certificate
	Issuer, Account string
	Renewal         time.Time
	Waiting         string
	Err             error
}
