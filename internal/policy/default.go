package policy

import "quaywall/internal/diag"

// DefaultText is the policy of a host that has none.
const DefaultText = `# The policy of this host. "quaywall check" reads it, "quaywall apply" puts it in force.
version: 1

inbound:  # who may come in; the first rule that matches decides
  - allow: ssh
  - allow: ping

egress: []    # what containers may reach
outbound: []  # what the host itself may reach

# What happens to a packet that no rule matches: deny, reject (answers the client) or allow.
defaults: {inbound: deny, egress: allow, outbound: allow}
log: {denied: 10/second}  # denied packets, by NFLOG; or off
hygiene: on               # drops bogus TCP flags, new connections without SYN, spoofed sources
`

// Default is the policy of a host that has none: SSH and ping in, everything out.
func Default() *Policy {
	p, _ := Parse("default", []byte(DefaultText)) // a test holds the text to being right
	p.File = ""
	forgetPlaces(p)
	return p
}

// forgetPlaces makes all rules and verdicts come from no file, by which they are known as the default's.
func forgetPlaces(p *Policy) {
	for _, rules := range [][]Rule{p.Inbound, p.Egress, p.Outbound} {
		for i := range rules {
			rules[i].Pos = diag.Pos{}
		}
	}
	p.Defaults.Inbound.Pos, p.Defaults.Egress.Pos, p.Defaults.Outbound.Pos = diag.Pos{}, diag.Pos{}, diag.Pos{}
}
