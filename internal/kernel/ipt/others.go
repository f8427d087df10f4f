package ipt

import (
	"context"
	"fmt"
	"time"

	"quaywall/internal/ruleset"
)

// Dump lists all tables of a family that there are, everybody's rules, as the save program prints them.
func (b *Backend) Dump(ctx context.Context, f ruleset.Family) ([]byte, error) {
	return b.run(ctx, call{tool: program(f, "save")})
}

// Feed feeds a payload to the restore program of a family, which leaves alone what the payload doesn't name. Each table
// changes in one step.
func (b *Backend) Feed(ctx context.Context, f ruleset.Family, payload []byte) error {
	calls := []call{b.restoring(f, payload)}
	return b.refusals(calls, b.runAll(ctx, calls))
}

// restoring is the restore program of a family with a payload.
func (b *Backend) restoring(f ruleset.Family, payload []byte) call {
	return call{program(f, "restore"), payload, []string{"--noflush", "--wait", fmt.Sprint(max(1, int(b.wait/time.Second)))}}
}
