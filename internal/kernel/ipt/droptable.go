package ipt

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"quaywall/internal/ruleset"
)

// iptables-nft makes tables and built-in chains when they are first needed and never takes them away. One that holds
// nothing any more goes with quaywall: nobody can tell it from one that isn't there.

// dropEmptyTables deletes those of the tables that quaywall uses that hold nothing but built-in chains without rules,
// which accept. Deleting a table deletes what is in it: the transaction names the generation of rules that was looked at, so
// that the kernel refuses it if anything came in between.
func dropEmptyTables() error {
	for _, f := range families {
		for _, name := range tableNames {
			if err := dropIfEmpty(f, name); err != nil {
				return fmt.Errorf("deleting the empty table %s %s: %w", f, name, err)
			}
		}
	}
	return nil
}

func dropIfEmpty(f ruleset.Family, name string) error {
	for range tries {
		generation, err := generation()
		if err != nil {
			return err
		}
		empty, err := tableEmpty(f, name)
		if err != nil || !empty {
			return err
		}
		err = dropTable(f, name, generation)
		if !errors.Is(err, unix.ERESTART) {
			return err
		}
	}
	return nil // somebody is busy with rules; an empty table does no harm
}

// tableEmpty tells whether a table is there and holds nothing.
func tableEmpty(f ruleset.Family, name string) (bool, error) {
	conn, err := nftables.New()
	if err != nil {
		return false, err
	}
	t, err := conn.ListTableOfFamily(name, nftFamily(f))
	if err != nil || t == nil {
		return false, nil
	}
	sets, err := conn.GetSets(t)
	if err != nil || len(sets) > 0 {
		return false, err
	}
	chains, err := conn.ListChainsOfTableFamily(nftFamily(f))
	if err != nil {
		return false, err
	}
	for _, c := range chains {
		if c.Table.Name != name {
			continue
		}
		if c.Hooknum == nil || c.Policy == nil || *c.Policy != nftables.ChainPolicyAccept {
			return false, nil
		}
		rules, err := conn.GetRules(t, c)
		if err != nil || len(rules) > 0 {
			return false, err
		}
	}
	return true, nil
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

// dropTable deletes a table if the rules are still of a generation; otherwise the error is ERESTART.
func dropTable(f ruleset.Family, name string, generation uint32) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	const batchGenID = 1 // NFNL_BATCH_GENID
	begin := batchMessage(unix.NFNL_MSG_BATCH_BEGIN, netlink.Attribute{Type: batchGenID, Data: binary.BigEndian.AppendUint32(nil, generation)})
	drop := nfnetlinkMessage(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELTABLE, byte(nftFamily(f)), netlink.Request|netlink.Acknowledge,
		[]netlink.Attribute{{Type: unix.NFTA_TABLE_NAME, Data: append([]byte(name), 0)}})
	if _, err := conn.SendMessages([]netlink.Message{begin, drop, batchMessage(unix.NFNL_MSG_BATCH_END)}); err != nil {
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
