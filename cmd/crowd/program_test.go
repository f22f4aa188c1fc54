package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd/internal/rpc"
)

// TestReadProgram shows that what cannot run is refused before anything is uploaded, by what it is and with what to do.
func TestReadProgram(t *testing.T) {
	const module = "\x00asm\x01\x00\x00\x00"
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, content, want, hint string }{
		{"empty.wasm", "", "an empty file", "build it again"},
		{"true", "\x7fELF\x02", "a program for Linux (ELF)", "compile it to WebAssembly"},
		{"true.exe", "MZ\x90", "a program for Windows", "compile it to WebAssembly"},
		{"page.wasm", "\n<!DOCTYPE html>\n<html>", "an HTML page", "download the program itself"},
		{"a.wat", "(module)", "WebAssembly as text", "wat2wasm"},
		{"text", "  (module)", "WebAssembly as text", "wat2wasm"},
		{"a.py", "print(1)\n", "a Python script", "/in/a.py"},
		{"run.sh", "#!/bin/sh\n", "a script", "interpreter"},
		{"main.go", "package main\n", "source code", "GOOS=wasip1"},
		{"a.zip", "PK\x03\x04", "a compressed file", "unpack it"},
		{"a.a", "!<arch>\n", "a static library", "link it"},
		{"component.wasm", "\x00asm\x0d\x00\x01\x00", "a WebAssembly component", "preview 1"},
		{"notes.txt", "hello\n", "a file of another kind", "compile it to WebAssembly"},
		{"library.wasm", module, "no function _start", "main function"},
		{"old.wasm", module + "\x01\x04\x01\x60\x00\x00" + "\x02\x13\x01\x0dwasi_unstable\x01f\x00\x00",
			`"wasi_unstable"`, "newer compiler"},
		{"web.wasm", module + "\x01\x04\x01\x60\x00\x00" + "\x02\x09\x01\x03env\x01f\x00\x00", `from "env"`,
			"STANDALONE_WASM"},
		{"bin", "", "is a folder", "name the .wasm file in it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(dir, tt.name)
			if tt.name != "bin" {
				if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			refused(t, path, tt.want, tt.hint)
		})
	}
	for _, image := range []string{"alpine", "alpine:3", "ghcr.io/a/b"} {
		refused(t, image, "if it is the name of a container image", "compile it to WebAssembly")
	}
	good := filepath.Join(dir, "good.wasm")
	code := module + "\x01\x04\x01\x60\x00\x00" +
		"\x03\x02\x01\x00" + "\x07\x0a\x01\x06_start\x00\x00" + "\x0a\x04\x01\x02\x00\x0b"
	if err := os.WriteFile(good, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := (&app{env: env{checkProgram: checkModule}}).readProgram(good, 0); err != nil || string(got) != code {
		t.Errorf("a program: got %d bytes, %v; want it", len(got), err)
	}
}

func refused(t *testing.T, path, want, hint string) {
	t.Helper()
	_, err := (&app{env: env{checkProgram: checkModule}}).readProgram(path, 0)
	var e *rpc.Error
	if !errors.As(err, &e) || !strings.Contains(err.Error(), want) || !strings.Contains(e.Hint, hint) {
		t.Errorf("%s: got %v (%+v), want %q and the hint %q", path, err, e, want, hint)
	}
}

func TestModuleHint(t *testing.T) {
	for _, tt := range []struct{ reason, want string }{
		{"opcode 0x06: exceptions are not supported", "-fno-exceptions"},
		{"opcode 0xfe: threads are not supported", "-pthread"},
		{`import of "sock_open": wasi_snapshot_preview1 has no such function`, "as a network"},
		{`import of "x" from "wasi:cli/run": only wasi_snapshot_preview1 is offered`, "later WASI"},
		{"something else", "compile it to WebAssembly"},
	} {
		if got := moduleHint(tt.reason); !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q in it", tt.reason, got, tt.want)
		}
	}
}
