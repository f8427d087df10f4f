package sim

import (
	"testing"

	"quaywall/internal/netfilter"
)

// TestNumberText: values stand as people write them.
func TestNumberText(t *testing.T) {
	for want, c := range map[string]struct {
		field netfilter.Field
		n     uint64
	}{
		"00:11:22:33:44:55": {netfilter.SrcMAC, 0x001122334455},
		"ff:ff:ff:ff:ff:ff": {netfilter.DstMAC, 0xffffffffffff},
		"tcp":               {netfilter.Proto, 6},
		"0x10":              {netfilter.Mark, 16},
		"443":               {netfilter.DstPort, 443},
	} {
		if got := numberText(c.field, c.n); got != want {
			t.Errorf("%v: %s, want %s", c, got, want)
		}
	}
}
