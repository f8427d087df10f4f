// Package agent is what runs inside of every node of the lab, hosts, clients and containers alike: it serves, dials,
// streams and loads, and answers questions of the test over a unix socket.
//
//	c := agent.Client{Socket: "/tmp/qwlab-1/outside/s"}
//	res, err := c.Dial(ctx, agent.Dial{Proto: "tcp", To: netip.MustParseAddrPort("203.0.113.1:80")})
//	// res.Outcome is agent.Open, res.Answer.Node the server's name, res.Answer.Remote the source that it saw
//
// One connection to the socket is one job: a Request in, a line when it has begun, and a line with what came of it.
// Closing the writing side ends a job that goes on until told otherwise (Load, Stream, Hold, Capture).
//
// Be aware: it is for tests only. Nothing here asks who is calling, and it runs with all of root's powers.
package agent
