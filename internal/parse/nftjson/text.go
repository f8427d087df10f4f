package nftjson

import (
	"strconv"
	"strings"
)

// usualRule is how long most rules are, in bytes.
const usualRule = 96

// ruleText is a rule in nft's words, without its counters and its comment.
func ruleText(expr *node) string {
	var b strings.Builder
	b.Grow(usualRule)
	for s := range expr.each {
		key, v := s.only()
		if key == "counter" && v.kind != str || key == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(statementText(key, v))
	}
	return b.String()
}

// statementText is a statement in nft's words. It is for reading: of what is not known it is key and values.
func statementText(key string, v *node) string {
	switch key {
	case "match":
		return matchText(alone(v.get("left")), v.str("op"), alone(v.get("right")))
	case "accept", "drop", "continue", "return", "notrack":
		return key
	case "jump", "goto":
		return key + " " + v.str("target")
	case "counter", "limit", "quota", "ct count":
		return statefulText(key, v)
	case "log":
		return logText(v)
	case "reject":
		return rejectText(v)
	case "dnat", "snat", "masquerade", "redirect", "tproxy":
		return natText(key, v)
	case "mangle":
		if value := v.get("value"); value != nil && value.kind == number && isMark(v.get("key")) {
			return expressionText(v.get("key")) + " set " + operandText(value)
		}
		return expressionText(v.get("key")) + " set " + expressionText(v.get("value"))
	case "vmap":
		return expressionText(v.get("key")) + " vmap " + expressionText(v.get("data"))
	case "set":
		return updateText(v)
	case "meter":
		inner, limit := v.get("stmt").only()
		return "meter " + v.str("name") + " { " + expressionText(v.get("key")) + " " + statementText(inner, limit) + " }"
	case "queue":
		return joined("queue", option("flags", v.get("flags")), option("to", v.get("num")))
	case "ct helper", "ct timeout", "ct expectation":
		return key + " set " + quoted(expressionText(v))
	case "flow":
		return "flow " + v.str("op") + " " + v.str("flowtable")
	case "xt":
		return joined("xt", v.str("type"), quoted(v.str("name")))
	}
	return joined(key, pairsText(v))
}

// joined puts words together, empty ones left out.
func joined(words ...string) string {
	length := 0
	for _, w := range words {
		length += len(w) + 1
	}
	var b strings.Builder
	b.Grow(length)
	for _, w := range words {
		if w == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(w)
	}
	return b.String()
}

func option(name string, v *node) string {
	if v == nil {
		return ""
	}
	return name + " " + listText(v, ",")
}

// quoted writes a string as nft does: it has no way to write a quote.
func quoted(s string) string { return `"` + s + `"` }

// listText is the values of a list, or one.
func listText(n *node, between string) string {
	var all []string
	for v := range n.each {
		all = append(all, expressionText(v))
	}
	return strings.Join(all, between)
}

// pairsText is an object that there are no better words for.
func pairsText(n *node) string {
	if n == nil || n.text == "null" && n.kind == word {
		return ""
	}
	if n.kind != object {
		return expressionText(n)
	}
	var all []string
	for c := n.child; c != nil; c = c.next {
		all = append(all, joined(c.key, pairsText(c)))
	}
	return strings.Join(all, " ")
}

func matchText(left *node, op string, right *node) string {
	switch op {
	case "==", "in":
		op = ""
	}
	key, _ := left.only()
	calculated := key == "&" || key == "|" || key == "^"
	if op == "" && calculated {
		op = "=="
	}
	value := matchValue(left, right)
	switch {
	case right == nil:
	case right.kind == list && op == "==":
		value = listText(right, " | ")
	case right.kind == list:
		value = listText(right, ",")
	case right.kind == number && (calculated || isMark(left)):
		value = operandText(right)
	}
	return joined(expressionText(left), op, value)
}

// isMark tells whether an expression is a mark: nft writes those in hex.
func isMark(n *node) bool {
	_, v := n.only()
	return v.str("key") == "mark"
}

// matchValue quotes the names of interfaces, as nft does, and says whether something is there.
func matchValue(left, right *node) string {
	if right == nil {
		return ""
	}
	if right.kind == word {
		return map[string]string{"true": "exists", "false": "missing"}[right.text]
	}
	if right.kind == str && isName(left) && !strings.HasPrefix(right.text, "@") {
		return quoted(right.text)
	}
	if key, v := right.only(); key == "set" && isName(left) {
		var all []string
		for n := range v.each {
			if n.kind == str {
				all = append(all, quoted(n.text))
			} else {
				all = append(all, expressionText(n))
			}
		}
		return "{ " + strings.Join(all, ", ") + " }"
	}
	return expressionText(right)
}

// isName tells whether an expression is about the name of an interface, or about a helper's.
func isName(n *node) bool {
	key, v := n.only()
	switch key {
	case "meta":
		switch v.str("key") {
		case "iif", "oif", "iifname", "oifname", "iifkind", "oifkind":
			return true
		}
	case "ct":
		return v.str("key") == "helper"
	case "osf":
		return true
	}
	return false
}

func statefulText(key string, v *node) string {
	if v.kind == str {
		return key + " name " + quoted(v.text)
	}
	over := ""
	if v.isTrue("inv") {
		over = "over"
	}
	switch key {
	case "counter":
		return "counter"
	case "ct count":
		return joined(key, over, v.str("val"))
	case "quota":
		return joined(key, over, v.str("val"), v.str("val_unit"))
	}
	rate := v.str("rate")
	if unit := v.str("rate_unit"); unit != "" && unit != "packets" {
		rate += " " + unit
	}
	rate += "/" + v.str("per")
	burst := v.str("burst")
	if burst == "" || burst == "0" || burst == "5" && v.get("burst_unit") == nil {
		return joined(key, "rate", over, rate)
	}
	unit := v.str("burst_unit")
	if unit == "" {
		unit = "packets"
	}
	return joined(key, "rate", over, rate, "burst", burst, unit)
}

func logText(v *node) string {
	words := []string{"log"}
	if v.get("prefix") != nil {
		words = append(words, "prefix "+quoted(v.str("prefix")))
	}
	return joined(append(words, option("group", v.get("group")), option("snaplen", v.get("snaplen")),
		option("queue-threshold", v.get("queue-threshold")), option("level", v.get("level")), option("flags", v.get("flags")))...)
}

func rejectText(v *node) string {
	switch t := v.str("type"); {
	case t == "icmpx" && v.str("expr") == "port-unreachable":
		return "reject" // what it is without a word
	case t == "tcp reset":
		return "reject with tcp reset"
	case t != "":
		return joined("reject with", t, v.str("expr"))
	}
	return "reject"
}

func natText(key string, v *node) string {
	to := ""
	if a := v.get("addr"); a != nil {
		to = expressionText(a)
		if v.get("port") != nil && strings.Contains(to, ":") && a.kind == str {
			to = "[" + to + "]"
		}
	}
	if p := v.get("port"); p != nil {
		to += ":" + expressionText(p)
	}
	family := v.str("family")
	if v.get("type_flags") != nil {
		family = joined(family, listText(v.get("type_flags"), ","))
	}
	if to != "" {
		to = "to " + to
	}
	flags := ""
	if f := v.get("flags"); f != nil {
		flags = listText(f, ",")
	}
	return joined(key, family, to, flags)
}

func updateText(v *node) string {
	words := []string{v.str("op"), v.str("set"), "{", expressionText(v.get("elem"))}
	for s := range v.get("stmt").each {
		key, inner := s.only()
		words = append(words, statementText(key, inner))
	}
	return joined(append(words, "}")...)
}

// expressionText is an expression in nft's words.
func expressionText(n *node) string {
	if n == nil {
		return ""
	}
	if n.kind == list {
		return listText(n, ",")
	}
	if n.kind != object {
		return n.text
	}
	key, v := n.only()
	switch key {
	case "payload":
		if v.get("base") != nil {
			return "@" + v.str("base") + "," + v.str("offset") + "," + v.str("len")
		}
		return v.str("protocol") + " " + v.str("field")
	case "meta":
		return metaText(v.str("key"))
	case "ct":
		return joined("ct", v.str("dir"), v.str("family"), v.str("key"))
	case "rt":
		return joined("rt", v.str("family"), v.str("key"))
	case "socket", "osf":
		return joined(key, v.str("key"))
	case "fib":
		return joined("fib", listText(v.get("flags"), " . "), v.str("result"))
	case "exthdr":
		if v.get("field") != nil {
			key = ""
		}
		return joined(key, v.str("name"), v.str("field"))
	case "tcp option", "ip option", "sctp chunk":
		return joined(key, v.str("name"), v.str("field"))
	case "ipsec":
		return joined(key, v.str("dir"), nonZero("spnum", v), v.str("family"), v.str("key"))
	case "numgen":
		return joined("numgen", v.str("mode"), "mod", v.str("mod"), nonZero("offset", v))
	case "jhash":
		return joined("jhash", expressionText(v.get("expr")), "mod", v.str("mod"), nonZero("seed", v), nonZero("offset", v))
	case "symhash":
		return joined("symhash mod", v.str("mod"), nonZero("offset", v))
	case "concat":
		return listText(v, " . ")
	case "range":
		return listText(v, "-")
	case "prefix":
		return expressionText(v.get("addr")) + "/" + v.str("len")
	case "set":
		return setText(v)
	case "map":
		return expressionText(v.get("key")) + " map " + expressionText(v.get("data"))
	case "elem":
		return elementText(v)
	case "&", "|", "^", "<<", ">>":
		return operationText(key, v)
	}
	return joined(key, pairsText(v))
}

// metaText leaves "meta" out where nft does.
func metaText(key string) string {
	switch key {
	case "iif", "oif", "iifname", "oifname", "iifgroup", "oifgroup":
		return key
	}
	return "meta " + key
}

func nonZero(name string, n *node) string {
	if v := n.str(name); v != "" && v != "0" {
		return name + " " + v
	}
	return ""
}

// setText is a set or a map without a name.
func setText(n *node) string {
	var all []string
	for e := range n.each {
		if key, to, ok := e.pair(); ok {
			all = append(all, expressionText(key)+" : "+targetText(to))
			continue
		}
		all = append(all, expressionText(e))
	}
	return "{ " + strings.Join(all, ", ") + " }"
}

func targetText(n *node) string {
	if key, v := n.only(); key != "" {
		if _, ok := verdictOf(key, v); ok {
			return statementText(key, v)
		}
	}
	return expressionText(n)
}

func elementText(v *node) string {
	text := expressionText(v.get("val"))
	for _, seconds := range []string{"timeout", "expires"} {
		if s := v.uint(seconds); s != 0 {
			text += " " + seconds + " " + strconv.FormatUint(s, 10) + "s"
		}
	}
	return text
}

// operationText writes what binds less in brackets. Bits are in hex.
func operationText(op string, n *node) string {
	left, right, ok := n.pair()
	if !ok {
		return listText(n, " "+op+" ")
	}
	return operandText(left) + " " + op + " " + operandText(right)
}

func operandText(n *node) string {
	switch key, _ := n.only(); {
	case key == "|" || key == "^" || key == "&":
		return "(" + expressionText(n) + ")"
	case n.kind == list:
		return "(" + listText(n, " | ") + ")"
	case n.kind == number:
		if v, err := strconv.ParseUint(n.text, 10, 64); err == nil {
			return "0x" + strconv.FormatUint(v, 16)
		}
	}
	return expressionText(n)
}
