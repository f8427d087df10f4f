package nft

import (
	"testing"

	"quaywall/internal/kernel/conformance"
)

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Subject{
		Backend: New(),
		Tools:   []string{"nft"},
	})
}
