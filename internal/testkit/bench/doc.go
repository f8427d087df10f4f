// Package bench is `make bench`: what quaywall costs, beside what it is compared with, measured in one run.
//
// Everything in it is a test behind the build tag bench, since it takes minutes and asserts no times:
//
//	go test -tags bench -run . -v -timeout 90m ./internal/testkit/bench -report dist/bench
//
// Both sides of a comparison run in turn (A B A B …) after a warm-up; the ratio is taken pair by pair, and its median and
// spread are told. What the agent does on a host with a real Docker stands alone: how long rules that somebody flushed stay away
// (TestDrift), and what it costs beside 100 containers (TestAgent). The report is Markdown for people and JSON for machines, with a
// description of the machine.
//
// Be aware: absolute figures move with the machine, and a ratio of two short runs with whatever else the machine does.
// All traffic stays between namespaces that the run makes, and each load is bounded in time.
package bench
