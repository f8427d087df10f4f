package nft

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// A datagram that ends in the middle of a message is an error, never the messages before.
func TestSplitRefusesWhatIsCutShort(t *testing.T) {
	s := &socket{}
	whole := s.appendMessage(nil, unix.NFPROTO_INET, unix.NFT_MSG_GETTABLE, 0, []byte{8, 0, 1, 0, 'a', 'b', 'c', 0})
	whole = s.appendMessage(whole, unix.NFPROTO_INET, unix.NFT_MSG_GETSET, unix.NLM_F_DUMP, nil)
	answers, err := split(whole)
	if err != nil || len(answers) != 2 || answers[0].sequence != 1 || len(answers[0].body) != headerLen+8 ||
		answers[1].typ != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSET {
		t.Errorf("got %+v, %v", answers, err)
	}
	first := len(whole) - headersLen
	for n := 1; n < len(whole); n++ {
		if _, err := split(whole[:n]); n != first && !errors.Is(err, errCutShort) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
}

func TestTake(t *testing.T) {
	number := func(errno int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(-errno)) }
	header := make([]byte, unix.NLMSG_HDRLEN)
	reason := append([]byte{11, 0, attrErrorText, 0}, "no set\x00\x00"...)
	for name, c := range map[string]struct {
		answer answer
		flags  uint16
		done   bool
		want   error
		text   string
	}{
		"the end of a dump":                   {answer{typ: unix.NLMSG_DONE, body: number(0)}, unix.NLM_F_DUMP, true, nil, ""},
		"a dump that failed":                  {answer{typ: unix.NLMSG_DONE, body: number(int32(unix.EAGAIN))}, unix.NLM_F_DUMP, true, unix.EAGAIN, ""},
		"a dump that was overtaken":           {answer{typ: unix.NLMSG_DONE, flags: unix.NLM_F_DUMP_INTR, body: number(0)}, unix.NLM_F_DUMP, true, errChanged, ""},
		"an overtaken piece of a dump":        {answer{typ: 0xa00, flags: unix.NLM_F_DUMP_INTR, body: number(0)}, unix.NLM_F_DUMP, true, errChanged, ""},
		"an end without a number":             {answer{typ: unix.NLMSG_DONE}, unix.NLM_F_DUMP, true, errCutShort, ""},
		"an error":                            {answer{typ: unix.NLMSG_ERROR, body: append(number(int32(unix.ENOENT)), header...)}, 0, true, unix.ENOENT, "no such file or directory"},
		"an error with a reason":              {answer{typ: unix.NLMSG_ERROR, flags: flagMoreDetails, body: append(append(number(int32(unix.ENOENT)), header...), reason...)}, 0, true, unix.ENOENT, "no such file or directory (no set)"},
		"a message that is no message at all": {answer{typ: 0xa00, body: []byte{1}}, 0, true, errCutShort, ""},
		"nothing":                             {answer{typ: unix.NLMSG_NOOP}, 0, false, nil, ""},
		"one thing":                           {answer{typ: 0xa00, body: make([]byte, 8)}, 0, true, nil, ""},
		"one of many":                         {answer{typ: 0xa00, body: make([]byte, 8)}, unix.NLM_F_DUMP, false, nil, ""},
	} {
		done, err := c.answer.take(c.flags, func(byte, []byte) error { return nil })
		if done != c.done || !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %t %v, want %t %v", name, done, err, c.done, c.want)
		}
		if c.text != "" && (err == nil || err.Error() != c.text) {
			t.Errorf("%s: says %v, want %s", name, err, c.text)
		}
	}
}
