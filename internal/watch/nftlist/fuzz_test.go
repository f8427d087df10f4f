package nftlist

import (
	"encoding/json"
	"testing"

	"golang.org/x/sys/unix"

	"quaywall/internal/parse/nftjson"
)

// FuzzMessages reads what might come from a kernel of any version: nothing of it may do harm, and what is made of it can be
// read.
func FuzzMessages(f *testing.F) {
	f.Fuzz(func(t *testing.T, set, elements, rule []byte) {
		l := newLister(func(int) string { return "eth0" })
		l.table(message{unix.NFPROTO_INET, set})
		l.chain(message{unix.NFPROTO_INET, set})
		l.stateful(message{unix.NFPROTO_INET, set})
		l.set(message{unix.NFPROTO_INET, set})
		for _, s := range l.order {
			s.add(elements)
		}
		l.rules = append(l.rules, message{unix.NFPROTO_INET, rule})
		text, err := l.text()
		if err != nil || !json.Valid(text) {
			t.Fatalf("%v: %s", err, text)
		}
		nftjson.Parse(string(text), "nft.json")
	})
}
