package docker

import "testing"

func TestListenerIn(t *testing.T) {
	const text = `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 20482 /run/docker.sock
0000000000000000: 00000003 00000000 00000000 0001 03 20999 /run/docker.sock
0000000000000000: 00000002 00000000 00010000 0001 01 777 @quaywall
0000000000000000: 00000002 00000000 00010000 0001 01 888 /srv/other.sock
`
	for path, want := range map[string]uint64{"/run/docker.sock": 20482, "/var/run/docker.sock": 20482, "/srv/other.sock": 888, "/none": 0} {
		if got, ok := listenerIn(text, path); got != want || ok != (want != 0) {
			t.Errorf("%s: inode %d, %v; want %d", path, got, ok, want)
		}
	}
}
