package sim

// maxLooked bounds the rules that are looked at for one packet, on all its ways. Chains that jump twice each to the next double
// that number with each chain.
const maxLooked = 1_000_000

// How many rules of a base chain are noted before those are left out behind a jump that came back without a verdict.
const (
	maxNoted    = 500
	maxNotedAll = 10_000 // with Options.All
)

// How one packet's way is left in the middle.
type (
	tooLong   struct{}            // after maxLooked rules
	notWanted struct{ err error } // by Options.Ended
)

// lookAt counts a rule that is looked at.
func (w *walk) lookAt() {
	*w.looked++
	if *w.looked > maxLooked {
		panic(tooLong{})
	}
	if *w.looked%1024 == 0 && w.o.Ended != nil {
		if err := w.o.Ended(); err != nil {
			panic(notWanted{err})
		}
	}
}

// ended makes an error of an answer that isn't wanted any longer. It is to be deferred.
func ended(err *error) {
	switch r := recover().(type) {
	case nil:
	case notWanted:
		*err = r.err
	default:
		panic(r)
	}
}

// runOrGiveUp is run, and what is known of a way that is too long.
func (w *walk) runOrGiveUp(d derived) (r *result) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case tooLong:
			r = w.result(w.givenUp())
		default:
			panic(p)
		}
	}()
	return w.run(d)
}

// givenUp is a way that is too long to be followed to its end.
func (w *walk) givenUp() *result {
	at := Place{Table: w.step.Table, Chain: w.step.Chain, Text: "too many rules"}
	return &result{verdict: Unknown, reachable: perhaps, delivered: Delivery{Kind: "none"}, decided: &at,
		why:  "A million rules were looked at for this packet, and its way was not at an end: chains lead to the same chains again and again.",
		hint: "Look at the jumps below " + w.step.Table + " " + w.step.Chain + "."}
}

// forget leaves out what was noted behind a jump that came back without a verdict, where there is too much to tell of.
func (w *walk) forget(at int) {
	most := maxNoted
	if w.o.All {
		most = maxNotedAll
	}
	if at+1 < len(w.step.Rules) && len(w.step.Rules) > most {
		w.step.Rules = w.step.Rules[:at+1]
		w.did(at, "nothing decided there (left out: too many rules)")
	}
}
