package nftlist_test

import (
	"os"
	"testing"

	"quaywall/internal/testkit/netns"
)

func TestMain(m *testing.M) {
	netns.Isolate()
	os.Exit(m.Run())
}
