// Package iptsave reads and writes the rules of iptables: what iptables-save and ip6tables-save print, of any version and of
// both variants, what iptables -S and iptables -L do, and the lines of scripts that call iptables.
//
//	tables, problems := iptsave.Parse(text, iptsave.Options{File: "iptables-save.txt", Family: netfilter.IPv4, Sets: sets})
//	text := iptsave.Format(tables)
//
// A text is never refused. What of it isn't understood is told as a problem with its line; a match or target that isn't
// understood stands in its rule as an Opaque one, and the rule keeps all its others.
//
// Be aware: whether a set of ipset has ports or MAC addresses isn't written in the rules that ask for it, so the sets come
// first, by Options.Sets; a match on a set that isn't among them is opaque. The parts of a rule are substrings of the text,
// which stays in memory as long as they do.
package iptsave
