package verify

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
)

// maxNumber bounds a token that is read as a number, in bytes: longer ones are words.
const maxNumber = 128

// text compares token by token. White space only separates; a comma separates too
// and is a token, so that an empty field counts. A token is a number if it is
// written in decimal, or as nan or inf, and fits a float64; it is compared as
// that float64. All else is a word and must be equal.
func (c Comparator) text(a, b []byte, seen *spread) string {
	for i := 0; ; i++ {
		var x, y []byte
		x, a = token(a)
		y, b = token(b)
		if len(x) == 0 && len(y) == 0 {
			return ""
		}
		if bytes.Equal(x, y) {
			continue
		}
		n, ok := number(x)
		m, ok2 := number(y)
		if !ok || !ok2 || !c.near(n, m, seen) {
			return fmt.Sprintf("token %d: %.40q against %.40q", i, x, y)
		}
	}
}

func space(b byte) bool { return b == ' ' || '\t' <= b && b <= '\r' }

// token is the first token of p and what is behind it; empty at the end.
func token(p []byte) (tok, rest []byte) {
	i := 0
	for i < len(p) && space(p[i]) {
		i++
	}
	p = p[i:]
	if len(p) > 0 && p[0] == ',' {
		return p[:1], p[1:]
	}
	i = 0
	for i < len(p) && !space(p[i]) && p[i] != ',' {
		i++
	}
	return p[:i], p[i:]
}

func number(tok []byte) (float64, bool) {
	if len(tok) > maxNumber || bytes.ContainsAny(tok, "xX_pP") { // Go's own ways to write one
		return 0, false
	}
	f, err := strconv.ParseFloat(string(tok), 64)
	return f, err == nil
}

// compareLines compares two outputs as multisets of lines. A line ends by \n or at the end.
func compareLines(a, b []byte) (string, error) {
	x, err := sortedLines(a)
	if err != nil {
		return "", err
	}
	y, err := sortedLines(b)
	if err != nil {
		return "", err
	}
	for i := range min(len(x), len(y)) {
		p, q := lineAt(a, x[i]), lineAt(b, y[i])
		switch bytes.Compare(p, q) {
		case -1:
			return fmt.Sprintf("line %.40q stands less often in the second", p), nil
		case 1:
			return fmt.Sprintf("line %.40q stands less often in the first", q), nil
		}
	}
	if len(x) != len(y) {
		return fmt.Sprintf("%d lines against %d", len(x), len(y)), nil
	}
	return "", nil
}

// sortedLines is where the lines of p begin, in the order of the lines: four
// bytes a line, where slices would take 24.
func sortedLines(p []byte) ([]uint32, error) {
	n := bytes.Count(p, []byte{'\n'})
	if len(p) > 0 && p[len(p)-1] != '\n' {
		n++
	}
	if n > MaxLines {
		return nil, fmt.Errorf("%d lines, at most %d: %w", n, MaxLines, ErrTooLarge)
	}
	starts := make([]uint32, 0, n)
	for at := 0; at < len(p); {
		starts = append(starts, uint32(at))
		at += len(lineAt(p, uint32(at))) + 1
	}
	slices.SortFunc(starts, func(i, j uint32) int { return bytes.Compare(lineAt(p, i), lineAt(p, j)) })
	return starts, nil
}

func lineAt(p []byte, at uint32) []byte {
	p = p[at:]
	if i := bytes.IndexByte(p, '\n'); i >= 0 {
		return p[:i]
	}
	return p
}
