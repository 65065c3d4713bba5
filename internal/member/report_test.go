package member

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// News that comes in a heap is told twice, at once and when it is over, and not each by
// itself.
func TestReportEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		start, news := time.Now(), make(chan struct{}, 1)
		var told []time.Duration
		var wg sync.WaitGroup
		wg.Go(func() {
			reportEvery(ctx, 10*time.Second, news, func() { told = append(told, time.Since(start)) })
		})
		<-time.After(4 * time.Second)
		for range 50 {
			select {
			case news <- struct{}{}:
			default:
			}
			<-time.After(10 * time.Millisecond)
		}
		<-time.After(16 * time.Second)
		cancel()
		wg.Wait()
		want := []time.Duration{0, 4 * time.Second, 5 * time.Second, 10 * time.Second, 20 * time.Second}
		if !slices.Equal(told, want) {
			t.Errorf("told at %v, want %v", told, want)
		}
	})
}
