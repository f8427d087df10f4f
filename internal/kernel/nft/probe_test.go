package nft

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCheckVersion(t *testing.T) {
	for release, ok := range map[string]bool{
		"5.10.0-28-amd64": true, "6.1.0": true, "10.0": true, "5.9.16": false, "4.19.0-26-amd64": false, "custom": true, "": true,
	} {
		if err := checkVersion(release); (err == nil) != ok {
			t.Errorf("%q: %v", release, err)
		}
	}
}

func TestAccess(t *testing.T) {
	if err := access(nil); err != nil {
		t.Error(err)
	}
	err := access(fmt.Errorf("reading: %w", unix.EPERM))
	if err == nil || !strings.Contains(err.Error(), "run as root, or with CAP_NET_ADMIN") {
		t.Errorf("got %v", err)
	}
	if err := access(unix.EIO); err == nil || strings.Contains(err.Error(), "root") {
		t.Errorf("got %v", err)
	}
}
