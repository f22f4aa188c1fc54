package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/crowdcompute/crowd/internal/batch"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// partitionBytes is how much a partition should hold: half of what an item may, since a hash does not share evenly.
const partitionBytes = maxItem / 2

// maxPartitions bounds the files that are open at a time.
const maxPartitions = 512

// shuffle sorts the lines "key<tab>value" of all that a stage reads into partitions, its items. All lines of a key are
// in one partition, one after another.
func (m *mapping) shuffle(k int) task {
	s := &m.d.state
	to := *s.Stages[k]
	allow := s.Allow
	type source struct {
		st     stage
		pieces []piece
	}
	var from []source
	failed, items := uint64(0), uint64(0)
	for _, i := range s.Flow.Stages[k].From {
		src := source{*s.Stages[i], s.pieces(i)}
		for _, p := range src.pieces {
			failed += uint64(p.bad)
			items += p.items
		}
		from = append(from, src)
	}
	return func(context.Context) (news, error) {
		if failed > 0 && !allow {
			return news{}, &rpc.Error{Kind: rpc.UserError, Err: fmt.Errorf("%d of %d items failed, so that there is not all to reduce", failed, items),
				Hint: "correct the program or its input and begin anew, with --allow-failed if the others will do"}
		}
		total := uint64(0)
		for _, src := range from {
			for _, p := range src.pieces {
				st, err := os.Stat(filepath.Join(m.d.shardDir(&src.st, p.k), "stdout"))
				if err != nil {
					return news{}, err
				}
				total += uint64(st.Size())
			}
		}
		parts, err := m.partitions(&to, total)
		if err != nil {
			return news{}, err
		}
		defer parts.close()
		for _, src := range from {
			for _, p := range src.pieces {
				err := m.each(&src.st, p, func(i uint32, l batch.Leaf, stdout, _ io.Reader) error {
					if l.UserError() {
						return nil
					}
					return parts.take(stdout, p.first+uint64(i))
				})
				if err != nil {
					return news{}, err
				}
			}
		}
		if to.Files, err = parts.finish(); err != nil {
			return news{}, err
		}
		if len(to.Files) == 0 {
			return news{}, errors.New("the map program wrote nothing to reduce")
		}
		if err := m.d.begin(&to); err != nil {
			return news{}, err
		}
		m.show.begin(to.Name, to.Index.Items)
		return m.wasCut(k, &to), nil
	}
}

// partitions are files that lines are sorted into by their keys.
type partitions struct {
	files   []*os.File
	writers []*bufio.Writer
}

func (m *mapping) partitions(st *stage, total uint64) (*partitions, error) {
	n := max(st.Partitions, (total+partitionBytes-1)/partitionBytes, 1)
	if n > maxPartitions {
		return nil, fmt.Errorf("%s of map outputs need %d partitions of at most %s; at most %d are built: let the map program add up what it can", sizeText(int64(total)), n, sizeText(maxItem), maxPartitions)
	}
	p := &partitions{}
	for i := range n {
		f, err := os.Create(m.d.path(st.Name, fmt.Sprintf("partition-%05d", i)))
		if err != nil {
			p.close()
			return nil, err
		}
		p.files, p.writers = append(p.files, f), append(p.writers, bufio.NewWriter(f))
	}
	return p, nil
}

// take sorts the lines of an item in.
func (p *partitions) take(r io.Reader, item uint64) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxItem+1)
	for lines.Scan() {
		line := lines.Bytes()
		key, _, ok := bytes.Cut(line, []byte("\t"))
		if !ok {
			return fmt.Errorf("item %d wrote a line without a tab: %.60q; --reduce wants lines key<tab>value", item, line)
		}
		h := fnv.New64a()
		h.Write(key)
		w := p.writers[h.Sum64()%uint64(len(p.writers))]
		w.Write(line)
		w.WriteByte('\n') // a bufio.Writer keeps its first error for Flush
	}
	return lines.Err()
}

// finish is those that are not empty.
func (p *partitions) finish() (out []input, err error) {
	for i, f := range p.files {
		if err := errors.Join(p.writers[i].Flush(), f.Close()); err != nil {
			return nil, err
		}
		in, err := sortPartition(f.Name())
		if err != nil {
			return nil, err
		}
		if in.Size > 0 {
			out = append(out, in)
		}
	}
	return out, nil
}

func (p *partitions) close() {
	for _, f := range p.files {
		f.Close()
	}
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
