package ipt

import (
	"context"
	"fmt"
	"time"

	"quaywall/internal/ruleset"
)

// Dump lists all tables of each family that there are, everybody's rules, as the save programs print them.
func (b *Backend) Dump(ctx context.Context) (map[ruleset.Family][]byte, error) {
	var calls []call
	for _, f := range families {
		calls = append(calls, call{tool: program(f, "save")})
	}
	all := map[ruleset.Family][]byte{}
	for i, result := range b.runAll(ctx, calls) {
		if result.Err != nil {
			return nil, fmt.Errorf("listing the %s rules: %w", families[i], result.Err)
		}
		all[families[i]] = result.Stdout
	}
	return all, nil
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
