package sim

import (
	"bufio"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"

	"golang.org/x/crypto/sha3"

	"github.com/crowdcompute/crowd"
)

// Trace is what happened, a line for each thing that is worth one: the time since
// Epoch in seconds, a space, the text. It is written out and hashed as it grows,
// so it costs the same memory however long it gets.
type Trace struct {
	to    *bufio.Writer // nil: nobody reads it. It keeps its first error until Close
	sum   hash.Hash
	line  []byte
	lines int64
}

// NewTrace is an empty trace that is written to w; nil: only hashed.
func NewTrace(w io.Writer) *Trace {
	t := &Trace{sum: sha3.NewLegacyKeccak256()}
	if w != nil {
		t.to = bufio.NewWriterSize(w, 64<<10)
	}
	return t
}

// Logf adds a line.
func (t *Trace) Logf(at Time, format string, a ...any) {
	t.begin(at)
	t.line = fmt.Appendf(t.line, format, a...)
	t.end()
}

// Add adds a line without formatting: for worlds with millions of them. text is copied.
func (t *Trace) Add(at Time, text []byte) {
	t.begin(at)
	t.line = append(t.line, text...)
	t.end()
}

// begin writes at with all its nanoseconds: what is put out of order by one of them is seen.
func (t *Trace) begin(at Time) {
	t.line = fmt.Appendf(t.line[:0], "%5d.%09d ", at/1e9, at%1e9)
}

func (t *Trace) end() {
	t.line = append(t.line, '\n')
	t.lines++
	t.sum.Write(t.line)
	if t.to != nil {
		t.to.Write(t.line)
	}
}

// Lines is how many there are.
func (t *Trace) Lines() int64 { return t.lines }

// Hash is the Keccak-256 of all lines so far: that of the file they are written to.
func (t *Trace) Hash() crowd.Hash { return crowd.Hash(t.sum.Sum(nil)) }

// Close writes out what is still held back, and says whether all of the trace
// arrived. It does not close the writer below.
func (t *Trace) Close() error {
	if t.to == nil {
		return nil
	}
	if err := t.to.Flush(); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return nil
}

// Parting is where two traces stop being the same.
type Parting struct {
	Line          int64  // from 1
	First, Second string // whole lines, with their times
	FirstEnded    bool   // the first trace has no such line
	SecondEnded   bool
	Before        string // the last line that both have; empty if there is none
}

func (p *Parting) Error() string {
	side := func(s string, ended bool) string {
		if ended {
			return "missing"
		}
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("line %d is %s the first time and %s the second, after %q",
		p.Line, side(p.First, p.FirstEnded), side(p.Second, p.SecondEnded), p.Before)
}

// maxLine bounds what Compare holds of each trace: they may come from files, and a file may hold anything.
const maxLine = 1 << 20

// Compare reads two traces side by side: nil if they are the same, a *Parting
// with their first difference, or another error if one cannot be read.
func Compare(a, b io.Reader) error {
	ra, rb := bufio.NewReaderSize(a, maxLine), bufio.NewReaderSize(b, maxLine)
	var last []byte
	for n := int64(1); ; n++ {
		la, endA, err := readLine(ra)
		if err != nil {
			return fmt.Errorf("first trace, line %d: %w", n, err)
		}
		lb, endB, err := readLine(rb)
		if err != nil {
			return fmt.Errorf("second trace, line %d: %w", n, err)
		}
		switch {
		case endA && endB:
			return nil
		case endA || endB || string(la) != string(lb):
			return &Parting{Line: n, First: string(la), Second: string(lb), FirstEnded: endA, SecondEnded: endB, Before: string(last)}
		}
		last = append(last[:0], la...)
	}
}

// readLine is the next line without its end; it is r's until the next call.
func readLine(r *bufio.Reader) (line []byte, end bool, err error) {
	line, err = r.ReadSlice('\n')
	switch {
	case err == nil:
		return line[:len(line)-1], false, nil
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, false, fmt.Errorf("a line is longer than %d bytes", maxLine)
	case errors.Is(err, io.EOF) && len(line) == 0:
		return nil, true, nil
	case errors.Is(err, io.EOF):
		return nil, false, errors.New("it breaks off within a line")
	}
	return nil, false, err
}

// Replay plays a history twice and says where the traces part: the sign that
// something outside the seed, such as the order of a map, leaked into it. The two
// histories are played side by side, a piece of the one and a piece of the other,
// so that no trace is kept, and so that both sides of a difference are at hand: to
// play again would be a third history. It takes the memory of two worlds. Once the
// traces have parted, both histories run to their end unheard.
func Replay(play func(t *Trace)) error {
	a, stopA := iter.Pull(pieces(play))
	defer stopA()
	b, stopB := iter.Pull(pieces(play))
	defer stopB()
	return Compare(&pulled{next: a}, &pulled{next: b})
}

// pieces is the trace of one history as it comes.
func pieces(play func(t *Trace)) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		t := NewTrace(yielding(yield))
		play(t)
		t.Close() // fails only when nobody listens any longer
	}
}

// yielding is a writer to whom reads the sequence.
type yielding func([]byte) bool

func (y yielding) Write(p []byte) (int, error) {
	if !y(p) {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

// pulled reads a sequence; each piece is used up before the next is asked for.
type pulled struct {
	next func() ([]byte, bool)
	rest []byte
}

func (r *pulled) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		piece, ok := r.next()
		if !ok {
			return 0, io.EOF
		}
		r.rest = piece
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
