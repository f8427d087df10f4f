package netfilter

import "strings"

// Keeper is a program that looks after chains: what is taken out of them, it writes again.
type Keeper struct {
	Name     string // "Docker"; "" for nobody: a person
	Firewall bool   // it filters for the whole host, so that two of them get into each other's way
}

type keeper struct {
	prefix string // that names begin with; the first that fits counts
	Keeper
}

// chainKeepers are known by the names of their chains of iptables.
var chainKeepers = []keeper{
	{"DOCKER-USER", Keeper{}}, // made by Docker, filled by people
	{"DOCKER", Keeper{"Docker", false}},
	{"ufw-user-input", Keeper{}}, {"ufw-user-output", Keeper{}}, {"ufw-user-forward", Keeper{}}, // what people told ufw
	{"ufw6-user-input", Keeper{}}, {"ufw6-user-output", Keeper{}}, {"ufw6-user-forward", Keeper{}},
	{"ufw-", Keeper{"ufw", true}}, {"ufw6-", Keeper{"ufw", true}},
	{"INPUT_ZONES", Keeper{"firewalld", true}},
	{"FORWARD_", Keeper{"firewalld", false}}, {"IN_", Keeper{"firewalld", false}}, {"FWD", Keeper{"firewalld", false}}, // perhaps a person's
	{"shorewall", Keeper{"Shorewall", true}}, {"LOCALINPUT", Keeper{"csf", true}}, {"FERM", Keeper{"ferm", true}},
	{"LIBVIRT_", Keeper{"libvirt", false}}, {"f2b-", Keeper{"fail2ban", false}}, {"sshguard", Keeper{"sshguard", false}},
	{"CROWDSEC", Keeper{"CrowdSec", false}}, {"KUBE-", Keeper{"Kubernetes", false}}, {"cali-", Keeper{"Calico", false}},
	{"CILIUM_", Keeper{"Cilium", false}}, {"CNI-", Keeper{"CNI", false}}, {"NETAVARK", Keeper{"Podman", false}}, {"ts-", Keeper{"Tailscale", false}},
}

// tableKeepers are known by the names of their tables of nf_tables.
var tableKeepers = []keeper{
	{"docker-bridges", Keeper{"Docker", false}}, {"firewalld", Keeper{"firewalld", true}}, {"libvirt_network", Keeper{"libvirt", false}},
	{"f2b-table", Keeper{"fail2ban", false}}, {"sshguard", Keeper{"sshguard", false}}, {"crowdsec", Keeper{"CrowdSec", false}},
	{"kube-proxy", Keeper{"Kubernetes", false}}, {"netavark", Keeper{"Podman", false}},
}

// KeeperOfChain is who looks after a chain of iptables.
func KeeperOfChain(name string) Keeper { return keeperOf(chainKeepers, name) }

// KeeperOfTable is who looks after a table of nf_tables.
func KeeperOfTable(name string) Keeper { return keeperOf(tableKeepers, name) }

func keeperOf(all []keeper, name string) Keeper {
	for _, k := range all {
		if strings.HasPrefix(name, k.prefix) {
			return k.Keeper
		}
	}
	return Keeper{}
}
