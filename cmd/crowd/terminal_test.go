package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestPlainText(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"text", "a line\n\tand another\n", "a line\n\tand another\n"},
		{"UTF-8", "μ-credits, 網路, 🙂, e\u0301, \u00a0\u00ff\n", "μ-credits, 網路, 🙂, e\u0301, \u00a0\u00ff\n"},
		{"colours", "a \x1b[1;31mred\x1b[0m word", "a red word"},
		{"a colour as C1", "a \x9b31mred\xc2\x9b0m word", "a red word"},
		{"the clipboard, OSC 52, ended by BEL", "a\x1b]52;c;cm0gLXJmIC8=\ab", "ab"},
		{"OSC 52, ended by ST", "a\x1b]52;c;cm0gLXJmIC8=\x1b\\b", "ab"},
		{"OSC 52 as C1", "a\x9d52;c;cm0gLXJmIC8=\x9cb\xc2\x9d52;c;x\xc2\x9cc", "abc"},
		{"a title", "a\x1b]0;root@bank\ab\x1b]2;x\x1b\\c", "abc"},
		{"an escape in a title", "a\x1b]0;x\x1b[31my\ab", "ab"},
		{"a question that the terminal answers", "a\x1b[6n\x1b[c\x1b[>c\x1b[21tb", "ab"},
		{"DCS, APC, PM, SOS", "a\x1bP+q544e\x1b\\b\x1b_x\x1b\\c\x1b^x\x1b\\d\x1bXx\x1b\\e", "abcde"},
		{"other escapes", "a\x1bcb\x1b(0c\x1b7d\x1b#8e\x1bMf", "abcdef"},
		{"a cursor that goes back", "unverified\x1b[1A\x1b[2Kverified", "unverifiedverified"},
		{"ASCII's controls", "a\x00b\x01c\x07d\x08e\x0bf\x0cg\x0eh\x7fi", "abcdefghi"},
		{"C1's controls", "a\x85b\xc2\x85c\x8dd\xc2\x8de", "abcde"},
		{"the end of a line on Windows", "a\r\nb\r\r\nc", "a\nb\n\nc"},
		{"a line that writes over itself", "unverified\rverified  \n", "unverified\nverified  \n"},
		{"text turned round", "a\u202eb\u2066c\u200fd", "abcd"},
		{"what is no UTF-8", "a\xffb\xe2\x28c\xc0\x80d", "a\ufffdb\ufffd(c\ufffdd"},
		{"a sequence that does not end, and a new line", "a\x1b]0;hidden\nseen\x1b[31\nseen", "a\nseen\nseen"},
		{"a sequence in a sequence", "a\x1b\x1b[31mb\x1b[3\x1b[1mc", "abc"},
		{"a sequence that is cancelled", "a\x1b[31\x18b\x1b]0;x\x1ac", "abc"},
		{"text instead of a sequence", "a\x1bμb\x9bμc", "aμbμc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for size := 1; size <= len(tt.in); size++ { // the same, however it is cut
				var out bytes.Buffer
				w := &plainText{w: &out}
				for in := []byte(tt.in); len(in) > 0; {
					n := min(size, len(in))
					if got, err := w.Write(in[:n:n]); got != n || err != nil {
						t.Fatalf("got %d, %v of %d bytes", got, err, n)
					}
					in = in[n:]
				}
				if out.String() != tt.want {
					t.Fatalf("%d bytes at a time: got %q want %q", size, out.String(), tt.want)
				}
			}
		})
	}
	var out bytes.Buffer
	w := &plainText{w: &out}
	w.Write([]byte("\x1b]0;" + strings.Repeat("x", 2*maxEscape) + " seen"))
	if got := out.String(); !strings.HasSuffix(got, " seen") || len(got) < maxEscape {
		t.Errorf("a sequence without end: %d bytes are shown", len(got))
	}
}

// What a job's program writes reaches a terminal as text, while it runs and afterwards; elsewhere every byte of it arrives.
func TestLogs_NoEscapeReachesATerminal(t *testing.T) {
	dir, err := os.MkdirTemp("", "crowd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	n, err := serve(filepath.Join(dir, "node"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	prog := filepath.Join(dir, "p.wasm")
	if err := os.WriteFile(prog, []byte("escape"), 0o644); err != nil {
		t.Fatal(err)
	}
	crowd := func(terminal bool, args ...string) (stdout, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		args = append(args, "--node", filepath.Join(dir, "node"))
		if code := run(t.Context(), env{args: args, terminal: terminal, seen: terminal, stdout: &out, stderr: &errs, getenv: func(string) string { return "" }}); code != exitDone {
			t.Fatalf("crowd %v: got code %d: %s", args, code, errs.String())
		}
		return out.String(), errs.String()
	}
	const out, errs = "an \x1b]52;c;cm0gLXJmIC8=\aanswer\n", "\x1b]0;root@bank\x1b\\a \x9b31mwarning\x1b[0m\n"
	if _, stderr := crowd(true, "run", prog); !strings.Contains(stderr, "a warning\n") || strings.Contains(stderr, "\a") || strings.Contains(stderr, "\x9b") || strings.Contains(stderr, "\x1b]") {
		t.Errorf("run on a terminal: got %q", stderr)
	}
	if _, stderr := crowd(false, "run", prog); !strings.Contains(stderr, errs) {
		t.Errorf("run elsewhere: got %q", stderr)
	}
	stdout, _ := crowd(false, "job", "list", "--json")
	var jobs []struct{ ID string }
	if err := json.Unmarshal([]byte(stdout), &jobs); err != nil || len(jobs) == 0 {
		t.Fatalf("got %s, %v", stdout, err)
	}
	if stdout, stderr := crowd(true, "job", "logs", jobs[0].ID); stdout != "an answer\n" || stderr != "a warning\n" {
		t.Errorf("job logs on a terminal: got %q and %q", stdout, stderr)
	}
	if stdout, stderr := crowd(false, "job", "logs", jobs[0].ID); stdout != out || stderr != errs {
		t.Errorf("job logs elsewhere: got %q and %q", stdout, stderr)
	}
}

// FuzzPlainText: whatever comes, in whatever pieces, is UTF-8 without a character that a terminal obeys.
func FuzzPlainText(f *testing.F) {
	f.Add([]byte("a\x1b]52;c;x\ab"), uint8(1))
	f.Add([]byte("\xe2\x82"), uint8(2))
	f.Add([]byte("\x1b[31mred\x9b0m\r\n"), uint8(3))
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		var whole, cut bytes.Buffer
		if _, err := (&plainText{w: &whole}).Write(in); err != nil {
			t.Fatal(err)
		}
		w := &plainText{w: &cut}
		for rest := in; len(rest) > 0; {
			n := min(1+int(size), len(rest))
			w.Write(rest[:n:n])
			rest = rest[n:]
		}
		if whole.String() != cut.String() {
			t.Errorf("got %q whole, %q in pieces of %d", whole.String(), cut.String(), 1+int(size))
		}
		if !utf8.Valid(whole.Bytes()) {
			t.Errorf("got %q, which is no UTF-8", whole.String())
		}
		for _, r := range whole.String() {
			if r != '\n' && r != '\t' && unicode.IsControl(r) {
				t.Errorf("got %q with %U", whole.String(), r)
			}
		}
	})
}
