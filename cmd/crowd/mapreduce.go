package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"

	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// partitionBytes is how much a partition should hold: half of what an item may, since a hash does not share evenly.
const partitionBytes = maxItem / 2

// maxPartitions bounds the files that are open at a time.
const maxPartitions = 512

// shuffle sorts the lines "key<tab>value" of all map outputs into partitions, the items of the reduce phase.
// All lines of a key are in one partition, one after another.
func (m *mapping) shuffle() error {
	s := &m.d.state
	failed, total := uint64(0), uint64(0)
	for k, sh := range s.Map.Shards {
		failed += uint64(sh.BadItems)
		st, err := os.Stat(m.d.shardDir(s.Map, k) + "/stdout")
		if err != nil {
			return err
		}
		total += uint64(st.Size())
	}
	if failed > 0 && !s.Allow {
		return &rpc.Error{Kind: rpc.UserError, Err: fmt.Errorf("%d of %d items failed, so that there is not all to reduce", failed, s.Map.Index.Items),
			Hint: "correct the program or its input and begin anew, with --allow-failed if the others will do"}
	}
	n := max(s.Parts, (total+partitionBytes-1)/partitionBytes, 1)
	if n > maxPartitions {
		return fmt.Errorf("%s of map outputs need %d partitions of at most %s; at most %d are built: let the map program add up what it can", sizeText(int64(total)), n, sizeText(maxItem), maxPartitions)
	}
	files := make([]*os.File, n)
	writers := make([]*bufio.Writer, n)
	defer func() {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	}()
	for i := range files {
		var err error
		if files[i], err = os.Create(m.d.path("reduce", fmt.Sprintf("partition-%05d", i))); err != nil {
			return err
		}
		writers[i] = bufio.NewWriter(files[i])
	}
	for k, sh := range s.Map.Shards {
		err := m.each(s.Map, k, func(i uint32, l batch.Leaf, stdout, _ io.Reader) error {
			if l.UserError() {
				return nil
			}
			lines := bufio.NewScanner(stdout)
			lines.Buffer(nil, maxItem+1)
			lines.Split(wholeLines)
			for lines.Scan() {
				line := lines.Bytes()
				key, _, ok := bytes.Cut(line, []byte("\t"))
				if !ok {
					return fmt.Errorf("item %d wrote a line without a tab: %.60q; --reduce wants lines key<tab>value", sh.First+uint64(i), line)
				}
				h := fnv.New64a()
				h.Write(key)
				w := writers[h.Sum64()%n]
				w.Write(line)
				w.WriteByte('\n') // a bufio.Writer keeps its first error for Flush
			}
			return lines.Err()
		})
		if err != nil {
			return err
		}
	}
	var inputs []input
	for i, f := range files {
		if err := errors.Join(writers[i].Flush(), f.Close()); err != nil {
			return err
		}
		in, err := sortPartition(f.Name())
		if err != nil {
			return err
		}
		if in.Size > 0 {
			inputs = append(inputs, in)
		}
	}
	if len(inputs) == 0 {
		return errors.New("the map program wrote nothing to reduce")
	}
	s.Reduce.Files = inputs
	if err := m.d.begin(s.Reduce); err != nil {
		return err
	}
	return m.d.change(func(*mapState) {})
}

// wholeLines is bufio.ScanLines that takes no carriage return from a line's end: it is part of the value.
func wholeLines(data []byte, end bool) (int, []byte, error) {
	if line, _, ok := bytes.Cut(data, []byte("\n")); ok {
		return len(line) + 1, line, nil
	}
	if end && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// sortPartition sorts the lines of a file by the bytes of their keys; those of one key stay in order.
func sortPartition(path string) (input, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return input{}, err
	}
	if len(raw) > maxItem {
		return input{}, &rpc.Error{Kind: rpc.TooLarge, Err: fmt.Errorf("a partition has %s, at most %s: a key has too many lines", sizeText(int64(len(raw))), sizeText(maxItem)),
			Hint: "give more --partitions, or let the map program add up what it can"}
	}
	lines := bytes.SplitAfter(raw, []byte("\n"))
	slices.SortStableFunc(lines, func(a, b []byte) int {
		x, _, _ := bytes.Cut(a, []byte("\t"))
		y, _, _ := bytes.Cut(b, []byte("\t"))
		return bytes.Compare(x, y)
	})
	if err := writeSynced(path, bytes.Join(lines, nil)); err != nil {
		return input{}, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return input{}, err
	}
	return input{path, st.Size(), st.ModTime()}, nil
}
