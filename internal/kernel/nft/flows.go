package nft

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	render "quaywall/internal/render/nft"
	"quaywall/internal/ruleset"
)

// Flows lists what the sets of flows hold. Elements come and go while it reads.
func (*Backend) Flows(context.Context) ([]ruleset.Flow, error) {
	s, err := open()
	if err == nil {
		defer s.close()
		var all []ruleset.Flow
		if all, err = s.flows(); err == nil {
			return all, nil
		}
	}
	if errors.Is(err, errNoTables) || errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return nil, access(fmt.Errorf("reading flows: %w", err))
}

func (s *socket) flows() ([]ruleset.Flow, error) {
	var sets []render.Set
	err := s.query(unix.NFT_MSG_GETSET, unix.NLM_F_DUMP, render.TableQuery(tableName), func(_ byte, body []byte) error {
		table, set, err := render.ParseSet(body)
		if table == tableName && set.Key.IsFlows() {
			sets = append(sets, set)
		}
		return err
	})
	var all []ruleset.Flow
	for i := 0; i < len(sets) && err == nil; i++ {
		var elements []render.Element
		err = s.query(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, render.ElementsQuery(tableName, sets[i].Name), func(_ byte, body []byte) error {
			var err error
			elements, err = render.ParseElements(body, elements[:0])
			for _, e := range elements {
				if f, ok := sets[i].Key.Flow(e.Key); ok {
					all = append(all, f)
				}
			}
			return err
		})
	}
	return all, err
}

// AddFlows adds flows in one transaction.
func (*Backend) AddFlows(_ context.Context, sets []ruleset.Set) error {
	s, err := open()
	if err != nil {
		return err
	}
	defer s.close()
	messages := render.AddFlows(tableName, sets)
	return explain(s.transact(0, messages), nil, messages)
}
