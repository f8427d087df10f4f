package policy

import (
	"fmt"
	"path"

	"quaywall/internal/diag"
)

// OriginOf is the short form of a place by which rules, counters and log lines name it: the file's base name and the
// line. A place without a line is the built-in default.
func OriginOf(pos diag.Pos) string {
	if pos.Line == 0 {
		return "default"
	}
	return fmt.Sprintf("%s:%d", path.Base(pos.File), pos.Line)
}
