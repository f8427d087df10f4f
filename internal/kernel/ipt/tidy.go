package ipt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	render "quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
)

// iptables-nft makes tables and built-in chains when they are first needed and never takes them away. Those that it made for
// quaywall's jumps are marked (render.MadePrefix), and go when there is nothing else of quaywall's in the table, and nothing
// of anybody's in them.

// tidy takes away what was made for quaywall and isn't needed any more.
func (b *Backend) tidy() error {
	if b.variant == Legacy {
		return nil
	}
	for _, f := range families {
		for _, name := range tableNames {
			if err := tidyTable(f, name); err != nil {
				return fmt.Errorf("deleting what was made in table %s %s: %w", f, name, err)
			}
		}
	}
	return nil
}

// tidyTable looks and deletes in two steps: the transaction names the generation of rules that was looked at, so that the
// kernel refuses it if anything came in between.
func tidyTable(f ruleset.Family, name string) error {
	for range tries {
		generation, err := generation()
		if err != nil {
			return err
		}
		doomed, err := inVain(f, name)
		if err != nil || len(doomed) == 0 {
			return err
		}
		err = transact(generation, doomed)
		if !errors.Is(err, unix.ERESTART) {
			return err
		}
	}
	return nil // somebody is busy with rules; what is empty does no harm, and the next commit tidies up
}

// inVain are the messages that delete what was made in a table for quaywall and holds nothing.
func inVain(f ruleset.Family, name string) ([]netlink.Message, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	chains, err := conn.ListChainsOfTableFamily(nftFamily(f))
	if err != nil {
		return nil, err
	}
	chains = slices.DeleteFunc(chains, func(c *nftables.Chain) bool { return c.Table.Name != name })
	marks := map[string]bool{}
	for _, c := range chains {
		if strings.HasPrefix(c.Name, render.Prefix) {
			return nil, nil
		}
		if made, ok := strings.CutPrefix(c.Name, render.MadePrefix); ok {
			marks[made] = true
		}
	}
	if len(marks) == 0 {
		return nil, nil
	}
	return deletions(conn, f, chains, marks)
}

func deletions(conn *nftables.Conn, f ruleset.Family, chains []*nftables.Chain, marks map[string]bool) ([]netlink.Message, error) {
	var doomed []netlink.Message
	others := 0
	for _, c := range chains {
		mark := strings.HasPrefix(c.Name, render.MadePrefix)
		vain, err := holdsNothing(conn, c)
		if err != nil {
			return nil, err
		}
		if mark || vain && marks[c.Name] {
			doomed = append(doomed, deletion(unix.NFT_MSG_DELCHAIN, f, c.Table.Name, c.Name))
		} else if !vain {
			others++
		}
	}
	sets, err := conn.GetSets(chains[0].Table)
	if err == nil && marks[render.MissingTable] && others+len(sets) == 0 {
		return []netlink.Message{deletion(unix.NFT_MSG_DELTABLE, f, chains[0].Table.Name, "")}, nil
	}
	return doomed, err
}

// holdsNothing tells whether a chain is a built-in one that lets everything pass.
func holdsNothing(conn *nftables.Conn, c *nftables.Chain) (bool, error) {
	if c.Hooknum == nil || c.Policy == nil || *c.Policy != nftables.ChainPolicyAccept {
		return false, nil
	}
	rules, err := conn.GetRules(c.Table, c)
	return len(rules) == 0, err
}

// deletion deletes a chain or, without one, a table.
func deletion(kind uint16, f ruleset.Family, table, chain string) netlink.Message {
	attrs := []netlink.Attribute{cString(unix.NFTA_TABLE_NAME, table)}
	if chain != "" {
		attrs = []netlink.Attribute{cString(unix.NFTA_CHAIN_TABLE, table), cString(unix.NFTA_CHAIN_NAME, chain)}
	}
	return nfnetlinkMessage(unix.NFNL_SUBSYS_NFTABLES<<8|kind, byte(nftFamily(f)), netlink.Request, attrs)
}

// generation is the number of the rules in force in nf_tables.
func generation() (uint32, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	answer, err := conn.Execute(nfnetlinkMessage(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, unix.AF_UNSPEC, netlink.Request, nil))
	if err != nil {
		return 0, err
	}
	if len(answer) != 1 || len(answer[0].Data) < 4 {
		return 0, errors.New("the kernel doesn't tell the generation of its rules")
	}
	d, err := netlink.NewAttributeDecoder(answer[0].Data[4:])
	if err != nil {
		return 0, err
	}
	d.ByteOrder = binary.BigEndian
	for d.Next() {
		if d.Type() == unix.NFTA_GEN_ID {
			return d.Uint32(), nil
		}
	}
	return 0, errors.Join(d.Err(), errors.New("the kernel doesn't tell the generation of its rules"))
}

// transact sends messages as one transaction, if the rules are still of a generation; otherwise the error is ERESTART.
func transact(generation uint32, messages []netlink.Message) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	const batchGenID = 1 // NFNL_BATCH_GENID
	begin := batchMessage(unix.NFNL_MSG_BATCH_BEGIN, netlink.Attribute{Type: batchGenID, Data: binary.BigEndian.AppendUint32(nil, generation)})
	messages[len(messages)-1].Header.Flags |= netlink.Acknowledge // where one fails the error comes instead
	batch := append(append([]netlink.Message{begin}, messages...), batchMessage(unix.NFNL_MSG_BATCH_END))
	if _, err := conn.SendMessages(batch); err != nil {
		return err
	}
	_, err = conn.Receive()
	return err
}

func nfnetlinkMessage(kind uint16, family byte, flags netlink.HeaderFlags, attrs []netlink.Attribute) netlink.Message {
	data, _ := netlink.MarshalAttributes(attrs) // fails only on attributes longer than 64 KiB
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, data...),
	}
}

func batchMessage(kind uint16, attrs ...netlink.Attribute) netlink.Message {
	data, _ := netlink.MarshalAttributes(attrs)
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request},
		Data:   append([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}, data...),
	}
}
