package main

import (
	"fmt"
	"io"
	"slices"

	"postern"
)

// printRecords prints what has to be in r's DNS as the lines of a zone file (RFC 1035,
// section 5.1): all of it, or what is for the purposes in only.
func printRecords(w io.Writer, r postern.RouteState, only []string) {
	of := make(map[string][]postern.DNSRecord) // by purpose
	width := 0
	for _, record := range r.Records {
		of[record.Purpose] = append(of[record.Purpose], record)
		width = max(width, len(record.Name)+1)
	}
	line := func(comment string, v postern.DNSRecord) {
		fmt.Fprintf(w, "%s%-*s  IN  %-5s  %s\n", comment, width-len(comment), v.Name+".", v.Type, v.Value)
	}
	between := ""
	begin := func(purpose string) bool {
		if only != nil && !slices.Contains(only, purpose) {
			return false
		}
		fmt.Fprint(w, between)
		between = "\n"
		return true
	}
	if proof := of[postern.PurposeProof]; len(proof) > 0 && begin(postern.PurposeProof) {
		fmt.Fprintf(w, "; That the name is %s's. Nothing is served there before this is seen; then it may go.\n", r.Tenant)
		for _, v := range proof {
			line("", v)
		}
	}
	if begin(postern.PurposeAddress) {
		printAddresses(w, of[postern.PurposeAddress], line)
	}
	if begin(postern.PurposeCAA) {
		if len(of[postern.PurposeCAA]) == 0 {
			fmt.Fprintf(w, "; Who may issue certificates: `postern routes check %s` shows the CAA records to add\n"+
				"; as soon as a node has an account at a certificate authority.\n", r.Host)
			return
		}
		fmt.Fprintln(w, "; Recommended, in the name's own zone: nobody but the node's account gets a certificate.")
		for _, v := range of[postern.PurposeCAA] {
			line("", v)
		}
	}
}

// printAddresses prints records that lead to the gateways; the aliases are instead of
// the addresses, if there are any.
func printAddresses(w io.Writer, records []postern.DNSRecord, line func(comment string, v postern.DNSRecord)) {
	alias := func(v postern.DNSRecord) bool { return v.Type == "CNAME" }
	addresses := slices.DeleteFunc(slices.Clone(records), alias)
	switch {
	case len(records) == 0:
		fmt.Fprintln(w, "; Where it leads: A and AAAA records with the addresses of the gateways.")
	case len(addresses) == 0:
		fmt.Fprintln(w, "; Where it leads. In place of the alias, A and AAAA records with the gateways' addresses leave\n"+
			"; it to your own CAA records who may issue certificates.")
	default:
		fmt.Fprintln(w, "; Where it leads.")
	}
	for _, v := range addresses {
		line("", v)
	}
	for _, v := range records {
		switch {
		case !alias(v):
		case len(addresses) == 0:
			line("", v)
		default:
			fmt.Fprintln(w, "; Or, in place of the addresses, an alias: it follows the gateways when they move, but then\n"+
				"; the operator's CAA records count and not yours (RFC 8659, section 3).")
			line(";", v)
		}
	}
}
