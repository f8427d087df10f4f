// Package agent keeps the policy in force: through changes of interfaces, addresses and Docker networks, of the policy's
// files, and of the rules themselves by others.
//
//	a := agent.New(agent.Local(…), agent.Config{Policy: "/etc/quaywall/policy.yaml"})
//	err := a.Run(ctx, agent.Sources(…))
//
// Events are hints. Each source subscribes first and hints then, so that everything is listed after that; hints are put
// together until none came for a while, or some have waited long enough; then what they are about is listed again. The same
// is done after each reconnection, and every ten minutes. One goroutine, Run's, owns what is to be in force. It never waits
// for Docker: listing is done beside it.
//
// What is to be in force is what the store says. A policy that another quaywall put in force is taken up, a policy file is
// followed when it changes, and what somebody took out, took back or rolled back is left so. Every change goes through
// package apply: its lock, its guard, its reading back, its record.
//
// Be aware: the process must live in the network namespace that it looks after. While somebody else takes quaywall's
// rules out again and again, mending waits longer and longer, up to a minute.
package agent
