package nft

import (
	"fmt"
	"iter"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// Message is one netlink message of nf_tables.
type Message struct {
	Type  uint16 // NFT_MSG_*
	Flags uint16 // NLM_F_*, without NLM_F_REQUEST
	Body  []byte // the attributes; valid until the next message is asked for
	Text  func() string
}

// What is kept with sets and elements, by nft and by quaywall.
const (
	udataRuleComment = userdata.TypeComment
	udataSetSummary  = userdata.Type(0x51) // quaywall's own: nft passes over types that it doesn't know
)

func message(typ, flags uint16, body buffer, format string, args ...any) Message {
	return Message{typ, flags, body, func() string { return fmt.Sprintf(format, args...) }}
}

// AddTable makes a table, if it isn't there.
func AddTable(name string) Message { return addTable(name, 0) }

func addTable(name string, flags uint32) Message {
	var b buffer
	b.string(unix.NFTA_TABLE_NAME, name)
	b.uint32(unix.NFTA_TABLE_FLAGS, flags)
	return message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, b, "add table inet %s", name)
}

// DeleteTable deletes a table that is there, and all that it holds.
func DeleteTable(name string) Message {
	var b buffer
	b.string(unix.NFTA_TABLE_NAME, name)
	return message(unix.NFT_MSG_DELTABLE, 0, b, "delete table inet %s", name)
}

// FlushRules deletes every rule of a table.
func FlushRules(table string) Message {
	var b buffer
	b.string(unix.NFTA_RULE_TABLE, table)
	return message(unix.NFT_MSG_DELRULE, 0, b, "flush table inet %s", table)
}

func addChain(table string, c *Chain) Message {
	var b buffer
	b.string(unix.NFTA_CHAIN_TABLE, table)
	b.string(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Base != nil {
		at := b.open(unix.NFTA_CHAIN_HOOK)
		b.uint32(unix.NFTA_HOOK_HOOKNUM, c.Base.Hook)
		b.uint32(unix.NFTA_HOOK_PRIORITY, uint32(c.Base.Priority))
		b.close(at)
		b.uint32(unix.NFTA_CHAIN_POLICY, c.Base.Policy)
		b.string(unix.NFTA_CHAIN_TYPE, c.Base.Type)
	}
	return message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, b, "add chain inet %s %s", table, c.text())
}

func deleteChain(table, name string) Message {
	var b buffer
	b.string(unix.NFTA_CHAIN_TABLE, table)
	b.string(unix.NFTA_CHAIN_NAME, name)
	return message(unix.NFT_MSG_DELCHAIN, 0, b, "delete chain inet %s %s", table, name)
}

func flushSet(table, name string) Message {
	return message(unix.NFT_MSG_DELSETELEM, 0, ElementsQuery(table, name), "flush set inet %s %s", table, name)
}

func deleteSet(table, name string) Message {
	var b buffer
	b.string(unix.NFTA_SET_TABLE, table)
	b.string(unix.NFTA_SET_NAME, name)
	return message(unix.NFT_MSG_DELSET, 0, b, "delete set inet %s %s", table, name)
}

// addSet makes a set that holds nothing yet. id is any number that no other set of the transaction has.
func addSet(table string, s *Set, id uint32, summary Summary) Message {
	var b buffer
	b.string(unix.NFTA_SET_TABLE, table)
	b.string(unix.NFTA_SET_NAME, s.Name)
	b.uint32(unix.NFTA_SET_ID, id)
	b.uint32(unix.NFTA_SET_FLAGS, s.Flags)
	b.uint32(unix.NFTA_SET_KEY_TYPE, s.Key.Magic)
	b.uint32(unix.NFTA_SET_KEY_LEN, s.Key.Len)
	if s.Flags&unix.NFT_SET_MAP != 0 {
		b.uint32(unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
		b.uint32(unix.NFTA_SET_DATA_LEN, 0)
	}
	if s.Timeout != 0 {
		b.uint64(unix.NFTA_SET_TIMEOUT, uint64(s.Timeout.Milliseconds()))
	}
	s.describe(&b)
	b.bytes(unix.NFTA_SET_USERDATA, s.userdata(summary))
	if s.Counter { // elements without one of their own get theirs from here
		at := b.open(nftaSetExpr)
		b.string(unix.NFTA_EXPR_NAME, "counter")
		b.close(b.open(unix.NFTA_EXPR_DATA))
		b.close(at)
	}
	return message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, b, "add set inet %s %s", table, s.text())
}

// Attributes that x/sys/unix lacks.
const (
	nftaSetExpr       = 17
	nftaSetCount      = 20
	nftaSetDescConcat = 2
	nftaSetElemKeyEnd = 10
	nftaSetFieldLen   = 1
	nftaBitwiseOp     = 6
	nftaListElem      = unix.NFTA_LIST_ELEM
)

// describe tells the size of a set and the fields of its keys.
func (s *Set) describe(b *buffer) {
	if s.Size == 0 && s.Key.Fields == nil {
		return
	}
	desc := b.open(unix.NFTA_SET_DESC)
	if s.Size != 0 {
		b.uint32(unix.NFTA_SET_DESC_SIZE, s.Size)
	}
	if s.Key.Fields != nil {
		concat := b.open(nftaSetDescConcat)
		for _, length := range s.Key.Fields {
			field := b.open(nftaListElem)
			b.uint32(nftaSetFieldLen, length)
			b.close(field)
		}
		b.close(concat)
	}
	b.close(desc)
}

// userdata is what nft needs to print the set, its comment, and the summary of what it is filled with.
func (s *Set) userdata(summary Summary) []byte {
	order := uint32(2) // the network's
	if s.Key.HostOrder {
		order = 1
	}
	data := userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, order)
	if s.Comment != "" {
		data = userdata.AppendString(data, userdata.NFTNL_UDATA_SET_COMMENT, s.Comment)
	}
	return userdata.Append(data, udataSetSummary, summary.bytes())
}

// maxBatch and maxBody are how many elements one message holds at most, and how many bytes they may take: all elements
// of a message are one attribute, of at most 64 KiB.
const (
	maxBatch = 1000
	maxBody  = 48 << 10
)

// addElements fills a set, some elements in each message.
func addElements(table string, s *Set) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		c := &chunk{table: table, set: s}
		c.begin()
		for e := range s.Elements {
			if c.elements == maxBatch || len(c.body) > maxBody {
				if !yield(c.message()) {
					return
				}
				c.begin()
			}
			c.add(e)
		}
		if c.elements > 0 {
			yield(c.message())
		}
	}
}

// chunk is the elements of one message.
type chunk struct {
	table    string
	set      *Set
	body     buffer
	list     int // where the list of elements begins
	elements int
	first    string
}

func (c *chunk) begin() {
	c.body, c.elements = c.body[:0], 0
	c.body.string(unix.NFTA_SET_ELEM_LIST_TABLE, c.table)
	c.body.string(unix.NFTA_SET_ELEM_LIST_SET, c.set.Name)
	c.list = c.body.open(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
}

func (c *chunk) add(e Element) {
	if c.elements == 0 {
		c.first = c.set.Key.format(e.Key)
	}
	c.elements++
	at := c.body.open(nftaListElem)
	if e.End {
		c.body.uint32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	c.body.value(unix.NFTA_SET_ELEM_KEY, e.Key)
	if e.KeyEnd != nil {
		c.body.value(nftaSetElemKeyEnd, e.KeyEnd)
	}
	if e.Verdict != nil {
		c.body.verdict(e.Verdict)
	}
	if e.Comment != "" {
		data := userdata.AppendString(nil, userdata.NFTNL_UDATA_SET_ELEM_COMMENT, e.Comment)
		c.body.bytes(unix.NFTA_SET_ELEM_USERDATA, data)
	}
	c.body.close(at)
}

// verdict adds the data of a map's element.
func (b *buffer) verdict(v *expr.Verdict) {
	data := b.open(unix.NFTA_SET_ELEM_DATA)
	at := b.open(unix.NFTA_DATA_VERDICT)
	b.uint32(unix.NFTA_VERDICT_CODE, uint32(int32(v.Kind)))
	if v.Chain != "" {
		b.string(unix.NFTA_VERDICT_CHAIN, v.Chain)
	}
	b.close(at)
	b.close(data)
}

func (c *chunk) message() Message {
	c.body.close(c.list)
	return message(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, c.body, "add element inet %s %s { %s, … } # %d elements",
		c.table, c.set.Name, c.first, c.elements)
}

// addRule puts a rule at the end of a chain.
func addRule(table, chain string, r *Rule) (Message, error) {
	var b buffer
	b.string(unix.NFTA_RULE_TABLE, table)
	b.string(unix.NFTA_RULE_CHAIN, chain)
	at := b.open(unix.NFTA_RULE_EXPRESSIONS)
	for _, e := range r.Exprs {
		data, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			return Message{}, err
		}
		b.bytes(nftaListElem|unix.NLA_F_NESTED, data)
	}
	b.close(at)
	if r.Comment != "" {
		b.bytes(unix.NFTA_RULE_USERDATA, userdata.AppendString(nil, udataRuleComment, r.Comment))
	}
	m := message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, b, "add rule inet %s %s %s", table, chain, r)
	return m, nil
}

// TableQuery is the body of a question about a table, or about the chains, rules or sets of one.
func TableQuery(name string) []byte {
	var b buffer
	b.string(unix.NFTA_TABLE_NAME, name) // NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and NFTA_SET_TABLE are the same number
	return b
}

// ElementsQuery is the body of a question about the elements of a set.
func ElementsQuery(table, set string) []byte {
	var b buffer
	b.string(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	b.string(unix.NFTA_SET_ELEM_LIST_SET, set)
	return b
}
