// Package nftlist lists all rules of nf_tables, everybody's, as "nft -j -a list ruleset" prints them, without the program nft.
//
//	text, err := nftlist.List()
//
// The kernel's expressions are put back into statements: what stands in registers into what it was loaded from. Package
// parse/nftjson reads the text like one of nft's. What isn't known here keeps its place under the kernel's name for it, and
// is taken for what nobody understands.
//
// Be aware: it is for reading by programs. nft leaves out what follows from something else, and puts some values into nicer
// words. The rules are those of the network namespace of the operating system thread that calls.
package nftlist

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"quaywall/internal/nlsock"
)

// object is an object of JSON.
type object = map[string]any

// errChanged is a list that was overtaken by a change. The next try may succeed.
var errChanged = errors.New("the rules were changed by somebody while they were read")

// tries is how often a list that was overtaken by changes is begun again.
const tries = 20

// List lists the rules, of one moment.
func List() ([]byte, error) {
	s, err := nlsock.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	for range tries {
		l := newLister(interfaceName)
		if err = l.ask(s); err == nil {
			return l.text()
		}
		if !errors.Is(err, errChanged) {
			break
		}
	}
	return nil, fmt.Errorf("listing the rules of nf_tables: %w", err)
}

// interfaceName is the name of an interface that rules have by its number, "" where there is none.
func interfaceName(index int) string {
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return ""
	}
	return i.Name
}

// lister puts a list together.
type lister struct {
	nameOf  func(index int) string
	objects []object // tables, then what stands in them, then rules
	sets    map[setKey]*set
	order   []*set
	rules   []message
}

// message is what the kernel tells of one thing: the family of its table, and attributes.
type message struct {
	family byte
	attrs  []byte
}

func newLister(nameOf func(int) string) *lister {
	return &lister{nameOf: nameOf, sets: map[setKey]*set{}, objects: []object{{"metainfo": object{"json_schema_version": 1}}}}
}

// ask asks the kernel for all there is.
func (l *lister) ask(s *nlsock.Socket) error {
	d := dumper{socket: s, generation: -1}
	d.dump(unix.NFT_MSG_GETTABLE, nil, l.table)
	d.dump(unix.NFT_MSG_GETCHAIN, nil, l.chain)
	d.dump(unix.NFT_MSG_GETOBJ, nil, l.stateful)
	d.dump(unix.NFT_MSG_GETSET, nil, l.set)
	for _, set := range l.order {
		query := nlsock.Append(nil, unix.NFTA_SET_ELEM_LIST_TABLE, zero(set.key.table)...)
		query = nlsock.Append(query, unix.NFTA_SET_ELEM_LIST_SET, zero(set.key.name)...)
		d.family = set.key.family
		d.dump(unix.NFT_MSG_GETSETELEM, query, func(m message) { set.add(m.attrs) })
	}
	d.family = unix.NFPROTO_UNSPEC
	d.dump(unix.NFT_MSG_GETRULE, nil, func(m message) {
		l.rules = append(l.rules, message{m.family, bytes.Clone(m.attrs)})
	})
	return d.err
}

// dumper makes dumps one after the other until one fails.
type dumper struct {
	socket     *nlsock.Socket
	family     byte
	generation int // the last 16 bits of that of all rules of the namespace; -1 until the first answer
	err        error
}

// headerLen is the size of struct nfgenmsg.
const headerLen = 4

func (d *dumper) dump(typ uint16, attrs []byte, each func(message)) {
	if d.err != nil {
		return
	}
	body := append([]byte{d.family, unix.NFNETLINK_V0, 0, 0}, attrs...)
	changed := false
	err := d.socket.Dump(unix.NFNL_SUBSYS_NFTABLES<<8|typ, body, func(b []byte) {
		if len(b) < headerLen {
			return
		}
		generation := int(binary.BigEndian.Uint16(b[2:]))
		if d.generation < 0 {
			d.generation = generation
		}
		changed = changed || generation != d.generation
		each(message{b[0], b[headerLen:]})
	})
	switch {
	case changed, errors.Is(err, unix.ENOENT):
		d.err = errChanged
	case err != nil:
		d.err = err
	}
}

// text is the list. Sets come before the rules that look into them.
func (l *lister) text() ([]byte, error) {
	for _, s := range l.order {
		if !s.isAnonymous() {
			l.objects = append(l.objects, s.object())
		}
	}
	for _, m := range l.rules {
		l.objects = append(l.objects, l.rule(m))
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(object{"nftables": l.objects})
	return b.Bytes(), err
}

var families = map[byte]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_ARP: "arp",
	unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_NETDEV: "netdev"}

func (l *lister) table(m message) {
	a := attributes(m.attrs)
	t := object{"family": families[m.family], "name": a.text(unix.NFTA_TABLE_NAME)}
	if a.number(unix.NFTA_TABLE_FLAGS)&unix.NFT_TABLE_F_DORMANT != 0 {
		t["flags"] = "dormant"
	}
	l.objects = append(l.objects, object{"table": t})
}

// hooks are the names of hooks by their numbers, those of the family netdev apart.
var (
	hooks       = [...]string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	deviceHooks = [...]string{"ingress", "egress"}
)

func (l *lister) chain(m message) {
	a := attributes(m.attrs)
	c := object{"family": families[m.family], "table": a.text(unix.NFTA_CHAIN_TABLE), "name": a.text(unix.NFTA_CHAIN_NAME)}
	if hook := a.nested(unix.NFTA_CHAIN_HOOK); hook != nil {
		names := hooks[:]
		if m.family == unix.NFPROTO_NETDEV {
			names = deviceHooks[:]
		}
		number := hook.number(unix.NFTA_HOOK_HOOKNUM)
		c["hook"] = fmt.Sprint(number) // one that isn't known
		if number < uint64(len(names)) {
			c["hook"] = names[number]
		}
		c["type"], c["prio"], c["policy"] = a.text(unix.NFTA_CHAIN_TYPE), int32(hook.number(unix.NFTA_HOOK_PRIORITY)), "accept"
		if a.number(unix.NFTA_CHAIN_POLICY) == 0 {
			c["policy"] = "drop"
		}
		if devices := hook.devices(); devices != nil {
			c["dev"] = devices
		}
	}
	l.objects = append(l.objects, object{"chain": c})
}

// nftaHookDevs is NFTA_HOOK_DEVS, of Linux 5.5.
const nftaHookDevs = 4

func (a attrs) devices() []string {
	var all []string
	if one := a.text(unix.NFTA_HOOK_DEV); one != "" {
		all = append(all, one)
	}
	for _, name := range nlsock.Attributes(a[nftaHookDevs]) {
		all = append(all, unix.ByteSliceToString(name))
	}
	return all
}

// stateful is a limit or a quota that has a name. Whether it is one that holds above it is all that rules ask.
func (l *lister) stateful(m message) {
	a := attributes(m.attrs)
	kind, data := objectKinds[a.number(unix.NFTA_OBJ_TYPE)], a.nested(unix.NFTA_OBJ_DATA)
	o := object{"family": families[m.family], "table": a.text(unix.NFTA_OBJ_TABLE), "name": a.text(unix.NFTA_OBJ_NAME)}
	switch kind {
	case "limit":
		o["inv"] = data.number(unix.NFTA_LIMIT_FLAGS)&unix.NFT_LIMIT_F_INV != 0
	case "quota":
		o["inv"] = data.number(unix.NFTA_QUOTA_FLAGS)&unix.NFT_QUOTA_F_INV != 0
	default:
		return
	}
	l.objects = append(l.objects, object{kind: o})
}
