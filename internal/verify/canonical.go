package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// compareJSON compares two JSON values. Numbers are equal if they are so as
// decimals, of any precision: 1, 1.0 and 10e-1. What is not one JSON value in
// UTF-8 with each key once is equal only to the same bytes.
func compareJSON(a, b []byte) (string, error) {
	if max(len(a), len(b)) > MaxJSON {
		return "", fmt.Errorf("outputs of %d and %d bytes, at most %d: %w", len(a), len(b), MaxJSON, ErrTooLarge)
	}
	x, err := canonicalJSON(a)
	if err != nil {
		return fmt.Sprintf("the first is no JSON: %v", err), nil
	}
	y, err := canonicalJSON(b)
	if err != nil {
		return fmt.Sprintf("the second is no JSON: %v", err), nil
	}
	if bytes.Equal(x, y) {
		return "", nil
	}
	i := 0
	for i < min(len(x), len(y)) && x[i] == y[i] {
		i++
	}
	return fmt.Sprintf("%.40q against %.40q", x[i:], y[i:]), nil
}

// canonicalJSON is a form of one value that equal values share.
func canonicalJSON(data []byte) ([]byte, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	if loneSurrogate(data) {
		return nil, errors.New("half a surrogate pair") // the decoder would take all of them for one
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	out, err := appendValue(nil, d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something behind the value")
	}
	return out, nil
}

// loneSurrogate reports whether an escape in data is one half of a UTF-16 pair without the other.
func loneSurrogate(data []byte) bool {
	unit := func(at int) uint64 { // of the escape there; 0: none
		if at+6 > len(data) || data[at] != '\\' || data[at+1] != 'u' {
			return 0
		}
		u, _ := strconv.ParseUint(string(data[at+2:at+6]), 16, 16)
		return u
	}
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		switch unit(i) >> 10 {
		case 0xd800 >> 10:
			if unit(i+6)>>10 != 0xdc00>>10 {
				return true
			}
			i += 10
		case 0xdc00 >> 10:
			return true
		}
		i++ // what is escaped is no escape
	}
	return false
}

func appendValue(out []byte, d *json.Decoder, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case nil:
		return append(out, "null"...), nil
	case bool:
		return strconv.AppendBool(out, t), nil
	case string:
		return strconv.AppendQuote(out, t), nil
	case json.Number:
		return append(out, decimal(string(t))...), nil
	case json.Delim:
		if t == '[' {
			out = append(out, '[')
			for d.More() {
				if out, err = appendValue(out, d, depth+1); err != nil {
					return nil, err
				}
				out = append(out, ',')
			}
			_, err = d.Token()
			return append(out, ']'), err
		}
		return appendObject(out, d, depth)
	}
	return nil, errors.New("unexpected token")
}

func appendObject(out []byte, d *json.Decoder, depth int) ([]byte, error) {
	type member struct{ key, value string }
	var members []member
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		value, err := appendValue(nil, d, depth+1)
		if err != nil {
			return nil, err
		}
		name, ok := key.(string)
		if !ok {
			return nil, errors.New("a key that is no string")
		}
		members = append(members, member{name, string(value)})
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	slices.SortStableFunc(members, func(a, b member) int { return strings.Compare(a.key, b.key) })
	out = append(out, '{')
	for i, m := range members {
		if i > 0 && members[i-1].key == m.key {
			return nil, fmt.Errorf("the key %.40q twice", m.key)
		}
		out = append(strconv.AppendQuote(out, m.key), ':')
		out = append(append(out, m.value...), ',')
	}
	return append(out, '}'), nil
}

// decimal is the one form digits·10^exponent of a JSON number, without zeros at
// either end of the digits. Zero is "0", whatever its sign.
func decimal(s string) string {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	exp := new(big.Int)
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		if len(s)-i > maxNumber {
			return sign + s // nobody means that: as it is written
		}
		exp.SetString(strings.TrimPrefix(s[i+1:], "+"), 10)
		s = s[:i]
	}
	if i := strings.IndexByte(s, '.'); i >= 0 {
		exp.Sub(exp, big.NewInt(int64(len(s)-i-1)))
		s = s[:i] + s[i+1:]
	}
	s = strings.TrimLeft(s, "0")
	short := strings.TrimRight(s, "0")
	if short == "" {
		return "0"
	}
	exp.Add(exp, big.NewInt(int64(len(s)-len(short))))
	return sign + short + "e" + exp.String()
}
