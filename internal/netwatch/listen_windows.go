package netwatch

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sys/windows"
)

// listeners are the changed funcs of all that listen: Windows calls back a function that
// is made once, and never freed.
var listeners = struct {
	mu  sync.Mutex
	all map[*func()]bool
}{all: map[*func()]bool{}}

var callback = sync.OnceValue(func() uintptr {
	return windows.NewCallback(func(_, _ uintptr, _ uint32) uintptr {
		listeners.mu.Lock()
		defer listeners.mu.Unlock()
		for changed := range listeners.all {
			(*changed)()
		}
		return 0
	})
})

// listen calls changed whenever the system says that an interface or an address changed,
// until ctx is done.
func listen(ctx context.Context, changed func()) error {
	listeners.mu.Lock()
	listeners.all[&changed] = true
	listeners.mu.Unlock()
	defer func() {
		listeners.mu.Lock()
		defer listeners.mu.Unlock()
		delete(listeners.all, &changed)
	}()
	var links, addresses windows.Handle
	if err := windows.NotifyIpInterfaceChange(windows.AF_UNSPEC, callback(), nil, false, &links); err != nil {
		return fmt.Errorf("NotifyIpInterfaceChange: %w", err)
	}
	defer windows.CancelMibChangeNotify2(links)
	if err := windows.NotifyUnicastIpAddressChange(windows.AF_UNSPEC, callback(), nil, false, &addresses); err != nil {
		return fmt.Errorf("NotifyUnicastIpAddressChange: %w", err)
	}
	defer windows.CancelMibChangeNotify2(addresses)
	<-ctx.Done()
	return nil
}
