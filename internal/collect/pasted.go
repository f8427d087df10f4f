package collect

import (
	"bytes"
	"strings"

	"quaywall/internal/snapshot"
)

// Pasted is a host of which no more is known than rules, as people paste them: what iptables-save, iptables -S, iptables -L,
// ipset save or nft -j list ruleset print, and scripts that call iptables. The error is ErrNoRules where none of the texts
// holds any.
func Pasted(texts [][]byte) (*snapshot.Host, error) {
	files := Files{Texts: map[string][]byte{}}
	for _, text := range texts {
		text = cleaned(text)
		file := fileOf(text)
		files.Texts[file] = append(append(files.Texts[file], text...), '\n')
	}
	host, err := files.Read()
	// On a host without rules nft still says who it is; iptables-save prints nothing, as many a mistake does.
	if err == nil && len(host.Rules.Tables) == 0 && !bytes.Contains(files.Texts[fileNFT], []byte(`"metainfo"`)) {
		err = ErrNoRules
	}
	return host, err
}

// cleaned is a text as it was before a web page or another system had it: without a mark of its encoding, with spaces that are
// spaces and the line ends of Unix.
func cleaned(text []byte) []byte {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if bytes.IndexByte(text, '\r') < 0 && !bytes.Contains(text, []byte("\u00a0")) {
		return text
	}
	return []byte(strings.NewReplacer("\u00a0", " ", "\r\n", "\n", "\r", "\n").Replace(string(text)))
}

// fileOf is the file of a snapshot that a text would be.
func fileOf(text []byte) string {
	head := bytes.TrimSpace(text)
	switch {
	case bytes.HasPrefix(head, []byte("{")):
		return fileNFT
	case bytes.HasPrefix(head, []byte("create ")):
		return fileSets
	case isIPv6(head):
		return fileRules6
	}
	return fileRules4
}

// isIPv6 tells whether rules are of IPv6: it is said in the head, or their addresses are.
func isIPv6(text []byte) bool {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	if bytes.Contains(first, []byte("ip6tables")) {
		return true
	}
	return bytes.Contains(text, []byte("icmp6")) || bytes.Contains(text, []byte("icmpv6")) || bytes.Contains(text, []byte("-d ::")) ||
		bytes.Contains(text, []byte("-s fe80:")) || bytes.Contains(text, []byte("::/0"))
}
