package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows how many items of a batch are done: a bar on a terminal, else a line for each shard.
type progress struct {
	w        io.Writer
	terminal bool
	quiet    bool

	// guarded by mu
	mu    sync.Mutex
	bar   *progressbar.ProgressBar
	items map[int]uint64 // done, by shard
}

func (a *app) newProgress(quiet bool) *progress {
	return &progress{w: a.stderr, terminal: a.terminal, quiet: quiet}
}

// begin shows another batch.
func (p *progress) begin(name string, total uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.items = map[int]uint64{}
	if p.quiet || !p.terminal {
		return
	}
	p.bar = progressbar.NewOptions64(int64(total), progressbar.OptionSetWriter(p.w), progressbar.OptionSetDescription(name),
		progressbar.OptionSetItsString("items"), progressbar.OptionShowIts(), progressbar.OptionShowCount(), progressbar.OptionSetWidth(24),
		progressbar.OptionThrottle(65*time.Millisecond), progressbar.OptionClearOnFinish())
}

// at says how many items of a shard are done.
func (p *progress) at(shard int, n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.items[shard] = n
	if p.bar == nil {
		return
	}
	sum := uint64(0)
	for _, n := range p.items {
		sum += n
	}
	p.bar.Set64(int64(sum))
}

// say is a line of talk.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.quiet {
		return
	}
	if p.bar != nil {
		p.bar.Clear()
	}
	fmt.Fprintln(p.w, clean(fmt.Sprintf(format, args...)))
}

// log is a line where no bar moves.
func (p *progress) log(format string, args ...any) {
	if !p.terminal {
		p.say(format, args...)
	}
}

// done takes the bar away.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		p.bar.Clear()
		p.bar = nil
	}
}
