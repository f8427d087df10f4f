package truth

import (
	_ "embed"
	"os"
	"strings"
)

// What ufw 0.36.2 has in the kernel after `ufw default deny`, `allow 22/tcp`, `allow from 192.168.50.0/24 to any port 8080 proto
// tcp`, `limit 5432/tcp`, `reject 4444/tcp` and `route allow proto tcp from any to 172.17.0.2 port 80`.
var (
	//go:embed testdata/ufw.rules
	ufw4 string
	//go:embed testdata/ufw6.rules
	ufw6 string
)

// ufw is a host with ufw, which was started after Docker, and then rules of DOCKER-USER as people write them beside it.
var ufw = []stage{
	{"on", func(w *world) {
		for tool, rules := range map[string]string{"iptables": ufw4, "ip6tables": ufw6} {
			w.sh(tool + "-restore --noflush <<'END'\n" + rules + "END")
		}
	}},
	sh("docker-user", "iptables -N DOCKER-USER 2>/dev/null || true", "iptables -A ufw-user-forward -p tcp -d 172.17.0.2 --dport 80 -s 192.168.50.0/24 -j RETURN",
		"iptables -I DOCKER-USER -j ufw-user-forward", "iptables -I DOCKER-USER 2 -j RETURN -s 172.16.0.0/12",
		"iptables -I DOCKER-USER 3 -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -d 172.16.0.0/12 -i eth0 -j DROP",
		"iptables -I DOCKER-USER 4 -p udp -m udp --dport 0:32767 -d 172.16.0.0/12 -j DROP"),
}

// firewalldDir is where Debian's firewalld is unpacked, with what it needs of Python; see scripts/truth.
func firewalldDir() string { return os.Getenv("QUAYWALL_FIREWALLD") }

// behindFirewalld is a host where firewalld runs before Docker, which speaks with it.
func behindFirewalld(w *world) {
	if firewalldDir() == "" {
		w.Skip("firewalld isn't there: make truth gets it")
	}
	if err := w.host.StopEngine(w.Context()); err != nil {
		w.Fatal(err)
	}
	w.sh(strings.ReplaceAll(startFirewalld, "$ROOT", firewalldDir()))
	if err := w.host.StartEngine(w.Context()); err != nil {
		w.Fatal(err)
	}
	plain(w)
}

// startFirewalld runs in the host's own mount, process and network namespaces, where /run is its own already.
const startFirewalld = `
mkdir -p /run/over /run/dbus
mount -t tmpfs none /run/over
for dir in etc usr; do
	mkdir /run/over/$dir /run/over/$dir.work
	mount -t overlay none -o lowerdir=$ROOT/$dir:/$dir,upperdir=/run/over/$dir,workdir=/run/over/$dir.work /$dir
done
mount -t tmpfs none /var/log
cat >/run/bus.conf <<'END'
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="*"/><allow receive_type="*"/><allow send_destination="*"/></policy></busconfig>
END
setsid dbus-daemon --config-file=/run/bus.conf --nofork --nopidfile >/run/bus.log 2>&1 </dev/null &
until [ -S /run/dbus/system_bus_socket ]; do sleep 0.1; done
setsid /usr/bin/python3 /usr/sbin/firewalld --nofork --nopid >/run/firewalld.log 2>&1 </dev/null &
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	/usr/bin/python3 /usr/bin/firewall-cmd --state >/dev/null 2>&1 && exit 0
	sleep 0.5
done
cat /run/firewalld.log >&2
exit 1
`

// firewallCmd is a stage with commands of firewall-cmd.
func firewallCmd(name string, commands ...string) stage {
	for i, c := range commands {
		commands[i] = "/usr/bin/python3 /usr/bin/firewall-cmd " + c
	}
	return sh(name, commands...)
}

var firewalld = setup{name: "firewalld", nft: true, build: behindFirewalld, then: []stage{
	firewallCmd("opened", "--add-port=8080/tcp", "--add-port=22/tcp", "--zone=trusted --change-interface=eth1"),
	firewallCmd("reloaded", "--permanent --add-rich-rule='rule family=ipv4 source address=203.0.113.0/24 port port=5353 protocol=udp reject'",
		"--permanent --zone=internal --add-source=192.168.50.0/24", "--permanent --zone=internal --add-service=ssh", "--reload && sleep 5"), // dockerd puts its rules back
}}
