package ipt

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"quaywall/internal/nlsock"
	render "quaywall/internal/render/ipt"
)

// A policy of two thousand ports has two thousand sets, each of which takes three messages to make. Sent one by one, each
// waits for its turn on the processor: on a busy host that came to a minute. So small sets are made, read and
// destroyed many at a time. What goes wrong in a batch is done again one by one, and only then an error.

const (
	maxBatch      = 64    // sets
	maxBatchBytes = 60000 // of entries; what a socket may send at once is 212,992 bytes unless somebody made it less
	fewSets       = 8     // are read and destroyed one by one
)

// sendAll sends messages at once. The error is the first one's that failed; those behind it were carried out all the same.
func sendAll(messages []netlink.Message) error {
	conn, err := dialIPSet()
	if err != nil {
		return err
	}
	defer conn.Close() // what it wasn't asked for stays unread
	for i := range messages[:len(messages)-1] {
		messages[i].Header.Flags &^= netlink.Acknowledge
	}
	if _, err := conn.SendMessages(messages); err != nil {
		return err
	}
	_, err = conn.Receive()
	return err
}

// makeMany makes small sets that aren't there yet, and gives the jobs that are left to do.
func (c *ipsetConn) makeMany(ctx context.Context, jobs []job) (left []job) {
	var batch []job
	var lists [][]byte
	size := 0
	flush := func() {
		if len(batch) > 0 && makeBatch(ctx, batch, lists) != nil {
			c.forget(batch)
			left = append(left, batch...)
		}
		batch, lists, size = nil, nil, 0
	}
	for _, j := range jobs {
		list, whole := entryList(j.set, maxBatchBytes)
		if j.replace || !whole {
			left = append(left, j)
			continue
		}
		if len(batch) == maxBatch || size+len(list) > maxBatchBytes {
			flush()
		}
		batch, lists, size = append(batch, j), append(lists, list), size+len(list)
	}
	flush()
	return left
}

// entryList is all entries of a set as attributes, if they are no longer than that.
func entryList(s *render.Set, longest int) (list []byte, whole bool) {
	for entry := range encoded(s) {
		if list = entry(list); len(list) > longest {
			return nil, false
		}
	}
	return list, true
}

func tempName(i int) string { return fmt.Sprint(render.TempPrefix, i) }

// makeBatch makes sets under temporary names, and gives them their own when all of them are complete.
func makeBatch(ctx context.Context, batch []job, lists [][]byte) error {
	var fill, name []netlink.Message
	for i, j := range batch {
		create, err := createMessage(tempName(i), j.set)
		if err != nil {
			return err
		}
		fill = append(fill, create)
		if len(lists[i]) > 0 {
			fill = append(fill, addMessage(tempName(i), lists[i], netlink.Excl))
		}
		name = append(name, ipsetMessage(cmdRename, 0, setName(tempName(i)), cString(attrTypeName, j.set.Name)))
	}
	for _, messages := range [][]netlink.Message{fill, name} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := sendAll(messages); err != nil {
			return err
		}
	}
	return nil
}

// forget destroys what a batch that failed has left. That some of it isn't there is no error.
func (c *ipsetConn) forget(batch []job) {
	for i, j := range batch {
		_ = c.destroy(tempName(i))
		_ = c.destroy(j.set.Name)
	}
}

// destroyMany destroys sets, and gives those that are still there.
func (c *ipsetConn) destroyMany(names []string) (left []string, err error) {
	if len(names) <= fewSets {
		return names, nil
	}
	for part := range slices.Chunk(names, maxBatch) {
		var all []netlink.Message
		for _, name := range part {
			all = append(all, ipsetMessage(cmdDestroy, 0, setName(name)))
		}
		_ = sendAll(all) // whoever is still there is tried once more
	}
	now, err := c.own()
	return slices.DeleteFunc(now, func(name string) bool { return !slices.Contains(names, name) }), err
}

// readMany reads sets: a few one by one, many by listing all there are.
func (c *ipsetConn) readMany(names []string) (map[string]*content, error) {
	all := map[string]*content{}
	if len(names) <= fewSets {
		for _, name := range names {
			is, err := c.read(name)
			if err != nil {
				return nil, err
			}
			all[name] = is
		}
		return all, nil
	}
	answer, err := c.Execute(ipsetMessage(cmdList, netlink.Dump))
	if err != nil {
		return nil, fmt.Errorf("reading ipsets: %w", err)
	}
	for _, name := range names {
		all[name] = newContent()
	}
	for _, m := range answer {
		if is := all[nameIn(m.Data)]; is != nil {
			is.message(m.Data)
		}
	}
	for _, name := range names {
		if all[name].typeName == "" {
			return nil, fmt.Errorf("reading the ipset %s: %w", name, errors.New("it is not there, or the answer was cut short"))
		}
	}
	return all, nil
}

// nameIn is the set that a message is about.
func nameIn(data []byte) string {
	for kind, value := range nlsock.Attributes(data[min(4, len(data)):]) {
		if kind == attrSetName {
			return unix.ByteSliceToString(value)
		}
	}
	return ""
}
