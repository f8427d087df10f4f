//go:build bench

package bench

import (
	"testing"

	"quaywall/internal/testkit/netns"
)

// network is a client, a host with Docker's rules for one published port, and the container behind it. The rules are
// written as Docker 20.10 writes them: what a packet meets is the same, and no engine has to run.
type network struct {
	client, host, container *netns.NS
}

const (
	clientAddr  = "203.0.113.2"
	hostAddr    = "203.0.113.1"
	hostAddr6   = "2001:db8:1::1"
	hostPort    = 7000 // a service of the host
	openPort    = 8080 // published, leads to the container's port 80
	closedPort  = 8081 // published too, never allowed
	serverPort  = 80
	closedInner = 81
)

const dockerRules = `*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 172.17.0.2:81
-A DOCKER ! -i docker0 -p udp -m udp --dport 8081 -j DNAT --to-destination 172.17.0.2:81
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 81 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p udp -m udp --dport 81 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
`

func newNetwork(t *testing.T) *network {
	n := &network{client: netns.New(t), host: netns.New(t), container: netns.New(t)}
	netns.Veth(t, n.client, "eth0", n.host, "eth0")
	netns.Veth(t, n.host, "veth1", n.container, "eth0")
	n.host.Bridge(t, "docker0", "veth1")
	n.client.Addr(t, "eth0", clientAddr+"/24", "2001:db8:1::2/64")
	n.host.Addr(t, "eth0", hostAddr+"/24", hostAddr6+"/64")
	n.host.Addr(t, "docker0", "172.17.0.1/16")
	n.container.Addr(t, "eth0", "172.17.0.2/16")
	n.container.Route(t, "default", "172.17.0.1")
	n.host.Sysctl(t, "net.ipv4.ip_forward", "1")
	// Connections by the ten thousand must neither run out of ports nor of entries.
	n.client.Sysctl(t, "net.ipv4.ip_local_port_range", "1024 65535")
	n.client.Sysctl(t, "net.ipv4.tcp_tw_reuse", "1")
	n.host.Feed(t, dockerRules, "iptables-restore")
	return n
}
