package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
)

func floats64(v ...float64) []byte {
	var out []byte
	for _, f := range v {
		out = binary.LittleEndian.AppendUint64(out, math.Float64bits(f))
	}
	return out
}

func floats32(v ...float32) []byte {
	var out []byte
	for _, f := range v {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(f))
	}
	return out
}

func TestComparator_Kinds(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	text, abs := Comparator{Kind: Text, Rel: 1e-6}, Comparator{Kind: Text, Abs: 0.5}
	f64, f32 := Comparator{Kind: Float64, Rel: 1e-6}, Comparator{Kind: Float32, Rel: 1e-3}
	exact, lines, js := Comparator{Kind: Exact}, Comparator{Kind: Lines}, Comparator{Kind: JSON}
	for _, c := range []struct {
		name  string
		c     Comparator
		a, b  string
		equal bool
	}{
		{"equal", exact, "ab", "ab", true}, {"longer", exact, "ab", "abc", false}, {"another byte", exact, "ab", "aB", false}, {"empty", exact, "", "", true},
		{"close", text, "x 1.0000001\n2", "x  1.0000002 2.0", true}, {"too far", text, "1.001", "1.002", false},
		{"words", text, "foo 1", "bar 1", false}, {"number for word", text, "1", "one", false}, {"token more", text, "1 2", "1 2 3", false},
		{"commas", text, "1,2,3", "1 , 2.0, 3", true}, {"empty field", text, "1,,2", "1,2", false}, {"joined by comma", text, "1 2", "1,2", false},
		{"NaN", text, "nan", "NaN", true}, {"NaN and number", text, "nan", "1", false}, {"infinities", text, "inf", "+Infinity", true}, {"their signs", text, "inf", "-inf", false},
		{"infinity and huge", Comparator{Kind: Text, Abs: math.MaxFloat64}, "inf", "1e308", false}, {"beyond a float", text, "1e999", "1e998", false},
		{"zeros", text, "0", "-0.0", true}, {"near zero", text, "0", "1e-300", false}, {"absolute", abs, "10", "10.5", true}, {"absolute, too far", abs, "10", "10.6", false},
		{"hexadecimal is a word", text, "0x10", "16", false}, {"underscores are words", text, "1_0", "10", false},
		{"infinity and a number", text, "inf", "1", false}, {"both tolerances, the larger one", Comparator{Kind: Text, Abs: .5, Rel: .1}, "10", "11.1", true},
		{"both tolerances, not their sum", Comparator{Kind: Text, Abs: .5, Rel: .1}, "10", "11.2", false}, {"a number as long as a word", text, "1." + strings.Repeat("0", 200), "1", false},
		{"signs", text, "1e-9", "-1e-9", false}, {"two huge", Comparator{Kind: Text, Rel: .9}, "1.7e308", "-1.7e308", false},
		{"doubles", f64, string(floats64(1, 2, nan, inf)), string(floats64(1, 2.000001, nan, inf)), true},
		{"doubles too far", f64, string(floats64(1, 2)), string(floats64(1, 2.1)), false}, {"lengths", f64, string(floats64(1)), string(floats64(1, 1)), false},
		{"rest equal", f64, string(floats64(1)) + "ab", string(floats64(1.0000001)) + "ab", true}, {"rest differs", f64, string(floats64(1)) + "ab", string(floats64(1)) + "ac", false},
		{"NaN bits", f64, string(floats64(math.Float64frombits(0x7ff8000000000001))), string(floats64(nan)), true}, {"NaN for number", f64, string(floats64(nan)), string(floats64(0)), false},
		{"floats", f32, string(floats32(1, 2)), string(floats32(1, 2.001)), true}, {"floats too far", f32, string(floats32(1, 2)), string(floats32(1, 2.1)), false},
		{"order", lines, "b\na\n", "a\nb", true}, {"how often", lines, "a\na\nb\n", "a\nb\nb\n", false}, {"a line more", lines, "a\n", "a\na\n", false},
		{"empty line", lines, "a\n\n", "a\n", false}, {"prefix", lines, "a\nab\n", "ab\na\n", true}, {"no lines", lines, "", "\n", false},
		{"keys", js, `{"a":1,"b":[1,2]}`, `{ "b" : [1.0, 20e-1], "a" : 1e0 }`, true}, {"order in lists", js, `[1,2]`, `[2,1]`, false},
		{"escapes", js, `"\u00e9\/"`, `"é/"`, true}, {"pairs", js, `"\ud83d\ude00"`, `"😀"`, true}, {"escaped backslash", js, `["C:\\udata"]`, `[ "C:\\udata" ]`, true},
		{"lone surrogates", js, `"\ud800"`, `"\ud801"`, false}, {"lone low ones", js, `"\udc00"`, `"\ufffd"`, false}, {"pair of highs", js, `"\ud83d\ud83d"`, `"\ud83d\ud83e"`, false},
		{"precise", js, `10000000000000000000001`, `10000000000000000000002`, false}, {"zeros of JSON", js, `[0, -0, 0.0e5]`, `[0,0,0]`, true}, {"sign", js, `-1`, `1`, false},
		{"an exponent that nobody means", js, "1e" + strings.Repeat("0", 200) + "1", "1e1", false},
		{"exponents", js, `1e400`, `10e399`, true}, {"string and number", js, `"1"`, `1`, false}, {"type", js, `null`, `false`, false}, {"nested key", js, `{"a":{"b":1}}`, `{"a":{"b":2}}`, false},
		{"key twice", js, `{"a":1,"a":2}`, `{"a":2}`, false}, {"key twice in both", js, `{"a":1,"a":2}`, `{"a":1, "a":2}`, false}, {"two values", js, `1 2`, `1  2`, false}, {"no JSON, equal", js, `{`, `{`, true}, {"not UTF-8", js, "\"\xff\"", "\"\xfe\"", false},
		{"list and object", js, `[]`, `{}`, false}, {"deep", js, strings.Repeat("[", 200) + strings.Repeat("]", 200), strings.Repeat("[", 200) + " " + strings.Repeat("]", 200), false},
	} {
		for range 2 { // in both orders
			v, err := c.c.Compare([]byte(c.a), []byte(c.b))
			if err != nil || v.Equal != c.equal || (v.Where == "") != c.equal || v.Exact != (c.a == c.b) {
				t.Errorf("%s: %q against %q: got %+v, %v want %v", c.name, c.a, c.b, v, err, c.equal)
			}
			c.a, c.b = c.b, c.a
		}
	}
}

func TestComparator_RefusesWhatIsNone(t *testing.T) {
	run := func(a, b []byte) (bool, uint64, error) { return true, 1, nil }
	for _, c := range []Comparator{
		{}, {Kind: "vibes"}, {Kind: Text, Abs: -1}, {Kind: Text, Abs: math.NaN()}, {Kind: Text, Abs: math.Inf(1)}, {Kind: Float64, Rel: 1}, {Kind: Float32, Rel: -.1},
		{Kind: Exact, Abs: 1}, {Kind: Lines, Rel: .1}, {Kind: Wasm}, {Kind: Wasm, Run: run}, {Kind: Wasm, Gas: 1}, {Kind: Exact, Run: run}, {Kind: Text, Gas: 1},
	} {
		if v, err := c.Compare([]byte("a"), []byte("a")); err == nil || v.Equal {
			t.Errorf("%+v: got %+v, %v", c, v, err)
		}
		if v, err := c.Judge([]byte("a"), []byte("b")); err == nil || v.Equal {
			t.Errorf("%+v: judged %+v, %v", c, v, err)
		}
	}
}

func TestComparator_BoundsWhatItTakes(t *testing.T) {
	long := make([]byte, MaxCompare+1)
	for _, c := range []struct {
		k Kind
		b []byte
	}{{Text, long}, {Float64, long}, {Lines, bytes.Repeat([]byte{'\n'}, MaxLines+1)}, {JSON, bytes.Repeat([]byte{' '}, MaxJSON+1)}} {
		for _, pair := range [][2][]byte{{c.b, []byte("1")}, {[]byte("1"), c.b}} {
			if v, err := (Comparator{Kind: c.k}).Compare(pair[0], pair[1]); !errors.Is(err, ErrTooLarge) || v.Equal {
				t.Errorf("%s of %d and %d bytes: got %+v, %v", c.k, len(pair[0]), len(pair[1]), v, err)
			}
		}
	}
	if v, err := (Comparator{Kind: Exact}).Compare(long, long); err != nil || !v.Equal {
		t.Errorf("exact: got %+v, %v", v, err)
	}
}

// An app's comparator that loops, traps or lies is its user's fault; a node's own trouble is not.
func TestComparator_AProgramIsNotBelieved(t *testing.T) {
	same := func(a, b []byte) bool { return bytes.EqualFold(a, b) }
	node := errors.New("the worker died")
	for _, c := range []struct {
		name  string
		run   func(a, b []byte) (bool, uint64, error)
		a, b  string
		equal bool
		fault bool
		node  bool
	}{
		{"honest, equal", func(a, b []byte) (bool, uint64, error) { return same(a, b), 10, nil }, "a", "A", true, false, false},
		{"honest, different", func(a, b []byte) (bool, uint64, error) { return same(a, b), 10, nil }, "a", "b", false, false, false},
		{"says no to all", func(a, b []byte) (bool, uint64, error) { return false, 10, nil }, "a", "b", false, true, false},
		{"no to the second", func(a, b []byte) (bool, uint64, error) { return a[0] == 'a', 10, nil }, "a", "b", false, true, false},
		{"does not know the second from itself", func(a, b []byte) (bool, uint64, error) { return string(a)+string(b) != "bb", 10, nil }, "a", "b", false, true, false},
		{"order matters", func(a, b []byte) (bool, uint64, error) { return a[0] <= b[0], 10, nil }, "a", "b", false, true, false},
		{"order matters, other way", func(a, b []byte) (bool, uint64, error) { return a[0] >= b[0], 10, nil }, "a", "b", false, true, false},
		{"loops", func(a, b []byte) (bool, uint64, error) { return true, 101, nil }, "a", "b", false, true, false},
		{"loops, stopped", func(a, b []byte) (bool, uint64, error) { return false, 100, ErrComparator }, "a", "b", false, true, false},
		{"the node's trouble", func(a, b []byte) (bool, uint64, error) { return true, 1, node }, "a", "b", false, false, true},
		{"writes into what it reads", func(a, b []byte) (bool, uint64, error) {
			equal := same(a, b)
			a[0], b[0] = 'x', 'x'
			return equal, 1, nil
		}, "a", "b", false, false, false},
	} {
		v, err := Comparator{Kind: Wasm, Run: c.run, Gas: 100}.Compare([]byte(c.a), []byte(c.b))
		var f *ComparatorFault
		if errors.As(err, &f) != c.fault || errors.Is(err, node) != c.node || v.Equal != c.equal || (err == nil) == (c.fault || c.node) {
			t.Errorf("%s: got %+v, %v", c.name, v, err)
		}
		if err == nil && v.Gas == 0 {
			t.Errorf("%s: no gas", c.name)
		}
	}
	endless := func(a, b []byte) (bool, uint64, error) { return true, 1 << 63, nil }
	if v, err := (Comparator{Kind: Wasm, Run: endless, Gas: math.MaxUint64}).Compare([]byte("a"), []byte("b")); err != nil || v.Gas != math.MaxUint64 {
		t.Errorf("more gas than can be counted: got %+v, %v", v, err)
	}
	n := 0
	for mind := 1; mind < 4; mind++ { // it changes after so many answers
		n = 0
		moody := func(a, b []byte) (bool, uint64, error) { n++; return n <= mind, 1, nil } // equal bytes, yet not the same
		if _, err := (Comparator{Kind: Wasm, Run: moody, Gas: 9}).Compare([]byte("a"), []byte("a")); err == nil {
			t.Errorf("a comparator that changes its mind after %d answers was believed", mind)
		}
	}
}

func TestDetect(t *testing.T) {
	for _, c := range []struct {
		name string
		runs []string
		how  Difference
		kind Kind
	}{
		{"equal", []string{"a 1", "a 1", "a 1"}, NoDifference, Exact},
		{"order", []string{"a\nb\n", "b\na\n"}, InOrder, Lines},
		{"keys", []string{`{"a":1,"b":2}`, `{"b":2,"a":1}`}, InOrder, JSON},
		{"numbers", []string{"x 1.00001 5", "x 1.00002 5", "x 1.00003 5"}, InNumbers, Text},
		{"around zero", []string{"x 1e-17", "x -1e-17"}, InNumbers, Text},
		{"doubles", []string{string(floats64(1, 2e9)), string(floats64(1.0000001, 2e9))}, InNumbers, Float64},
		{"floats", []string{string(floats32(1, 2, 3)), string(floats32(1, 2, 3.0001))}, InNumbers, Float32},
		{"words", []string{"seed 1 abc", "seed 1 abd"}, InAll, ""},
		{"only the third", []string{"a", "a", "b"}, InAll, ""},
		{"words of eight", []string{"abcdefgh", "abcdefgz"}, InAll, ""},
		{"lengths", []string{"1 2", "1 2 3"}, InAll, ""},
		{"NaN for a number", []string{"1", "nan"}, InAll, ""},
	} {
		var runs [][]byte
		for _, r := range c.runs {
			runs = append(runs, []byte(r))
		}
		d, err := Detect(runs...)
		if err != nil || d.How != c.how || d.Suggest.Kind != c.kind || (d.Where == "") != (c.how == NoDifference) {
			t.Errorf("%s: got %+v, %v want %v by %q", c.name, d, err, c.how, c.kind)
		}
		if d.How == InAll {
			continue
		}
		for _, r := range runs[1:] {
			if v, err := d.Suggest.Compare(runs[0], r); err != nil || !v.Equal {
				t.Errorf("%s: what is suggested, %+v, says %+v, %v", c.name, d.Suggest, v, err)
			}
		}
		if wantClass := map[bool]Class{true: Strict, false: Tolerant}[d.How == NoDifference]; d.Class != wantClass {
			t.Errorf("%s: got class %d want %d", c.name, d.Class, wantClass)
		}
	}
	for want, runs := range map[string][2]string{
		"agree to 8 digits; if that will do, declare --compare numeric:rel=1e-8": {"pi 3.14159265358979", "pi 3.14159265673140"},
		"agree to 5 digits; if that will do, declare --compare numeric:rel=1e-4": {"1.00001", "1.00002"},
		"apart; if that will do, declare --compare numeric:abs=1e-12":            {"x 1e-17", "x -1e-17"},
		"declare --compare lines": {"a\nb\n", "b\na\n"},
		"declare --compare json":  {`{"a":1,"b":2}`, `{"b":2,"a":1}`},
		"":                        {"a", "b"},
	} {
		d, err := Detect([]byte(runs[0]), []byte(runs[1]))
		if got := d.Advice(); err != nil || !strings.HasSuffix(got, want) || (got == "") != (want == "") {
			t.Errorf("%q: got %q, %v want %q", runs, got, err, want)
		}
		if _, text, ok := strings.Cut(d.Advice(), "--compare "); ok {
			c, err := crowd.ParseCompare(text)
			if err != nil {
				t.Fatal(err)
			}
			if v, err := ComparatorOf(c, nil).Judge([]byte(runs[0]), []byte(runs[1])); err != nil || !v.Equal {
				t.Errorf("%q: what is advised, %s, says %+v, %v", runs, text, v, err)
			}
		}
	}
	if _, err := Detect([]byte("a")); err == nil {
		t.Error("one run was compared with itself")
	}
}

// FuzzCompare: no bytes make a comparator panic, each output is the same as
// itself, and the order of two does not matter.
func FuzzCompare(f *testing.F) {
	for _, s := range [][2]string{{"1.0 nan", "1.1,x"}, {"a\nb", "b\na\n"}, {`{"a":[1e5,null]}`, `{"a":[100000,null]}`}, {`"\ud800"`, "[[[["}, {string(floats64(1, math.NaN())), string(floats64(2, 5e-324))}} {
		f.Add([]byte(s[0]), []byte(s[1]), 1e-3, 1e-9)
	}
	f.Fuzz(func(t *testing.T, a, b []byte, rel, abs float64) {
		for _, c := range []Comparator{{Kind: Exact}, {Kind: Lines}, {Kind: JSON}, {Kind: Text, Rel: rel, Abs: abs}, {Kind: Float64, Rel: rel, Abs: abs}, {Kind: Float32, Rel: rel, Abs: abs}} {
			if c.Validate() != nil {
				continue
			}
			x, err := c.Compare(a, b)
			y, err2 := c.Compare(b, a)
			if x.Equal != y.Equal || x.Exact != y.Exact || (err == nil) != (err2 == nil) {
				t.Errorf("%+v: got %+v, %v and, with places changed, %+v, %v", c, x, err, y, err2)
			}
			if x.Exact != bytes.Equal(a, b) || x.Exact && !x.Equal {
				t.Errorf("%+v: got %+v", c, x)
			}
		}
		// What stands behind the short cut for equal bytes is reflexive too.
		for _, o := range [][]byte{a, b} {
			c := Comparator{Abs: 0}
			if w := c.text(o, o, nil) + c.array(o, o, 8, nil) + c.array(o, o, 4, nil); w != "" {
				t.Errorf("%q differs from itself: %s", o, w)
			}
			if w, err := compareLines(o, o); w != "" || err != nil {
				t.Errorf("lines of %q: %s, %v", o, w, err)
			}
		}
	})
}

// FuzzDetect: what is suggested agrees with the runs that it was seen on.
func FuzzDetect(f *testing.F) {
	f.Add([]byte("a 1"), []byte("a 2"), []byte("a 3"))
	f.Add(floats64(1, 2), floats64(1, 2.0001), floats64(1, 2))
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		d, err := Detect(a, b, c)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range [][]byte{b, c} {
			if v, err := d.Suggest.Compare(a, o); d.How != InAll && (err != nil || !v.Equal) {
				t.Errorf("%+v: got %+v, %v", d, v, err)
			}
		}
	})
}

// FuzzDecimal: the one form of a number is its own one form.
func FuzzDecimal(f *testing.F) {
	for _, s := range []string{"0", "-0.0", "1e5", "120.50E-3", "1e99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		x, err := canonicalJSON([]byte(s))
		if err != nil || len(s) == 0 || s[0] == '"' || strings.ContainsAny(s, "[{tfn") {
			return
		}
		y, err := canonicalJSON(bytes.TrimRight(x, " "))
		if err != nil || !bytes.Equal(x, y) {
			t.Errorf("%q: got %q, and of that %q, %v", s, x, y, err)
		}
	})
}

func BenchmarkCompare_Text1MiB(b *testing.B) {
	x := bytes.Repeat([]byte("12.5 13.25 "), 1<<20/11)
	y := bytes.Repeat([]byte("12.50 13.250 "), 1<<20/11)
	c := Comparator{Kind: Text, Rel: 1e-9}
	b.SetBytes(int64(len(x)))
	b.ReportAllocs()
	for b.Loop() {
		if v, err := c.Compare(x, y); err != nil || !v.Equal {
			b.Fatal(v, err)
		}
	}
}
