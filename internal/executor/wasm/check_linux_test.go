package wasm

import (
	"strings"
	"testing"
)

// TestCheck shows that what an executor would refuse is refused by Check, with the reason.
func TestCheck(t *testing.T) {
	const head = "\x00asm\x01\x00\x00\x00"
	start := "\x01\x04\x01\x60\x00\x00" +
		"\x03\x02\x01\x00" + "\x07\x0a\x01\x06_start\x00\x00" + "\x0a\x04\x01\x02\x00\x0b"
	for _, tt := range []struct{ name, module, want string }{
		{"a program", head + start, ""},
		{"nothing", "", "invalid wasm"},
		{"ELF", "\x7fELF", "invalid wasm"},
		{"two pages", head + strings.Replace(start, "\x07\x0a", "\x05\x03\x01\x00\x02\x07\x0a", 1),
			"begins with 131072 bytes of memory, the limit is 65536"},
		{"no start", head, "no function _start"},
		{"another host's import", head + "\x01\x04\x01\x60\x00\x00" + "\x02\x09\x01\x03env\x01f\x00\x00",
			`import of "f" from "env"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Check([]byte(tt.module), 64<<10)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestCause(t *testing.T) {
	for _, tt := range []struct{ name, message, want string }{
		{"of wasmtime", "error while executing at wasm backtrace:\n    0:    0x526 - <unknown>\n\nCaused by:\n    " +
			"wasm trap: wasm `unreachable` instruction executed\n",
			"wasm trap: wasm `unreachable` instruction executed"},
		{"plain", "integer divide by zero", "integer divide by zero"},
	} {
		if got := cause(tt.message); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
