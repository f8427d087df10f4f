package apply_test

import (
	"fmt"
	"net"
	"sync"
	"testing"
)

// Trap 38: on a host where nothing used conntrack, live flows survive the first apply.

// livePolicy allows nothing but SSH in: what lives on does so because it ran before, and since the policy says so.
const livePolicy = "version: 1\nestablished: keep\ninbound:\n  - allow: ssh\n"

// liveFlows opens a flow of each kind.
func liveFlows(t *testing.T, s street) []*flow {
	t.Helper()
	var flows []*flow
	add := func(network, name string, from, to node, v6, wildcard bool, k talk) {
		listen, family := net.JoinHostPort(to.addr(v6), "0"), "IPv4"
		if v6 {
			family = "IPv6"
		}
		if wildcard {
			listen = ":0"
		}
		f := &flow{name: fmt.Sprintf("%s %s, %s, %s", family, network, name, k), talk: k}
		f.from, f.to = dialIn(t, network, from, to, listen, to.addr(v6))
		flows = append(flows, f)
	}
	for _, v6 := range []bool{false, true} {
		for _, k := range []talk{active, dialledSpeaks, dialerSpeaks, download, upload} {
			add("tcp", "inbound", s.client, s.host, v6, true, k)
			add("tcp", "outbound", s.host, s.client, v6, true, k)
			add("tcp", "container to outside", s.container, s.client, v6, true, k)
			add("tcp", "outside to container", s.client, s.container, v6, true, k)
			add("tcp", "container to host", s.container, s.host, v6, true, k)
			add("tcp", "host to container", s.host, s.container, v6, true, k)
			add("udp", "outbound", s.host, s.client, v6, false, k)
			add("udp", "inbound", s.client, s.host, v6, false, k)
		}
		add("tcp", "inbound to a listener on one address", s.client, s.host, v6, false, active)
		add("tcp", "inbound to a listener on one address", s.client, s.host, v6, false, dialledSpeaks)
	}
	for _, f := range flows {
		f.begin(t)
	}
	return flows
}

func TestLiveFlowsSurviveTheFirstApply(t *testing.T) {
	t.Parallel()
	onEachBackend(t, func(t *testing.T, backend string) {
		for _, loose := range []string{"1", "0"} {
			t.Run("tcp_loose="+loose, func(t *testing.T) {
				s := newStreet(t)
				s.host.Sysctl(t, "net.netfilter.nf_conntrack_tcp_loose", loose)
				flows := liveFlows(t, s)
				s.host.Do(t, func() { applyText(t, local(t, t.TempDir()), backend, livePolicy) })
				var checks sync.WaitGroup
				for _, f := range flows {
					checks.Add(1)
					go func() {
						defer checks.Done()
						if err := f.lives(); err != nil {
							t.Errorf("%s: %v", f.name, err)
						}
					}()
				}
				checks.Wait()
			})
		}
	})
}

// With "recheck" those that the policy denies end, though nothing tracked them; those that it allows and those that the host
// or a container dialled itself live on.
func TestFirstApplyEndsWhatIsDenied(t *testing.T) {
	t.Parallel()
	onEachBackend(t, func(t *testing.T, backend string) {
		s := newStreet(t)
		var doomed, blessed []*stream
		for _, v6 := range []bool{false, true} {
			in, out := s.host.addr(v6), net.JoinHostPort(s.client.addr(v6), "9000")
			for _, port := range []string{"22", "7001"} {
				serve(t, s.host, "tcp", net.JoinHostPort(in, port))
			}
			serve(t, s.client, "tcp", out)
			doomed = append(doomed, tuneIn(t, s.client, "tcp", net.JoinHostPort(in, "7001")))
			blessed = append(blessed, tuneIn(t, s.client, "tcp", net.JoinHostPort(in, "22")), tuneIn(t, s.host, "tcp", out),
				tuneIn(t, s.container, "tcp", out))
		}
		s.host.Do(t, func() {
			h := local(t, t.TempDir())
			const text = "version: 1\ninbound:\n  - allow: ssh\n"
			if r := applyText(t, h, backend, text); r.Ended.Connections != len(doomed) || len(r.Notices) > 0 {
				t.Errorf("%+v, want %d; %q", r.Ended, len(doomed), r.Notices)
			}
			if r := applyText(t, h, backend, text); r.Ended.Connections != 0 || r.Changed {
				t.Errorf("the second time: %+v, changed %v:\n%v", r.Ended, r.Changed, r.Difference)
			}
		})
		together(doomed, func(f *stream) {
			if !f.ended() || f.flows() {
				t.Errorf("%s goes on", f.name)
			}
		})
		together(blessed, func(f *stream) {
			if !f.flows() {
				t.Errorf("%s was cut: %v", f.name, f.readErr.Load())
			}
		})
	})
}
