package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// This file cuts the inputs of crowd map into items. Only where each begins and ends is
// kept, in a file, so that neither the inputs nor their number fill the memory.

// lineGroup is how large items are that are groups of whole lines, in bytes.
const lineGroup = 16 << 10

// maxItem bounds an item, in bytes: a rule of the network.
const maxItem = executor.MaxItemStdin

// cut is a way of cutting a file into items, as --by names it.
type cut struct {
	by  string // files, lines, bytes, records
	n   uint64 // lines or bytes of an item; 0: groups of lines up to lineGroup
	sep []byte // of records
}

func parseCut(s string) (cut, error) {
	by, arg, given := strings.Cut(s, "=")
	c := cut{by: by}
	var err error
	switch {
	case by == "files" && !given, by == "lines" && !given:
		return c, nil
	case by == "lines":
		if c.n, err = strconv.ParseUint(arg, 10, 32); err != nil || c.n == 0 {
			return c, fmt.Errorf("--by lines=%s: want how many lines make an item", arg)
		}
		return c, nil
	case by == "bytes" && given:
		if c.n, err = parseUnits("--by bytes", arg, sizeUnits); err != nil {
			return c, err
		}
		if c.n == 0 || c.n > maxItem {
			return c, fmt.Errorf("--by bytes=%s: an item has 1 to %d bytes", arg, maxItem)
		}
		return c, nil
	case by == "records" && given:
		sep, err := strconv.Unquote(`"` + strings.ReplaceAll(arg, `"`, `\"`) + `"`)
		if err != nil || sep == "" || len(sep) > 1024 {
			return c, fmt.Errorf(`--by records=%s: want what separates two records, as \n\n or ;`, arg)
		}
		c.sep = []byte(sep)
		return c, nil
	}
	return c, fmt.Errorf("--by %s: unknown; known: files, lines, lines=N, bytes=N, records=SEPARATOR", s)
}

// item is one item: a piece of a file.
type item struct {
	File        uint32 // index among the inputs
	Size        uint32
	Offset      uint64
	First, Last uint64 // lines, pieces or records of the file that it has, from 1
}

const itemSize = 32 // bytes of an item in the index

func (i item) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, i.File)
	b = binary.BigEndian.AppendUint32(b, i.Size)
	b = binary.BigEndian.AppendUint64(b, i.Offset)
	b = binary.BigEndian.AppendUint64(b, i.First)
	return binary.BigEndian.AppendUint64(b, i.Last)
}

func decodeItem(b []byte) item {
	return item{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:]), binary.BigEndian.Uint64(b[24:])}
}

// input is a file that is cut. Its content must not change until the work is posted.
type input struct {
	Path    string    `json:"path"`
	Size    int64     `json:"size"`
	ModTime time.Time `json:"modTime"`
	Hash    []byte    `json:"hash"` // SHA-256 of the content
}

// changed is an error if the open file is not what was cut. One that was only touched, or copied back, is the same.
func (in *input) changed(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("input: %w", err)
	}
	if st.Size() == in.Size && st.ModTime().Equal(in.ModTime) {
		return nil
	}
	what := fmt.Sprintf("it has %d bytes and had %d", st.Size(), in.Size)
	if st.Size() == in.Size {
		hash, err := hashFile(f)
		if err != nil {
			return fmt.Errorf("input: %w", err)
		}
		if bytes.Equal(hash, in.Hash) {
			return nil
		}
		what = "it holds other bytes"
	}
	return &rpc.Error{Kind: rpc.Conflict, Err: fmt.Errorf("%s has changed since it was cut into items: %s",
		in.Path, what),
		Hint: "put back what it held, or begin anew with another --state or without the folder of this map"}
}

// hashFile is the SHA-256 of all that f holds, wherever f stands.
func hashFile(f *os.File) ([]byte, error) {
	h := sha256.New()
	_, err := io.Copy(h, io.NewSectionReader(f, 0, math.MaxInt64))
	return h.Sum(nil), err
}

// name of an item for people.
func (c cut) name(files []input, i item) string {
	path := files[i.File].Path
	switch {
	case c.by == "files":
		return path
	case i.First == i.Last:
		return fmt.Sprintf("%s:%d", path, i.First)
	}
	return fmt.Sprintf("%s:%d-%d", path, i.First, i.Last)
}

// findInputs expands patterns, each sorted by name. stdin goes to spool.
func findInputs(patterns []string, stdin io.Reader, spool string) ([]input, error) {
	var out []input
	for _, p := range patterns {
		names := []string{p}
		if p == "-" {
			if err := spoolTo(spool, stdin); err != nil {
				return nil, fmt.Errorf("read stdin: %w", err)
			}
			names[0] = spool
		} else if _, err := os.Lstat(p); err != nil && strings.ContainsAny(p, `*?[`) {
			found, err := filepath.Glob(p)
			if err != nil {
				return nil, misuse("a pattern is as 'texts/*.txt'", "map: %s: %v", p, err)
			}
			if len(found) == 0 {
				return nil, fmt.Errorf("no file matches %s", p)
			}
			slices.Sort(found)
			names = found
		}
		for _, name := range names {
			st, err := os.Stat(name)
			switch {
			case err != nil:
				return nil, fmt.Errorf("input: %w", err)
			case st.IsDir() && len(names) > 1:
				continue // a pattern finds folders too
			case st.IsDir():
				return nil, misuse("name files: "+filepath.Join(name, "*"), "map: %s is no file", name)
			}
			if err := wantFile(name, st); err != nil {
				return nil, err
			}
			out = append(out, input{Path: name, Size: st.Size(), ModTime: st.ModTime()})
		}
	}
	if len(out) == 0 {
		return nil, errors.New("there are no input files")
	}
	return out, nil
}

func spoolTo(path string, r io.Reader) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// indexed says what a cut came to.
type indexed struct {
	Items   uint64 `json:"items"`
	Bytes   uint64 `json:"bytes"`
	Largest uint32 `json:"largest"` // item, bytes
}

// index cuts all files and writes the items to path.
func (c cut) index(files []input, path string) (all indexed, err error) {
	f, err := os.Create(path)
	if err != nil {
		return all, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<16)
	buf := make([]byte, 0, itemSize)
	for k := range files {
		err := c.file(&files[k], func(i item) error {
			i.File = uint32(k)
			if i.Size > maxItem {
				return tooLarge(c.name(files, i), &files[k])
			}
			all.Items++
			all.Bytes += uint64(i.Size)
			all.Largest = max(all.Largest, i.Size)
			_, err := w.Write(i.append(buf))
			return err
		})
		if err != nil {
			if errors.As(err, new(*rpc.Error)) { // it names the file
				return all, err
			}
			return all, fmt.Errorf("cut %s: %w", files[k].Path, err)
		}
		if files[k].Hash, err = hashPath(files[k].Path); err != nil {
			return all, err
		}
	}
	if all.Items == 0 {
		return all, errors.New("the inputs hold nothing to work on")
	}
	return all, w.Flush()
}

// tooLarge refuses an item. Only of one that is a whole file the size is known.
func tooLarge(name string, in *input) error {
	most := fmt.Sprintf("%d bytes (%s)", maxItem, sizeText(maxItem))
	if name != in.Path {
		return rpc.Errorf(rpc.TooLarge, "%s has more than %s, the most of an item of a batch: nodes hold many in "+
			"memory", name, most).
			WithHint("cut it smaller: --by lines=N, --by bytes=N, or --by records=SEPARATOR")
	}
	return rpc.Errorf(rpc.TooLarge, "%s has %d bytes (%s); an item of a batch has at most %s: nodes hold many in "+
		"memory", name, in.Size, sizeText(in.Size), most).
		WithHint("if the program can work on pieces, cut it with --by lines, bytes=N or records=SEPARATOR; "+
			"else give each large file to a job of its own: crowd run PROG.wasm --in %s", name)
}

func hashPath(path string) ([]byte, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return hashFile(f)
}

func (c cut) file(in *input, emit func(item) error) error {
	size := uint64(in.Size)
	switch c.by {
	case "files":
		return emit(item{Size: uint32(min(size, maxItem+1)), First: 1, Last: 1})
	case "bytes":
		for at, n := uint64(0), uint64(1); at < size; at, n = at+c.n, n+1 {
			if err := emit(item{Offset: at, Size: uint32(min(c.n, size-at)), First: n, Last: n}); err != nil {
				return err
			}
		}
		return nil
	}
	f, err := os.Open(in.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	sep := c.sep
	if c.by == "lines" {
		sep = []byte("\n")
	}
	pieces := bufio.NewScanner(f)
	pieces.Buffer(make([]byte, 64<<10), maxItem+len(sep)+1)
	pieces.Split(func(data []byte, end bool) (int, []byte, error) {
		if i := bytes.Index(data, sep); i >= 0 {
			return i + len(sep), data[:i+len(sep)], nil
		}
		if end && len(data) > 0 {
			return len(data), data, nil
		}
		return 0, nil, nil
	})
	var group item
	at, n := uint64(0), uint64(0)
	flush := func() error {
		if group.First == 0 {
			return nil
		}
		err := emit(group)
		group = item{}
		return err
	}
	for pieces.Scan() {
		n++
		size := uint64(len(pieces.Bytes()))
		whole := size
		if c.by == "records" {
			whole = uint64(len(bytes.TrimSuffix(pieces.Bytes(), sep)))
		}
		full := c.by == "records" || c.n > 0 && n-group.First >= c.n || c.n == 0 && uint64(group.Size)+size > lineGroup
		if full {
			if err := flush(); err != nil {
				return err
			}
		}
		if group.First == 0 {
			group = item{Offset: at, First: n}
		}
		if uint64(group.Size)+whole > maxItem {
			group.Last = n
			return tooLarge(c.name([]input{*in}, group), in)
		}
		group.Size, group.Last = group.Size+uint32(whole), n
		at += size
	}
	if err := pieces.Err(); errors.Is(err, bufio.ErrTooLong) {
		return rpc.Errorf(rpc.TooLarge, "%s:%d has more than %d bytes (%s), the most of an item of a batch",
			in.Path, n+1, maxItem, sizeText(maxItem)).
			WithHint("cut it smaller: --by bytes=N, or --by records=SEPARATOR with another one")
	} else if err != nil {
		return err
	}
	if at != size {
		return fmt.Errorf("has %d bytes, and had %d a moment ago", at, size)
	}
	return flush()
}

// readItems reads the items [first, first+n) of an index.
func readItems(path string, first, n uint64) ([]item, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw := make([]byte, n*itemSize)
	if _, err := f.ReadAt(raw, int64(first*itemSize)); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	out := make([]item, n)
	for i := range out {
		out[i] = decodeItem(raw[i*itemSize:])
	}
	return out, nil
}

// frames writes items as a frame file, reading them where they lie.
func frames(w io.Writer, files []input, items []item) error {
	var open *os.File
	at := -1
	defer func() {
		if open != nil {
			open.Close()
		}
	}()
	return batch.WriteFrames(w, uint32(len(items)), func(i uint32) uint64 { return uint64(items[i].Size) }, func(i uint32, w io.Writer) error {
		it := items[i]
		if at != int(it.File) {
			if open != nil {
				open.Close()
			}
			in := &files[it.File]
			var err error
			if open, err = openFile(in.Path); err != nil {
				return err
			}
			if err := in.changed(open); err != nil {
				return err
			}
			at = int(it.File)
		}
		_, err := io.Copy(w, io.NewSectionReader(open, int64(it.Offset), int64(it.Size)))
		return err
	})
}
