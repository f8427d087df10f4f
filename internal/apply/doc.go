// Package apply puts policies in force, takes them out, and tells what is in force: the steering between the pure
// packages and the kernel.
//
//	host := apply.Local(apply.Config{StateDir: "/var/lib/quaywall", RunDir: "/run/quaywall"})
//	result, err := host.Apply(ctx, apply.Options{Policy: "/etc/quaywall/policy.yaml"})
//
// The steps of Apply, and what a crash after each leaves in force:
//
//	load         policy, inventory and what is in force are read              the old policy
//	compile      the ruleset                                                  the old policy
//	preflight    the ruleset is tried in a scratch network namespace          the old policy
//	connections  meanwhile: live ones that the policy denies                  the old policy
//	guard        meanwhile; refuses where the way in would be cut             the old policy
//	record       what will be in force is written to the disk                 the old policy
//	arm          a process waits to take the change back (with Confirm)       the old policy, put in force once more at the end
//	adopt        connection tracking is told of UDP flows (first apply)       the old policy, none
//	commit       the ruleset replaces what is in force                        the old policy or the new one
//	read         the kernel is read and compared; connections once more           the new policy
//	switch       what another backend holds is taken out                      the new policy (both, each judging for itself)
//	cut          live connections that the policy denies are ended            the new policy; some of them may go on
//	finish       the record counts                                            the new policy
//
// Whatever a crash leaves, the next run converges: what is in force is always read from the kernel, never believed.
//
// Be aware: everything works on the network namespace of the calling operating system thread. Docker's rules are never
// touched. An error is an *InvalidError (the policy is wrong), a *RefusedError (refused for safety) or a *FailedError,
// which says whether anything was changed.
package apply
