package rpc

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestScanFolder_RefusesByNameWhatCannotBeSent shows that a folder with anything that is no plain file is refused
// before anything is sent, by its name and with a cure, and that a pipe, which would hold up whoever opens it, holds
// up nobody.
func TestScanFolder_RefusesByNameWhatCannotBeSent(t *testing.T) {
	file := func(name string) func(dir string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600) }
	}
	link := func(target string) func(dir string) error {
		return func(dir string) error { return os.Symlink(target, filepath.Join(dir, "l")) }
	}
	for _, tt := range []struct {
		name string
		make func(dir string) error
		want string // in the error; "": none
	}{
		{"a file", file("a"), ""},
		{"a name of other letters", file("grün"), ""},
		{"a link to a file of the folder", link("kept"), ""},
		{"newline", file("a\nb"), `"a\nb" has a control character`},
		{"backslash", file(`a\b`), `"a\\b" has a backslash`},
		{"not UTF-8", file("caf\xe9"), `"caf\xe9" is not UTF-8`},
		{"absolute link", link("/etc/passwd"), `"l" is a link to the absolute path "/etc/passwd"`},
		{"dangling link", link("nowhere"), `"l" is a link to "nowhere", which does not exist`},
		{"link out", link("../x"), `"l" is a link to "../x", which leads out of the folder`},
		{"circle", link("l"), `"l" is a link to "l", which leads out of the folder or in a circle`},
		{"link to a folder", link("sub"), `"l" is a link to the folder "sub"`},
		{"deep", func(dir string) error { return os.MkdirAll(filepath.Join(dir, strings.Repeat("d/", 34)), 0o700) },
			"more than 32 folders"},
		{"named pipe", func(dir string) error { return unix.Mkfifo(filepath.Join(dir, "p"), 0o600) },
			`"p" is a named pipe`},
		{"socket", func(dir string) error {
			l, err := net.Listen("unix", filepath.Join(dir, "s"))
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		}, `"s" is a socket`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "scan") // short: a socket lies in it
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			for _, err := range []error{os.Mkdir(filepath.Join(dir, "sub"), 0o700), file("kept")(dir), tt.make(dir)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			root, err := os.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			size, err := ScanFolder(t.Context(), root.FS())
			if tt.want == "" {
				if err != nil || size.Files != 2 || size.Bytes != 2 {
					t.Errorf("got %+v, %v; want two files of one byte", size, err)
				}
				return
			}
			e, _ := err.(*Error)
			if e == nil || e.Kind != BadRequest || e.Hint == "" || !strings.Contains(e.Error(), tt.want) {
				t.Errorf("got %v, want a bad request that says %q and has a hint", err, tt.want)
			}
		})
	}
}
