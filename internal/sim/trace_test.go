package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
)

func TestReplay_CatchesTheOrderOfAMap(t *testing.T) {
	m := map[int]bool{}
	inOrder(func(i int) { m[i] = true })
	for range 20 { // now and then a map of 64 comes in the same order twice
		err := Replay(func(t *Trace) {
			gossip(1, t, func(yield func(int)) {
				for i := range m { // planted: what a core must never do
					yield(i)
				}
			})
		})
		if p := new(Parting); errors.As(err, &p) {
			return
		}
	}
	t.Fatal("a history that depends on the order of a map passed")
}

// long writes n lines; odd, if it is one of them, reads otherwise.
func long(t *Trace, n, odd int64) {
	for i := range n {
		what := "same"
		if i == odd {
			what = "other"
		}
		t.Logf(Time(i)*7, "%s %d", what, i)
	}
}

func TestReplay_NamesTheLineInATraceThatNobodyKeeps(t *testing.T) {
	const n = 300_000 // 8 MB
	for _, odd := range []int64{0, 1, n / 2, n - 1} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		times := int64(0)
		var most uint64
		err := Replay(func(t *Trace) {
			times++
			if times == 1 {
				long(t, n, -1)
			} else {
				long(t, n, odd)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			most = max(most, after.HeapAlloc)
		})
		var p *Parting
		if !errors.As(err, &p) {
			t.Fatalf("got %v, want a parting at line %d", err, odd+1)
		}
		at := func(i int64, what string) string { return fmt.Sprintf("%5d.%09d %s %d", 0, i*7, what, i) }
		want := Parting{Line: odd + 1, First: at(odd, "same"), Second: at(odd, "other")}
		if odd > 0 {
			want.Before = at(odd-1, "same")
		}
		if *p != want {
			t.Errorf("got %+v, want %+v", *p, want)
		}
		if grown := int64(most) - int64(before.HeapAlloc); grown > 4<<20 {
			t.Errorf("a trace of 8 MB took %d bytes to compare", grown)
		}
	}
	if err := Replay(func(t *Trace) { long(t, n, -1) }); err != nil {
		t.Errorf("one history: got %v", err)
	}
}

func TestReplay_NoticesAHistoryThatEndsEarlier(t *testing.T) {
	n := int64(5)
	err := Replay(func(t *Trace) { n--; long(t, n, -1) })
	var p *Parting
	if !errors.As(err, &p) || p.Line != 4 || p.FirstEnded || !p.SecondEnded {
		t.Errorf("got %v, want the second history to miss line 4", err)
	}
}

func TestTrace_HashIsThatOfTheFile(t *testing.T) {
	var file bytes.Buffer
	a, b := NewTrace(&file), NewTrace(nil)
	long(a, 10_000, 3)
	long(b, 10_000, 3)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	want := crowd.Keccak256(file.Bytes())
	if a.Hash() != want || b.Hash() != want {
		t.Errorf("got %s and %s, want %s", a.Hash(), b.Hash(), want)
	}
	if a.Lines() != 10_000 {
		t.Errorf("got %d lines", a.Lines())
	}
	c := NewTrace(nil)
	c.Add(Time(90*time.Minute)+5, []byte("joins"))
	d := NewTrace(nil)
	d.Logf(Time(90*time.Minute)+5, "%s", "joins")
	if c.Hash() != d.Hash() || c.Hash() != crowd.Keccak256([]byte(" 5400.000000005 joins\n")) {
		t.Error("Add and Logf write different lines")
	}
	if a.Hash() == c.Hash() {
		t.Error("got one hash for two traces")
	}
}

type brokenDisk struct{ room int }

func (d *brokenDisk) Write(p []byte) (int, error) {
	if d.room -= len(p); d.room < 0 {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}

func TestTrace_SaysThatAFileIsNotWhole(t *testing.T) {
	for _, room := range []int{0, 100_000} {
		tr := NewTrace(&brokenDisk{room: room})
		long(tr, 100_000, -1)
		if err := tr.Close(); err == nil {
			t.Errorf("room for %d bytes: got no error", room)
		}
	}
}

func TestCompare_Files(t *testing.T) {
	for _, tt := range []struct {
		name, a, b string
		parting    *Parting
		fails      bool
	}{
		{name: "both empty"},
		{name: "same", a: "1 x\n2 y\n", b: "1 x\n2 y\n"},
		{name: "other time", a: "1 x\n2 y\n", b: "1 x\n3 y\n", parting: &Parting{Line: 2, First: "2 y", Second: "3 y", Before: "1 x"}},
		{name: "first ends", a: "1 x\n", b: "1 x\n3 y\n", parting: &Parting{Line: 2, Second: "3 y", FirstEnded: true, Before: "1 x"}},
		{name: "second ends", a: "1 x\n", b: "", parting: &Parting{Line: 1, First: "1 x", SecondEnded: true}},
		{name: "empty line is a line", a: "\n", b: "", parting: &Parting{Line: 1, SecondEnded: true}},
		{name: "broken off", a: "1 x\n2", b: "1 x\n2", fails: true},
		{name: "endless line", a: strings.Repeat("x", maxLine+1) + "\n", b: "1 x\n", fails: true},
	} {
		err := Compare(strings.NewReader(tt.a), strings.NewReader(tt.b))
		var p *Parting
		switch {
		case tt.fails:
			if err == nil || errors.As(err, &p) {
				t.Errorf("%s: got %v, want an error of reading", tt.name, err)
			}
		case tt.parting == nil:
			if err != nil {
				t.Errorf("%s: got %v", tt.name, err)
			}
		case !errors.As(err, &p) || *p != *tt.parting:
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.parting)
		}
	}
}

// What is found the same is the same, and a trace is the same as itself.
func FuzzCompare(f *testing.F) {
	for _, s := range []string{"", "\n", "1 x\n2 y\n", "1 x\n2"} {
		f.Add([]byte(s), []byte("1 x\n2 y\n"))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		err := Compare(bytes.NewReader(a), bytes.NewReader(b))
		if err == nil && !bytes.Equal(a, b) {
			t.Errorf("%q and %q are said to be the same", a, b)
		}
		p := new(Parting)
		if errors.As(err, &p) && (bytes.Equal(a, b) || p.Error() == "") {
			t.Errorf("%q differs from itself", a)
		}
	})
}

func BenchmarkTrace_Add(b *testing.B) {
	b.ReportAllocs()
	t := NewTrace(io.Discard)
	line := []byte("node 123456 asks 654321 for abcdef0123456789")
	for b.Loop() {
		t.Add(Time(b.N)*1_000_000, line)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}
