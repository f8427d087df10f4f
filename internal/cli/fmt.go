package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"quaywall/internal/files"
	"quaywall/internal/policy"
)

const fmtLong = `Prints a policy in its canonical form: keys in their usual order, rules a key a line, comments kept. No word changes. With
--write the file itself is rewritten; with --check one line is printed where it isn't canonical, and the status is 4.`

// FmtAnswer is what "fmt --json" says.
type FmtAnswer struct {
	File    string `json:"file"`
	Changed bool   `json:"changed"` // the canonical form is another text
	Text    string `json:"text"`    // the canonical form
}

// asItWas is what fmt --write says where it fails.
const asItWas = "the file is as it was"

type fmtFlags struct{ write, check bool }

func (a *app) fmtCommand() *cobra.Command {
	var f fmtFlags
	cmd := &cobra.Command{
		Use:     "fmt [FILE]",
		Short:   "write a policy in its canonical form",
		Long:    fmtLong,
		Example: lines("quaywall fmt policy.yaml", "quaywall fmt --write", "quaywall fmt --check policy.yaml"),
		Args:    arguments(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a.opts.takePolicy(args)
			if f.write && f.check {
				return misusedf(cmd, "--write and --check exclude each other")
			}
			return a.fmt(f)
		},
	}
	cmd.Flags().BoolVarP(&f.write, "write", "w", false, "rewrite the file")
	cmd.Flags().BoolVar(&f.check, "check", false, "only tell whether it is canonical, by the exit status too")
	return cmd
}

func (a *app) fmt(f fmtFlags) error {
	name := a.opts.policy
	text, err := read(name)
	if err != nil {
		return &failure{status: Usage, doing: "reading " + name, err: err}
	}
	formatted, list := policy.Format(name, text)
	if list.HasErrors() {
		left := ""
		if f.write {
			left = asItWas
		}
		return &failure{status: Usage, err: invalidPolicy(name, list, left), list: list, source: policy.Sources{name: text}.Text}
	}
	v := FmtAnswer{File: name, Changed: !bytes.Equal(text, formatted), Text: string(formatted)}
	if f.write && v.Changed {
		if err := replace(name, formatted); err != nil {
			return &failure{status: Failed, doing: "writing " + name, err: err, next: asItWas}
		}
	}
	a.answer(v, func(w io.Writer, _ style) { showFmt(w, v, f) })
	if f.check && v.Changed {
		return differences()
	}
	return nil
}

func showFmt(w io.Writer, v FmtAnswer, f fmtFlags) {
	switch {
	case !f.write && !f.check:
		fmt.Fprint(w, v.Text)
	case v.Changed && f.write:
		fmt.Fprintf(w, "%s: rewritten\n", v.File)
	case v.Changed:
		fmt.Fprintf(w, "%s: not in its canonical form\n", v.File)
	}
}

// read reads a small regular file, as a policy is read.
func read(name string) ([]byte, error) {
	f, err := files.Host{}.Open(name, policy.MaxPolicySize)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// replace gives a file new contents, whole or not at all, and keeps its mode and owner. A link stays a link.
func replace(name string, text []byte) error {
	name, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	return writeBeside(name, text, func(tmp *os.File) error {
		if owner, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
			if err := tmp.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
				return err
			}
		}
		if err := tmp.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
		return os.Rename(tmp.Name(), name)
	})
}

// writeBeside writes a temporary file beside another one, makes sure that it is on the disk, and has it put into place.
func writeBeside(name string, text []byte, place func(tmp *os.File) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".quaywall-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already where it was renamed
	defer tmp.Close()
	if _, err := tmp.Write(text); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	return place(tmp)
}
