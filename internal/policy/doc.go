// Package policy is the policy language: its typed form, how it is read, checked and formatted.
//
// Load reads a policy with its fragments and set files and gives the typed Policy, or everything that is wrong with it
// at once:
//
//	p, sources, list := policy.Load(files.Host{}, "/etc/quaywall/policy.yaml")
//	fmt.Fprint(os.Stderr, list.Format(sources.Text)) // warnings too
//	if err := list.Err(); err != nil { … }           // then p is nil
//
// Parse is the same for a text that names no files, Default the policy of a host that has none, Format the canonical form
// of a text. Package tree reads the YAML, package cover finds rules that never match.
//
// Be aware: a Policy is valid on a laptop. Whether an interface, a Docker network or a published port exists is known
// only on the host and is told by package compile.
package policy
