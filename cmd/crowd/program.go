package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/crowdcompute/crowd/internal/executor/wasm"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// This file refuses what cannot run before anything of it is uploaded, posted or paid.

// buildHint is what makes a program that runs.
const buildHint = "compile it to WebAssembly with WASI preview 1: GOOS=wasip1 GOARCH=wasm go build, clang " +
	"--target=wasm32-wasi, " +
	"or cargo build --target wasm32-wasip1"

// readProgram reads the program at path. It refuses a file of another kind, and a module that no executor runs within
// memory bytes (0: any), each with what to do.
func (a *app) readProgram(path string, memory uint64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && looksLikeImage(path):
		return nil, notRunnable(fmt.Errorf("read program: there is no file %s; if it is the name of a container "+
			"image: those do not run here", path), buildHint)
	case err != nil:
		return nil, fmt.Errorf("read program: %w", err)
	case info.IsDir():
		hint := "name the .wasm file in it; " + buildHint
		if found, _ := filepath.Glob(filepath.Join(path, "*.wasm")); len(found) > 0 {
			hint = "name the program in it: " + found[0]
		}
		return nil, notRunnable(fmt.Errorf("read program: %s is a folder", path), hint)
	case !info.Mode().IsRegular():
		return nil, notRunnable(fmt.Errorf("read program: %s is %s, not a file",
			path, rpc.NotFile(info.Mode())), "save the program in a file first")
	}
	code, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	if a.checkProgram == nil {
		return code, nil
	}
	if what, hint := foreign(path, code); what != "" {
		return nil, notRunnable(fmt.Errorf("program %s: it is %s, not a WebAssembly module", path, what), hint)
	}
	if err := a.checkProgram(code, memory); err != nil {
		return nil, notRunnable(fmt.Errorf("program %s: %w", path, err), moduleHint(err.Error()))
	}
	return code, nil
}

func notRunnable(err error, hint string) error {
	return &rpc.Error{Kind: rpc.UserError, Err: err, Hint: hint}
}

// looksLikeImage reports whether name could be that of a container image, as alpine:3 or ghcr.io/a/b.
func looksLikeImage(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "/") || filepath.Ext(name) == ".wasm" {
		return false
	}
	return strings.ContainsAny(name, ":@") || !strings.Contains(filepath.Base(name), ".")
}

// foreign says what code is that is no WebAssembly module, and what to do; "" if it is one.
func foreign(path string, code []byte) (what, hint string) {
	starts := func(s string) bool { return bytes.HasPrefix(code, []byte(s)) }
	text := strings.ToLower(string(bytes.TrimSpace(code[:min(len(code), 512)])))
	ext := strings.ToLower(filepath.Ext(path))
	switch {
	case starts("\x00asm\x01\x00\x00\x00"):
		return "", ""
	case starts("\x00asm"):
		return "a WebAssembly component", "build a core module instead, for WASI preview 1: cargo build --target " +
			"wasm32-wasip1, without wasm-tools component"
	case len(code) == 0:
		return "an empty file", "build it again: the last build may have failed"
	case starts("\x7fELF"):
		return "a program for Linux (ELF)", buildHint
	case starts("MZ"):
		return "a program for Windows", buildHint
	case starts("\xcf\xfa\xed\xfe"), starts("\xca\xfe\xba\xbe"):
		return "a program for macOS, or a Java class", buildHint
	case starts("!<arch>\n"):
		return "a static library", "link it into a program; " + buildHint
	case starts("\x1f\x8b"), starts("PK\x03\x04"), starts("\x28\xb5\x2f\xfd"):
		return "a compressed file", "unpack it and name the .wasm file in it"
	case strings.HasPrefix(text, "<!doctype"), strings.HasPrefix(text, "<html"):
		return "an HTML page", "download the program itself: this is the page about it"
	case ext == ".wat", strings.HasPrefix(text, "(module"):
		return "WebAssembly as text", "translate it first: wat2wasm FILE.wat -o FILE.wasm"
	case ext == ".py":
		return "a Python script", "run a Python that is compiled to WebAssembly, and give it the script: crowd run " +
			"python.wasm --in FOLDER -- /in/" + filepath.Base(path)
	case starts("#!"):
		return "a script", "run an interpreter that is compiled to WebAssembly, and give it the script in the folder " +
			"of --in"
	case ext == ".js", ext == ".lua", ext == ".rb", ext == ".sh", ext == ".php":
		return "a script", "run an interpreter that is compiled to WebAssembly, and give it the script in the folder " +
			"of --in"
	case ext == ".c", ext == ".cc", ext == ".cpp", ext == ".go", ext == ".rs":
		return "source code", buildHint
	}
	return "a file of another kind", buildHint
}

// moduleHint is what helps against the reason for which a module was refused.
func moduleHint(reason string) string {
	for _, x := range []struct{ in, hint string }{
		{"bytes of memory, the limit is", "give it more with --memory"},
		{"wasi_unstable", "build it with a newer compiler: wasi_unstable came before WASI preview 1 " +
			"(wasi_snapshot_preview1)"},
		{"exceptions are not supported", "build it without exceptions: -fno-exceptions, and without setjmp"},
		{"threads are not supported", "build it without threads: no -pthread, no wasm32-wasip1-threads"},
		{"shared", "build it without threads: no -pthread, no wasm32-wasip1-threads"},
		{"tail calls are not supported", "build it without tail calls: -mno-tail-call"},
		{"garbage collection", "its compiler needs garbage collection of WebAssembly, which does not run here: use a " +
			"language that brings its own"},
		{`from "env"`, "a function was not there when it was linked: with Emscripten build with -sSTANDALONE_WASM, " +
			"with clang link what is missing"},
		{`from "wbindgen`, "it was made for a web page (wasm-bindgen): build it for wasm32-wasip1"},
		{`from "gojs"`, "it was made for a web page: build it with GOOS=wasip1"},
		{`from "wasi:`, "it was made for a later WASI: build it for preview 1, as wasm32-wasip1"},
		{"has no such function", "it needs what programs do not have here, as a network or processes: build it " +
			"without"},
		{"_start", "it is a library: build it as a program with a main function"},
	} {
		if strings.Contains(reason, x.in) {
			return x.hint
		}
	}
	return buildHint
}

// checkModule finds what executors would: nil for a program that they run within that memory.
func checkModule(code []byte, memory uint64) error { return wasm.Check(code, memory) }
