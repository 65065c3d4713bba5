package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
)

// launchdLog is where launchd has a node write what it says.
const launchdLog = "/var/log/" + serviceName + ".log"

// plist is what launchd runs a node by (launchd.plist(5)). It has as long to end as
// systemd gives it: requests under way may go on for 30 s.
const plist = `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>%s</string>
	<key>ProgramArguments</key>
	<array>
%s	</array>
	<key>RunAtLoad</key>
	<true/>
	<key>KeepAlive</key>
	<true/>
	<key>ThrottleInterval</key>
	<integer>2</integer>
	<key>ExitTimeOut</key>
	<integer>45</integer>
	<key>Umask</key>
	<integer>63</integer>
	<key>SoftResourceLimits</key>
	<dict>
		<key>NumberOfFiles</key>
		<integer>65536</integer>
	</dict>
	<key>StandardOutPath</key>
	<string>%[3]s</string>
	<key>StandardErrorPath</key>
	<string>%[3]s</string>
</dict>
</plist>
`

// renderPlist returns plist for s.
func renderPlist(s nodeService) string {
	var words bytes.Buffer
	for _, word := range append([]string{s.program}, s.arguments()...) {
		words.WriteString("\t\t<string>")
		xml.EscapeText(&words, []byte(word)) // a Buffer takes all
		words.WriteString("</string>\n")
	}
	return fmt.Sprintf(plist, serviceName, words.String(), launchdLog)
}
