// Package e2e tries the whole road with real processes and real clients. Its
// tests stand behind the build tag e2e, as they need root, network namespaces,
// Debian's chromium, firefox-esr and curl: make e2e installs and runs them, one suite at a
// time with SUITE=road, for one. A suite is the tests whose names start alike.
package e2e
