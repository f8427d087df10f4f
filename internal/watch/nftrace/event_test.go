package nftrace

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"quaywall/internal/netfilter"
	"quaywall/internal/nlsock"
)

func be32(v int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }

// event is a message of the kernel's about a jump.
func event() []byte {
	b := []byte{unix.NFPROTO_IPV4, 0, 0, 0}
	b = nlsock.Append(b, attrTable, []byte("filter\x00")...)
	b = nlsock.Append(b, attrChain, []byte("FORWARD\x00")...)
	b = nlsock.Append(b, attrHandle, 0, 0, 0, 0, 0, 0, 0, 7)
	b = nlsock.Append(b, attrType, be32(3)...)
	var at int
	b, at = nlsock.Begin(b, attrVerdict|unix.NLA_F_NESTED)
	b = nlsock.Append(b, verdictCode, be32(unix.NFT_JUMP)...)
	b = nlsock.Append(b, verdictChain, []byte("DOCKER\x00")...)
	b = nlsock.End(b, at)
	b = nlsock.Append(b, attrID, be32(99)...)
	b = nlsock.Append(b, attrNetwork, make([]byte, 20)...)
	b = nlsock.Append(b, attrTransport, make([]byte, 20)...)
	b = nlsock.Append(b, attrIn, be32(2)...)
	return nlsock.Append(b, attrOut, be32(3)...)
}

func TestDecode(t *testing.T) {
	e, ok := decode(event())
	want := netfilter.Verdict{Kind: netfilter.Jump, Chain: "DOCKER"}
	if !ok || e.Family != netfilter.IPv4 || e.Table != "filter" || e.Chain != "FORWARD" || e.Kind != Rule || e.Handle != 7 || e.ID != 99 ||
		e.In != 2 || e.Out != 3 || len(e.Header) != 40 || e.Verdict == nil || *e.Verdict != want {
		t.Errorf("%+v, %v", e, ok)
	}
	for code, want := range map[int32]netfilter.VerdictKind{0: netfilter.Drop, 1: netfilter.Accept, 3: netfilter.Queue, 5 << 16: netfilter.Drop,
		7<<16 | 3: netfilter.Queue, unix.NFT_GOTO: netfilter.Goto, unix.NFT_RETURN: netfilter.Return, unix.NFT_CONTINUE: netfilter.Continue} {
		if got := verdictKind(uint32(code)); got != want {
			t.Errorf("verdict %d is read as %v, not %v", code, got, want)
		}
	}
}

func TestDecodeLegacy(t *testing.T) {
	logged := func(prefix string) []byte {
		b := nlsock.Append([]byte{unix.NFPROTO_IPV6, 0, 0, 0}, 10, append([]byte(prefix), 0)...)
		return nlsock.Append(b, 9, make([]byte, 60)...)
	}
	e, ok := decodeLegacy(logged("TRACE: filter:MY:CHAIN:rule:12 "))
	if !ok || !e.Legacy || e.Family != netfilter.IPv6 || e.Table != "filter" || e.Chain != "MY:CHAIN" || e.Number != 12 || e.Kind != Rule || len(e.Header) != 60 {
		t.Errorf("%+v, %v", e, ok)
	}
	if e, ok := decodeLegacy(logged("TRACE: raw:PREROUTING:policy:1 ")); !ok || e.Kind != Policy {
		t.Errorf("a policy is read as %+v, %v", e, ok)
	}
	for _, other := range []string{"", "a log rule's", "TRACE: ", "TRACE: a:b:c"} {
		if e, ok := decodeLegacy(logged(other)); ok {
			t.Errorf("%q is read as %+v", other, e)
		}
	}
}

// FuzzDecode: whatever comes, nothing panics, and no more is a packet than there is.
func FuzzDecode(f *testing.F) {
	f.Add(event())
	f.Fuzz(func(t *testing.T, b []byte) {
		e, _ := decode(b)
		if l, _ := decodeLegacy(b); len(e.Header) > len(b) || len(l.Header) > len(b) {
			t.Errorf("%d and %d of %d bytes are a packet", len(e.Header), len(l.Header), len(b))
		}
	})
}
