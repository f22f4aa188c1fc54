package main

import (
	"bytes"
	"io"
	"unicode"
	"unicode/utf8"
)

// plainText writes what a stranger's program or node says to a terminal, as text and nothing else. A terminal takes commands out of
// what is written to it: escape sequences set its title, fill the clipboard (OSC 52), move the cursor over what was said before, or
// make the terminal type an answer as if the user had. So plainText leaves out all control characters of ASCII and of
// ISO 6429's upper half (C1, as bytes and as UTF-8), whole escape sequences, and the characters that turn the direction of a line. It
// keeps \n and \t and all other UTF-8, and writes U+FFFD for bytes that are not UTF-8. A lone \r becomes a \n: it would let a line
// write over itself.
//
// What one Write begins, a sequence or a character, the next one may end.
type plainText struct {
	w io.Writer

	in     escapeState
	length int    // bytes of the sequence so far
	rest   []byte // the beginning of a character, at most 3 bytes
	cr     bool   // a \r has come, and not yet what follows it
}

type escapeState uint8

const (
	noEscape      escapeState = iota
	afterEscape               // ESC
	inControl                 // CSI: ends with a byte from @ to ~
	inString                  // OSC, DCS, SOS, PM or APC: ends with BEL or ST
	stringEscaped             // of a string, ESC: ST if a backslash follows
)

// maxEscape bounds an escape sequence, in bytes. What is longer is shown as text from there on, so that nobody hides all
// that follows behind a sequence that does not end. A line's end ends every sequence too.
const maxEscape = 4096

func (t *plainText) Write(p []byte) (int, error) {
	var out bytes.Buffer
	for in := append(t.rest, p...); ; {
		if !utf8.FullRune(in) { // nothing is left, or the beginning of a character
			t.rest = append([]byte(nil), in...)
			break
		}
		r, size := utf8.DecodeRune(in)
		if r == utf8.RuneError && size == 1 && in[0] >= 0x80 && in[0] < 0xa0 {
			r = rune(in[0]) // C1 as a byte: no UTF-8, but some terminals obey it
		}
		in = in[size:]
		t.rune(&out, r)
	}
	if _, err := t.w.Write(out.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (t *plainText) rune(out *bytes.Buffer, r rune) {
	if t.cr {
		if t.cr = false; r != '\n' {
			out.WriteByte('\n')
		}
	}
	if t.in != noEscape {
		if t.length++; t.length <= maxEscape && t.escape(r) {
			return
		}
		t.in = noEscape
	}
	switch {
	case r == '\x1b':
		t.in, t.length = afterEscape, 0
	case r == 0x9b:
		t.in, t.length = inControl, 0
	case r == 0x90 || r == 0x98 || r == 0x9d || r == 0x9e || r == 0x9f:
		t.in, t.length = inString, 0
	case r == '\r':
		t.cr = true
	case r == '\n' || r == '\t' || !unicode.IsControl(r) && !unicode.Is(unicode.Bidi_Control, r):
		out.WriteRune(r)
	}
}

// escape takes the next character of a sequence. If it reports false, the sequence ended before that character.
func (t *plainText) escape(r rune) bool {
	switch {
	case r == '\n':
		return false
	case r == '\x18' || r == '\x1a': // CAN and SUB
		t.in = noEscape
		return true
	}
	switch t.in {
	case afterEscape:
		switch {
		case r == '[':
			t.in = inControl
		case r == ']' || r == 'P' || r == 'X' || r == '^' || r == '_':
			t.in = inString
		case r >= 0x20 && r < 0x30 || r == '\x1b': // an intermediate byte, or a new beginning
		default:
			t.in = noEscape
			return r < 0x80
		}
	case inControl:
		switch {
		case r >= 0x40 && r < 0x7f:
			t.in = noEscape
		case r == '\x1b':
			t.in = afterEscape
		case r >= 0x80: // no byte of such a sequence
			return false
		}
	case inString, stringEscaped:
		switch {
		case r == '\a' || r == 0x9c || t.in == stringEscaped && r == '\\':
			t.in = noEscape
		case r == '\x1b':
			t.in = stringEscaped
		default:
			t.in = inString
		}
	}
	return true
}
