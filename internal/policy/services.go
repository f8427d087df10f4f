package policy

import (
	"fmt"
	"slices"

	"quaywall/internal/netset"
	"quaywall/internal/policy/tree"
)

func ports(proto uint8, first, last uint16) Traffic {
	return Traffic{Proto: proto, Ports: netset.Ports{First: first, Last: last}}
}
func tcp(port uint16) Traffic                   { return ports(TCP, port, port) }
func udp(port uint16) Traffic                   { return ports(UDP, port, port) }
func both(port uint16) []Traffic                { return []Traffic{tcp(port), udp(port)} }
func echo(p, typ uint8) Traffic                 { return Traffic{Proto: p, ICMP: ICMPMatch{HasType: true, Type: typ}} }
func proto(number uint8) Traffic                { return ofProtocol(number) }
func service(name string, t ...Traffic) Service { return Service{Name: name, Traffic: t} }

// builtin are the services that every policy knows, sorted by name. What a name stands for never changes: a policy that
// was right stays right.
// See https://www.iana.org/assignments/service-names-port-numbers.
var builtin = []Service{
	service("amqp", tcp(5672)),
	service("amqps", tcp(5671)),
	service("bgp", tcp(179)),
	service("dhcp", udp(67)),
	service("dhcpv6", udp(547)),
	service("dns", both(53)...),
	service("dns-over-tls", tcp(853)),
	service("docker-api", tcp(2376)),
	service("elasticsearch", tcp(9200)),
	service("etcd", tcp(2379), tcp(2380)),
	service("ftp", tcp(21)),
	service("git", tcp(9418)),
	service("http", tcp(80)),
	service("http3", udp(443)),
	service("https", tcp(443)),
	service("icmp", proto(ICMP), proto(ICMPv6)),
	service("icmp6", proto(ICMPv6)),
	service("imap", tcp(143)),
	service("imaps", tcp(993)),
	service("influxdb", tcp(8086)),
	service("ipp", tcp(631)),
	service("ipsec", udp(500), udp(4500), proto(50)),
	service("iscsi", tcp(3260)),
	service("kafka", tcp(9092)),
	service("kerberos", both(88)...),
	service("kubernetes-api", tcp(6443)),
	service("ldap", tcp(389)),
	service("ldaps", tcp(636)),
	service("llmnr", both(5355)...),
	service("mdns", udp(5353)),
	service("memcached", tcp(11211)),
	service("mongodb", tcp(27017)),
	service("mosh", ports(UDP, 60000, 61000)),
	service("mqtt", tcp(1883)),
	service("mqtts", tcp(8883)),
	service("mssql", tcp(1433)),
	service("mysql", tcp(3306)),
	service("nats", tcp(4222)),
	service("netbios", udp(137), udp(138), tcp(139)),
	service("nfs", tcp(2049)),
	service("node-exporter", tcp(9100)),
	service("ntp", udp(123)),
	service("openvpn", udp(1194)),
	service("ping", echo(ICMP, 8), echo(ICMPv6, 128)),
	service("pop3", tcp(110)),
	service("pop3s", tcp(995)),
	service("postgres", tcp(5432)),
	service("prometheus", tcp(9090)),
	service("radius", udp(1812), udp(1813)),
	service("rdp", both(3389)...),
	service("redis", tcp(6379)),
	service("rpcbind", both(111)...),
	service("rsync", tcp(873)),
	service("samba", tcp(139), tcp(445)),
	service("sip", both(5060)...),
	service("sips", tcp(5061)),
	service("smtp", tcp(25)),
	service("smtps", tcp(465)),
	service("snmp", udp(161)),
	service("snmp-trap", udp(162)),
	service("squid", tcp(3128)),
	service("ssdp", udp(1900)),
	service("ssh", tcp(22)),
	service("stun", both(3478)...),
	service("submission", tcp(587)),
	service("swarm", tcp(2377), tcp(7946), udp(7946), udp(4789), proto(50)),
	service("syslog", udp(514)),
	service("syslog-tls", tcp(6514)),
	service("telnet", tcp(23)),
	service("tftp", udp(69)),
	service("traceroute", ports(UDP, 33434, 33534)),
	service("vnc", ports(TCP, 5900, 5999)),
	service("vxlan", udp(4789)),
	service("wireguard", udp(51820)),
	service("zookeeper", tcp(2181)),
}

// Services are the built-in services, sorted by name.
func Services() []Service { return slices.Clone(builtin) }

func builtinService(name string) (Service, bool) {
	i := slices.IndexFunc(builtin, func(s Service) bool { return s.Name == name })
	if i < 0 {
		return Service{}, false
	}
	return builtin[i], true
}

// readServices reads the policy's own services. They may be made of built-in ones, not of each other: so there are no
// loops, and what a name means stands in one line.
func (f *file) readServices(n *tree.Node) {
	if n.Kind != tree.Map {
		f.errorf(n, "write NAME: PORT/PROTOCOL", "services is a mapping of names, not a %s", n.Kind)
		return
	}
	for k, v := range n.Pairs() {
		if !f.enough() && f.newService(k) {
			s := Service{Name: k.Text, Pos: f.doc.Pos(k), Traffic: f.serviceTraffic(k, v)}
			f.services[k.Text] = &named{pos: s.Pos, traffic: s.Traffic}
			f.policy.Services = append(f.policy.Services, s)
		}
	}
}

func (f *file) newService(k *tree.Node) bool {
	p := checkName(k.Text)
	_, isBuiltin := builtinService(k.Text)
	_, isProtocol := protocolNumber(k.Text)
	if p == nil && (isBuiltin || isProtocol) {
		p = &problem{0, fmt.Sprintf("%q is a built-in name", k.Text), "choose another name: a reader takes this one for what it always is"}
	}
	if p == nil && f.services[k.Text] != nil {
		p = &problem{0, fmt.Sprintf("there is a service %q already, in %s", k.Text, f.services[k.Text].pos), "choose another name"}
	}
	if p != nil {
		f.report(k, p)
	}
	return p == nil
}

func (f *file) serviceTraffic(k, v *tree.Node) []Traffic {
	for _, item := range f.words(v, "service "+k.Text) {
		switch {
		case item.Text == "any" || item.Text == "published":
			f.errorf(item, "name ports and protocols", "%q can't be part of a service", item.Text)
			return nil
		case f.services[item.Text] != nil || item.Text == k.Text:
			f.errorf(item, "write its ports out", "a service can't be made of another of the policy's own")
			return nil
		}
	}
	return f.what(v, "service "+k.Text)
}
