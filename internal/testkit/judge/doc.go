// Package judge finds out whether everybody reads a policy alike: the evaluator, the kernel behind nftables, iptables-nft and
// iptables-legacy, and those who read the rules that it has then. It makes random policies and random packets aimed at their edges, puts each policy
// into force in a network namespace for each backend, sends the packets as frames, and compares what became of them.
//
//	report := judge.Run(t, judge.Options{Seed: 1, Policies: 300, Backends: []kernel.Backend{nft.New()}})
//	t.Log(report.Coverage)
//
// or by hand, for more policies or for the one of a seed again:
//
//	go test ./internal/testkit/judge -run TestJudge -v -policies 10000
//	go test ./internal/testkit/judge -run TestJudge -seed 4711 -policies 1
//
// A disagreement names the seed, the policy cut down to what is needed, the packet and all answers; the same seed gives
// it again. A host in a namespace has two cards, a VPN, three Docker networks with DNAT as Docker makes it, sockets that
// were there before, and connections that connection tracking knows.
//
// A packet passed when a table of the judge's own saw it behind all of the policy's chains (input, forward and output,
// priority 300), and was rejected when an answer left that names it. It is known again by its IPv4 identification or its
// IPv6 flow label, which no chain changes. The judge's table drops what it has seen, so nothing leaves the namespaces and
// no packet changes the fate of the next.
//
// What is then in force is read as explain reads it, from what the tools print, and two more are asked: the simulator about every
// packet, and the analyser whether its sets hold those that begin a connection from outside. Both must say what the evaluator does.
//
// For one policy of sixteen the packets that a backend counted for each line are compared too.
//
// Be aware: what the kernel throws away on its own behind the gate (a multicast source, for one) can't be seen to pass;
// such packets are compared only where they must not pass. Limits are tried from sources of their own, a few packets
// over. Docker itself is not there: the lab is for that. Not sent are UDP-Lite and DCCP, and authentication headers of IPv6
// (no protocol there, everybody looks at what they lead to).
package judge
