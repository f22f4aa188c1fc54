package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/crowdcompute/crowd/internal/flow"
)

// progress shows how many items of a flow are done: a bar on a terminal, else a line for each shard.
type progress struct {
	w        io.Writer
	terminal bool
	quiet    bool

	// guarded by mu
	mu    sync.Mutex
	bar   *progressbar.ProgressBar
	names []string // stages that began
	total uint64
	items map[flow.Ref]uint64 // done, by shard
}

func (a *app) newProgress(quiet bool) *progress {
	return &progress{w: a.stderr, terminal: a.terminal, quiet: quiet, items: map[flow.Ref]uint64{}}
}

// begin shows a stage more.
func (p *progress) begin(name string, total uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names, p.total = append(p.names, name), p.total+total
	if p.quiet || !p.terminal {
		return
	}
	if p.bar != nil {
		p.bar.Clear()
	}
	p.bar = progressbar.NewOptions64(int64(p.total), progressbar.OptionSetWriter(p.w), progressbar.OptionSetDescription(strings.Join(p.names, " → ")),
		progressbar.OptionSetItsString("items"), progressbar.OptionShowIts(), progressbar.OptionShowCount(), progressbar.OptionSetWidth(24),
		progressbar.OptionThrottle(65*time.Millisecond), progressbar.OptionClearOnFinish())
	p.draw()
}

// at says how many items of a shard are done.
func (p *progress) at(r flow.Ref, n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.Try = 0
	p.items[r] = n
	p.draw()
}

func (p *progress) draw() {
	if p.bar == nil {
		return
	}
	sum := uint64(0)
	for _, n := range p.items {
		sum += n
	}
	p.bar.Set64(int64(min(sum, p.total)))
}

// say is a line of talk.
func (p *progress) say(format string, args ...any) {
	if !p.quiet {
		p.shout(format, args...)
	}
}

// shout is a line that quiet does not silence.
func (p *progress) shout(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
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
