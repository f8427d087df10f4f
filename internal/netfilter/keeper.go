package netfilter

import "strings"

// Keeper is a program that looks after chains: what is taken out of them, it writes again.
type Keeper struct {
	Name     string // "Docker"; "" for nobody: a person
	Firewall bool   // it filters for the whole host, so that two of them get into each other's way
}

// keepers are known by the beginning of the names of their chains, or of their tables of nf_tables. The first that fits is it.
var keepers = []struct {
	prefix string
	Keeper
}{
	{"DOCKER-USER", Keeper{}}, // made by Docker, filled by people
	{"DOCKER", Keeper{"Docker", false}}, {"docker-bridges", Keeper{"Docker", false}},
	{"ufw-user-input", Keeper{}}, {"ufw-user-output", Keeper{}}, {"ufw-user-forward", Keeper{}}, // what people told ufw
	{"ufw6-user-input", Keeper{}}, {"ufw6-user-output", Keeper{}}, {"ufw6-user-forward", Keeper{}},
	{"ufw-", Keeper{"ufw", true}}, {"ufw6-", Keeper{"ufw", true}},
	{"firewalld", Keeper{"firewalld", true}}, {"INPUT_ZONES", Keeper{"firewalld", true}},
	{"FORWARD_", Keeper{"firewalld", false}}, {"IN_", Keeper{"firewalld", false}}, {"FWD", Keeper{"firewalld", false}}, // perhaps a person's
	{"shorewall", Keeper{"Shorewall", true}}, {"LOCALINPUT", Keeper{"csf", true}}, {"FERM", Keeper{"ferm", true}},
	{"LIBVIRT_", Keeper{"libvirt", false}}, {"libvirt_network", Keeper{"libvirt", false}},
	{"f2b-", Keeper{"fail2ban", false}}, {"sshguard", Keeper{"sshguard", false}},
	{"crowdsec", Keeper{"CrowdSec", false}}, {"CROWDSEC", Keeper{"CrowdSec", false}},
	{"KUBE-", Keeper{"Kubernetes", false}}, {"cali-", Keeper{"Calico", false}}, {"CILIUM_", Keeper{"Cilium", false}},
	{"CNI-", Keeper{"CNI", false}}, {"NETAVARK", Keeper{"Podman", false}}, {"netavark", Keeper{"Podman", false}},
	{"ts-", Keeper{"Tailscale", false}},
}

// KeeperOf is who looks after a chain of iptables, or a table of nf_tables, by its name.
func KeeperOf(name string) Keeper {
	for _, k := range keepers {
		if strings.HasPrefix(name, k.prefix) {
			return k.Keeper
		}
	}
	return Keeper{}
}
