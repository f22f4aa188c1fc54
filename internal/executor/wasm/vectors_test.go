//go:build linux

package wasm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/executortest"
)

// golden compares v with a file of test vectors, or writes it where UPDATE_SPEC is set.
func golden(t *testing.T, file string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("..", "..", "..", "spec", "vectors", file)
	if os.Getenv("UPDATE_SPEC") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (UPDATE_SPEC=1 go test ./internal/executor/wasm writes it): got\n%s", path, got)
	}
}

// guest is a module that exports a page of memory and _start with that body.
func guest(body string) string {
	sized := func(s string) string { return string(binary.AppendUvarint(nil, uint64(len(s)))) + s }
	section := func(id byte, parts ...string) string {
		return string([]byte{id}) + sized(string([]byte{byte(len(parts))})+strings.Join(parts, ""))
	}
	from := func(name string, typ byte) string {
		return sized(wasiModule) + sized(name) + string([]byte{0, typ})
	}
	return "\x00asm\x01\x00\x00\x00" +
		section(1, "\x60\x00\x00", "\x60\x02\x7f\x7f\x01\x7f", "\x60\x03\x7f\x7e\x7f\x01\x7f", "\x60\x04\x7f\x7f\x7f\x7f\x01\x7f", "\x60\x01\x7f\x00") +
		section(2, from("random_get", 1), from("clock_time_get", 2), from("fd_write", 3), from("proc_exit", 4)) +
		section(3, "\x00") + section(5, "\x00\x01") +
		section(7, sized("memory")+"\x02\x00", sized("_start")+"\x00\x04") +
		section(10, sized("\x00"+body+"\x0b"))
}

const (
	// random_get(16, 16); clock_time_get(realtime, 0, 32); clock_time_get(monotonic, 0, 40);
	// memory[0..8] = (16, 32); fd_write(stdout, 0, 1, 8); proc_exit(3)
	looks = "\x41\x10\x41\x10\x10\x00\x1a" + "\x41\x00\x42\x00\x41\x20\x10\x01\x1a" + "\x41\x01\x42\x00\x41\x28\x10\x01\x1a" +
		"\x41\x00\x41\x10\x36\x02\x00" + "\x41\x00\x41\x20\x36\x02\x04" + "\x41\x01\x41\x00\x41\x01\x41\x08\x10\x02\x1a" + "\x41\x03\x10\x03"
	forever = "\x03\x40\x0c\x00\x0b"
)

func TestVectors(t *testing.T) {
	type run struct {
		Name   string            `json:"name"`
		Module string            `json:"module"`
		Seed   crowd.Hash        `json:"seed"`
		Limit  crowd.Gas         `json:"gasLimit"`
		Status crowd.Status      `json:"status"`
		Exit   uint32            `json:"exitCode"`
		Gas    crowd.Gas         `json:"gas"`
		Files  map[string]string `json:"files"` // hex
	}
	type wasi struct {
		Name   string `json:"name"`
		Params string `json:"params"`
		Gas    uint64 `json:"gas"`
	}
	var v struct {
		Seed   crowd.Hash `json:"seed"`
		Random string     `json:"random"` // its first 96 bytes, in reads of 1, 31 and 64
		WASI   []wasi     `json:"wasi"`   // i: i32, I: i64; the gas of a call that moves nothing
		Runs   []run      `json:"runs"`
	}
	v.Seed = crowd.Hash{1, 2, 3}
	for i := range functions {
		v.WASI = append(v.WASI, wasi{functions[i].name, functions[i].params, functions[i].gas})
	}
	in := &table{b: make([]byte, 96), left: 1 << 40}
	h := newHost(nil, nil, v.Seed, 0, newTree(&shelf{}, false), nil, &memory{}, &memory{})
	at := uint64(0)
	for _, n := range []uint64{1, 31, 64} {
		for i := range functions {
			if functions[i].name != "random_get" {
				continue
			}
			if e, goOn := h.call(&functions[i], in, []uint64{at, n}); e != ok || !goOn {
				t.Fatalf("random_get: got errno %d", e)
			}
		}
		at += n
	}
	v.Random = hex.EncodeToString(in.b)
	for _, c := range []run{
		{Name: "nothing", Module: guest(""), Limit: 1_000_000},
		{Name: "randomness, both clocks, exit code", Module: guest(looks), Limit: 1_000_000},
		{Name: "the same with one gas less than it takes", Module: guest(looks), Limit: 31_779},
		{Name: "for ever", Module: guest(forever), Limit: 1_000_000},
		{Name: "unreachable", Module: guest("\x00"), Limit: 1_000_000},
		{Name: "no module", Module: "\x00asm", Limit: 1_000_000},
		{Name: "no _start", Module: "\x00asm\x01\x00\x00\x00", Limit: 1_000_000},
	} {
		c.Seed = v.Seed
		var first *executortest.Seen
		for _, engine := range Engines() {
			path := filepath.Join(t.TempDir(), "program.wasm")
			if err := os.WriteFile(path, []byte(c.Module), 0o600); err != nil {
				t.Fatal(err)
			}
			seen, _ := executortest.See(t, newTest(t, engine), executor.Spec{Program: path, Output: t.TempDir(), Seed: c.Seed,
				Limits: crowd.Limits{Gas: c.Limit, Memory: 1 << 20, Output: 1 << 16, Wall: time.Minute}})
			if first == nil {
				first = &seen
			} else if !first.Equal(seen) {
				t.Errorf("%s: %s got %+v, want %+v", c.Name, engine, seen, *first)
			}
		}
		c.Module, c.Status, c.Exit, c.Gas, c.Files = hex.EncodeToString([]byte(c.Module)), first.Status, first.ExitCode, first.Gas, map[string]string{}
		for name, text := range first.Files {
			c.Files[name] = hex.EncodeToString([]byte(text))
		}
		v.Runs = append(v.Runs, c)
	}
	// The clock starts at 2026-01-01T00:00:00Z and moves on 1 µs at every look.
	out, err := hex.DecodeString(v.Runs[1].Files["stdout"])
	if err != nil || len(out) != 32 {
		t.Fatalf("got %x, %v, want 32 bytes", out, err)
	}
	if got, want := hex.EncodeToString(out[:16]), v.Random[:32]; got != want {
		t.Errorf("random: got %s, want %s", got, want)
	}
	if got := binary.LittleEndian.Uint64(out[16:]); got != 1_767_225_600_000_001_000 {
		t.Errorf("real time: got %d", got)
	}
	if got := binary.LittleEndian.Uint64(out[24:]); got != 1_767_225_600_000_002_000 {
		t.Errorf("monotonic time: got %d", got)
	}
	golden(t, "wasm.json", v)
}
