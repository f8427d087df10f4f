package agent

import (
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"quaywall/internal/inventory"
	"quaywall/internal/lock"
	"quaywall/internal/store"
)

// Report is what an agent tells of itself. It is written whenever it changes, and never because time goes by.
type Report struct {
	PID      int        `json:"pid,omitempty"`
	Since    time.Time  `json:"since,omitzero"`
	Ready    bool       `json:"ready"` // what there was to do at its start is done
	Follows  []Followed `json:"follows,omitempty"`
	Docker   DockerSeen `json:"docker,omitzero"`
	Troubles []string   `json:"troubles,omitempty"` // what it can't do, or waits for, now; a sentence each
	Repairs  []Repair   `json:"repairs,omitempty"`  // the last ones, the latest first, also those of agents before
}

// Followed is something that an agent hears of at once when it changes.
type Followed struct {
	Name    string `json:"name"`
	Problem string `json:"problem,omitempty"` // why it doesn't hear of it now; "" where it does
}

// DockerSeen is Docker as the agent saw it last.
type DockerSeen struct {
	inventory.Docker
	Since time.Time `json:"since,omitzero"` // since when it is so
}

// Repair is rules that somebody changed, and that the agent put back.
type Repair struct {
	When     time.Time     `json:"when"`
	Rules    string        `json:"rules"`               // whose they are: "quaywall" or "Docker"
	Missing  int           `json:"missing,omitempty"`   // of quaywall's: rules, chains and sets that were gone
	Added    int           `json:"added,omitempty"`     // of quaywall's: that were there beside them
	Mended   int           `json:"mended,omitempty"`    // of Docker's: rules and chains that came back
	TakenOut int           `json:"taken_out,omitempty"` // of Docker's: rules of what is gone, that somebody had put back
	By       string        `json:"by,omitempty"`        // the program that changed these rules last before; "" where that is not known, as with iptables for quaywall's
	Took     time.Duration `json:"took_ns"`             // from when it was noticed until it was done; of Docker's with the time that Docker was given
}

// ReportedRepairs bounds the repairs that are told.
const ReportedRepairs = 50

// said is what was logged on a topic, and is so until something else is.
type said struct {
	level slog.Level
	text  string
	told  string // the same for a person
}

// sentence is a line of the log for a person: the message and why it is so.
func sentence(message string, args []any) string {
	for i := 0; i+1 < len(args); i += 2 {
		switch args[i] {
		case "error", "problem", "problems":
			why, rest, _ := strings.Cut(fmt.Sprint(args[i+1]), "\n")
			if strings.HasSuffix(why, ":") && rest != "" { // what it is about comes next: whom a policy would cut off, for one
				first, more, _ := strings.Cut(rest, "\n")
				if why += " " + strings.TrimSpace(first); more != "" {
					why += " …"
				}
			}
			return message + " (" + why + ")"
		}
	}
	return message
}

// suspicion is how long after it was heard of somebody that they changed rules what is noticed to be amiss is put down to
// them. Not all changes are heard of: those of iptables-legacy have no author.
const suspicion = 5 * time.Second

// suspect is who changed rules of a kind shortly before that was noticed; "" where nobody was heard to.
func (a *Agent) suspect(kind Hint, noticed time.Time) string {
	if who := a.by[kind]; noticed.Sub(who.at) < suspicion {
		return who.name
	}
	return ""
}

// repaired notes a repair. noticed is when it was known that there is something to do.
func (a *Agent) repaired(r Repair, noticed time.Time) {
	r.When = a.host.Now()
	r.Took = r.When.Sub(noticed)
	a.repairs = slices.Insert(a.repairs, 0, r)
	a.repairs = a.repairs[:min(len(a.repairs), ReportedRepairs)]
}

// toldElsewhere are topics that status tells by itself.
var toldElsewhere = []string{"docker", "notices", "report"}

// publish writes the report where it differs from the last one.
func (a *Agent) publish() {
	r := a.report()
	if reflect.DeepEqual(r, a.published) {
		return
	}
	if err := a.host.Publish(r); err != nil {
		a.say("report", slog.LevelWarn, "status is not told of the agent", "error", err)
		return
	}
	a.published = r
	a.unsay("report")
}

func (a *Agent) report() Report {
	r := Report{Since: a.begun, Ready: a.ready, Docker: a.docker, Repairs: slices.Clone(a.repairs)}
	for _, name := range a.sources {
		r.Follows = append(r.Follows, Followed{name, a.deaf[name]})
	}
	for _, topic := range slices.Sorted(maps.Keys(a.said)) {
		if s := a.said[topic]; s.level >= slog.LevelWarn && !slices.Contains(toldElsewhere, topic) {
			r.Troubles = append(r.Troubles, s.told)
		}
	}
	for _, f := range []struct {
		whose, by string
		fight
	}{{"quaywall's", a.by[Own].name, a.fight}, {"Docker's", a.care.by, a.care.fight}} {
		if f.rest > 0 && a.host.Now().Sub(f.last) <= peace {
			r.Troubles = append(r.Troubles, fmt.Sprintf("%s rules are taken away again and again, last by %s: mending waits %v before it goes on",
				f.whose, orUnknown(f.by), f.rest))
		}
	}
	slices.Sort(r.Troubles)
	return r
}

// reportName is Report's in the store.
const reportName = "agent"

// ReportFile is the file that is replaced whenever an agent has something else to tell.
func ReportFile(s *store.Store) string { return s.KeptFile(reportName) }

// Status is what is known of a host's agent.
type Status struct {
	Running bool `json:"running"`
	Report       // of an agent that runs; else only its repairs
}

// ReadStatus finds out whether an agent runs, by its lock, and what it told last. An agent that died told something that
// is not so any more.
func ReadStatus(s *store.Store, runDir string) (Status, error) {
	var r Report
	if _, err := s.Kept(reportName, &r); err != nil {
		return Status{}, err
	}
	holder, err := lock.Running(runDir, "agent")
	switch {
	case err != nil || holder == nil:
		return Status{Report: Report{Repairs: r.Repairs}}, err
	case holder.PID != r.PID: // it has only just begun, or its state directory is another one
		r = Report{PID: holder.PID, Since: holder.Since, Repairs: r.Repairs}
	}
	return Status{Running: true, Report: r}, nil
}
