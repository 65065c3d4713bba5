//go:build windows || darwin

package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/kardianos/service"
)

// A foreignHost is Windows' service manager or launchd.
type foreignHost struct{}

func systemService() (serviceHost, error) { return foreignHost{}, nil }

// of returns the service that runs s.
func (foreignHost) of(s nodeService) (service.Service, error) {
	return service.New(idle{}, &service.Config{
		Name: serviceName, DisplayName: serviceTitle, Description: serviceText,
		Executable: s.program, Arguments: s.arguments(),
		Option: service.KeyValue{
			"OnFailure": "restart", "OnFailureDelayDuration": "2s", "DelayedAutoStart": true, // Windows
			"LaunchdConfig": renderPlist(s), // macOS
		},
	})
}

// idle is a service that is installed and not run here.
type idle struct{}

func (idle) Start(service.Service) error { return nil }
func (idle) Stop(service.Service) error  { return nil }

func (h foreignHost) install(s nodeService) error {
	for _, o := range s.options {
		proxy, ok := strings.CutPrefix(o, "--proxy=")
		if u, err := url.Parse(proxy); ok && (err != nil || u.User != nil) {
			return misuse("write it into postern.yaml in the data directory, as proxy: URL", "everybody on this machine could read the proxy's password in the service's options")
		}
		if strings.Contains(o, "{{") {
			return misuse("leave it away", "an option has {{: %q", o)
		}
	}
	v, err := h.of(s)
	if err != nil {
		return err
	}
	if err := v.Uninstall(); err != nil {
		if was, err := h.state(); err == nil && was.Installed {
			return fmt.Errorf("replace the service: it could not be taken away: %w", err)
		}
		return v.Install()
	}
	// The one before is there until its process has ended and nobody looks at it.
	for end := time.Now().Add(goneFor); ; time.Sleep(goneFor / 50) {
		if err := v.Install(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// goneFor is how long an installation waits until the service before it is gone.
const goneFor = 10 * time.Second

func (h foreignHost) start() error {
	v, err := h.of(nodeService{})
	if err != nil {
		return err
	}
	return v.Start()
}

func (h foreignHost) stop() error {
	v, err := h.of(nodeService{})
	if err != nil {
		return err
	}
	if was, err := h.state(); err != nil || !was.Running {
		return err
	}
	return v.Stop()
}

func (h foreignHost) uninstall() error {
	v, err := h.of(nodeService{})
	if err != nil {
		return err
	}
	return v.Uninstall()
}

func (h foreignHost) state() (serviceState, error) {
	s := serviceState{Log: serviceLog, File: serviceFile}
	v, err := h.of(nodeService{})
	if err != nil {
		return s, err
	}
	switch status, err := v.Status(); {
	case errors.Is(err, service.ErrNotInstalled):
		s.File = ""
		return s, nil
	case err != nil:
		return s, err
	default:
		s.Installed, s.Enabled, s.Running = true, true, status == service.StatusRunning
		return s, nil
	}
}
