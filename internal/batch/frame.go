package batch

import (
	"encoding/binary"
	"fmt"
	"io"
)

// A frame file holds many byte strings so that each can be read by itself: their
// number (uint32), the offset of each and of the end in what follows (uint64), all big-endian, then the strings.

// FrameSize is what one string costs besides its own bytes.
const FrameSize = 8

// header is the length of the part before the strings, in bytes.
func header(n uint32) int64 { return 4 + 8*(int64(n)+1) }

// WriteFrames writes n strings, the i-th by write(i), whose length is size(i).
func WriteFrames(w io.Writer, n uint32, size func(i uint32) uint64, write func(i uint32, w io.Writer) error) error {
	head := make([]byte, 0, header(n))
	head = binary.BigEndian.AppendUint32(head, n)
	at := uint64(0)
	for i := range n {
		head = binary.BigEndian.AppendUint64(head, at)
		at += size(i)
	}
	if _, err := w.Write(binary.BigEndian.AppendUint64(head, at)); err != nil {
		return err
	}
	for i := range n {
		c := &counter{w: w}
		if err := write(i, c); err != nil {
			return err
		}
		if c.n != size(i) {
			return fmt.Errorf("frame %d has %d bytes, said to have %d", i, c.n, size(i))
		}
	}
	return nil
}

type counter struct {
	w io.Writer
	n uint64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += uint64(n)
	return n, err
}

// Frames reads a frame file.
type Frames struct {
	r       io.ReaderAt
	offsets []uint64 // in the file
}

// OpenFrames checks the whole header of a file of size bytes: afterwards each string lies
// inside the file, and all of it belongs to one. n is the number that the caller expects.
func OpenFrames(r io.ReaderAt, size int64, n uint32) (*Frames, error) {
	if n == 0 || n > MaxItems {
		return nil, fmt.Errorf("frame file: %d strings, want 1 to %d", n, MaxItems)
	}
	if size < header(n) {
		return nil, fmt.Errorf("frame file: %d bytes are too few for %d strings", size, n)
	}
	head := make([]byte, header(n))
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("frame file: %w", err)
	}
	if got := binary.BigEndian.Uint32(head); got != n {
		return nil, fmt.Errorf("frame file: holds %d strings, want %d", got, n)
	}
	f := &Frames{r: r, offsets: make([]uint64, n+1)}
	last, most := uint64(0), uint64(size-header(n))
	for i := range f.offsets {
		at := binary.BigEndian.Uint64(head[4+8*i:])
		if at < last || at > most || i == 0 && at != 0 {
			return nil, fmt.Errorf("frame file: string %d begins at %d of %d, after %d", i, at, most, last)
		}
		last = at
		f.offsets[i] = at + uint64(header(n))
	}
	if last != most {
		return nil, fmt.Errorf("frame file: ends at %d of %d", last, most)
	}
	return f, nil
}

// Len is the number of strings.
func (f *Frames) Len() uint32 { return uint32(len(f.offsets) - 1) }

// Size is the length of string i, in bytes.
func (f *Frames) Size(i uint32) uint64 { return f.offsets[i+1] - f.offsets[i] }

// Open reads string i.
func (f *Frames) Open(i uint32) *io.SectionReader {
	return io.NewSectionReader(f.r, int64(f.offsets[i]), int64(f.Size(i)))
}

// Read is string i. Memory grows by its length: look at Size before.
func (f *Frames) Read(i uint32) ([]byte, error) {
	b := make([]byte, f.Size(i))
	if _, err := io.ReadFull(f.Open(i), b); err != nil {
		return nil, fmt.Errorf("frame %d: %w", i, err)
	}
	return b, nil
}
