package ruleset

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
)

// MarshalText writes a flow shortly, as "6 203.0.113.1:80 198.51.100.7": there may be a hundred thousand of them.
func (f Flow) MarshalText() ([]byte, error) {
	text := strconv.AppendUint(make([]byte, 0, 48), uint64(f.Proto), 10)
	text = f.Server.AppendTo(append(text, ' '))
	return f.Client.AppendTo(append(text, ' ')), nil
}

// UnmarshalText reads what MarshalText wrote.
func (f *Flow) UnmarshalText(text []byte) error {
	words := strings.Split(string(text), " ")
	if len(words) != 3 {
		return fmt.Errorf("%q is no flow", text)
	}
	proto, err := strconv.ParseUint(words[0], 10, 8)
	if err == nil {
		f.Proto = uint8(proto)
		f.Server, err = netip.ParseAddrPort(words[1])
	}
	if err == nil {
		f.Client, err = netip.ParseAddr(words[2])
	}
	return err
}

// matchNames are the names of the matches in JSON.
var matchNames = map[string]reflect.Type{
	"family":      reflect.TypeFor[FamilyMatch](),
	"iface":       reflect.TypeFor[IfaceMatch](),
	"addr":        reflect.TypeFor[AddrMatch](),
	"iface-addr":  reflect.TypeFor[IfaceAddrMatch](),
	"flow":        reflect.TypeFor[FlowMatch](),
	"proto":       reflect.TypeFor[ProtoMatch](),
	"port":        reflect.TypeFor[PortMatch](),
	"icmp-type":   reflect.TypeFor[ICMPTypeMatch](),
	"tcp-flags":   reflect.TypeFor[TCPFlagsMatch](),
	"ct-state":    reflect.TypeFor[CtStateMatch](),
	"dnat":        reflect.TypeFor[DNATMatch](),
	"addr-type":   reflect.TypeFor[AddrTypeMatch](),
	"socket":      reflect.TypeFor[SocketMatch](),
	"rate":        reflect.TypeFor[RateMatch](),
	"source-rate": reflect.TypeFor[SourceRateMatch](),
	"opaque":      reflect.TypeFor[Opaque](),
}

// plainRule is a Rule without its methods, so that its other fields are written as they are.
type plainRule Rule

// jsonRule is a rule as it is kept in a file. Each match is an object with one key, the name of its type.
type jsonRule struct {
	Matches []map[string]json.RawMessage `json:"matches,omitempty"`
	plainRule
}

// MarshalJSON writes a rule whole, its matches too.
func (r Rule) MarshalJSON() ([]byte, error) {
	out := jsonRule{plainRule: plainRule(r)}
	for _, m := range r.Matches {
		name, err := matchName(m)
		if err != nil {
			return nil, err
		}
		body, err := json.Marshal(m)
		if err != nil {
			return nil, err
		}
		out.Matches = append(out.Matches, map[string]json.RawMessage{name: body})
	}
	return json.Marshal(out)
}

func matchName(m Match) (string, error) {
	for name, t := range matchNames {
		if t == reflect.TypeOf(m) {
			return name, nil
		}
	}
	return "", fmt.Errorf("the match %T has no name in JSON", m)
}

// UnmarshalJSON reads what MarshalJSON wrote. A match that it doesn't know is an error: a rule is never read in part.
func (r *Rule) UnmarshalJSON(text []byte) error {
	var in jsonRule
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	*r = Rule(in.plainRule)
	for _, object := range in.Matches {
		m, err := readMatch(object)
		if err != nil {
			return err
		}
		r.Matches = append(r.Matches, m)
	}
	return nil
}

func readMatch(object map[string]json.RawMessage) (Match, error) {
	for name, body := range object {
		t, ok := matchNames[name]
		if !ok || len(object) != 1 {
			return nil, fmt.Errorf("unknown match %q", name)
		}
		m := reflect.New(t)
		if err := json.Unmarshal(body, m.Interface()); err != nil {
			return nil, fmt.Errorf("match %q: %w", name, err)
		}
		return m.Elem().Interface().(Match), nil
	}
	return nil, fmt.Errorf("a match without a name")
}
