package main

import "context"

// onHangup does nothing: nobody sends SIGHUP here.
func onHangup(context.Context, func()) error { return nil }
