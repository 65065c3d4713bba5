package main

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"postern/scripts/bench/process"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		if err := play(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// Both ways do the work of every trial, and the one that receives says so.
func TestTrials(t *testing.T) {
	for _, way := range []string{us, glue} {
		for _, trial := range trials {
			t.Run(way+"/"+trial.name, func(t *testing.T) {
				t.Parallel()
				ping, err := trial.work(t.Context(), way, func(tun *tunnel) error {
					return process.Poll(t.Context(), func() error {
						gateway, node, err := tun.sample()
						if err != nil {
							return err
						}
						done := map[string]int64{
							down: gateway.Received, up: node.Received,
							connect: gateway.Exchanges, pingpong: gateway.Exchanges,
						}
						if done[trial.kind] == 0 || gateway.CPU == 0 || node.CPU == 0 {
							return errors.New("nothing was done")
						}
						return nil
					})
				})
				if err != nil {
					t.Fatal(err)
				}
				if trial.kind == pingpong && ping == 0 {
					t.Error("the median of round trips is missing")
				}
			})
		}
	}
}
