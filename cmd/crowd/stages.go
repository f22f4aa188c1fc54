package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// stages shows a job's life: one line for each stage, and between two of them,
// on a terminal, something that moves.
type stages struct {
	w        io.Writer
	program  io.Writer // w, for what the job's program writes
	terminal bool
	quiet    bool

	// guarded by mu
	mu    sync.Mutex
	start time.Time // of the first event, on the node's clock
	last  rpc.JobEvent
	bar   *progressbar.ProgressBar // what moves now, or nil
	text  string                   // beside it
	open  bool                     // the program has begun a line on stderr and not ended it
	quit  chan struct{}            // ends the goroutine that moves it
}

func (a *app) newStages(quiet bool) *stages {
	s := &stages{w: a.stderr, program: a.stderr, terminal: a.terminal, quiet: quiet}
	if a.terminal {
		s.program = &plainText{w: a.stderr}
	}
	return s
}

// show takes the job's next event.
func (s *stages) show(ev rpc.JobEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quiet {
		return
	}
	if s.start.IsZero() {
		s.start = ev.Time
	}
	moved := ev.Stage != s.last.Stage
	if p := ev.Progress; p != nil && !moved {
		text := fmt.Sprintf("running %s of at most %s", gasText(p.Gas), gasText(p.Limit))
		if p.Of > 0 {
			text = fmt.Sprintf("running %d of %d items, %s", p.Items, p.Of, gasText(p.Gas))
		}
		s.spin(text)
	} else if moved || ev.Why != s.last.Why {
		s.clear()
		s.endLine()
		for _, line := range stageLines(ev, s.start) {
			fmt.Fprintln(s.w, line)
		}
	}
	s.last = ev
	switch {
	case ev.Stage.Final():
		s.clear()
	case moved:
		s.spin(waitingFor(ev.Stage))
	}
}

// guest passes on what the program writes to its stderr, between our own lines. While the job runs nobody has checked that.
func (s *stages) guest(data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	if n := len(data); n > 0 {
		s.open = data[n-1] != '\n'
	}
	_, err := s.program.Write(data)
	return err
}

// say is a line of talk between stages.
func (s *stages) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	s.endLine()
	fmt.Fprintln(s.w, clean(fmt.Sprintf(format, args...)))
}

// done takes away what moves; the display is not used afterwards.
func (s *stages) done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	s.endLine()
	if s.quit != nil {
		close(s.quit)
		s.quit = nil
	}
}

// endLine has what we say begin on a line of its own.
func (s *stages) endLine() {
	if s.open {
		fmt.Fprintln(s.w)
		s.open = false
	}
}

func (s *stages) clear() {
	if s.bar != nil {
		s.bar.Clear()
		s.bar = nil
	}
}

// spin moves while nobody knows how long it takes: a limit is not a goal, so a
// bar towards the gas limit would lie.
func (s *stages) spin(text string) {
	if !s.terminal {
		return
	}
	if s.quit == nil {
		s.quit = make(chan struct{})
		go s.turn(s.quit)
	}
	if s.bar == nil {
		// The library's own ticker cannot be stopped, so ours turns the spinner.
		s.bar = progressbar.NewOptions(-1, progressbar.OptionSetWriter(s.w), progressbar.OptionSpinnerType(14),
			progressbar.OptionSetSpinnerChangeInterval(0), progressbar.OptionSetElapsedTime(false))
	}
	s.text = clean(text)
	s.bar.Describe(s.text)
}

func (s *stages) turn(quit <-chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-quit:
			return
		case <-tick.C:
			s.mu.Lock()
			if s.bar != nil {
				s.bar.Describe(s.text)
			}
			s.mu.Unlock()
		}
	}
}

func waitingFor(s rpc.Stage) string {
	switch s {
	case rpc.Posted:
		return "waiting for the draw"
	case rpc.Drawn:
		return "waiting for the executors to begin"
	case rpc.Running:
		return "running"
	case rpc.Committed:
		return "waiting for the results to be shown"
	case rpc.Court:
		return "waiting for the authorities"
	}
	return "waiting for the settlement"
}

// stageLines is the text of an event: a first line with time and stage, and
// others below it for what deserves its own.
func stageLines(ev rpc.JobEvent, start time.Time) []string {
	first := fmt.Sprintf("%8s  %-9s  ", elapsedText(ev.Time.Sub(start)), ev.Stage)
	below := strings.Repeat(" ", len(first))
	text := ev.Why
	var more []string
	switch ev.Stage {
	case rpc.Drawn:
		text = committeeText(ev.Committee)
	case rpc.Checked, rpc.Unchecked:
		if ev.Outcome != nil {
			text += fmt.Sprintf(": %s, %s", ev.Outcome, gasText(ev.Outcome.Gas))
		}
	case rpc.Settled, rpc.Failed, rpc.Cancelled:
		if ev.Stage == rpc.Settled {
			text = fmt.Sprintf("%s: you paid %s", ev.Why, creditText(ev.Price))
		}
		for _, p := range ev.Payments {
			if p.Slashed {
				more = append(more, fmt.Sprintf("%s lost %s of its %s (%s)", payee(p), creditText(crowd.Credits(-p.Change)), p.From, p.Why))
			}
		}
	}
	lines := []string{strings.TrimRight(first+clean(text), " ")}
	if ev.Verdict != nil && (ev.Stage == rpc.Checked || ev.Stage == rpc.Unchecked) {
		for _, b := range ev.Verdict.Blame {
			more = append([]string{blameText(b)}, more...)
		}
	}
	for _, m := range more {
		lines = append(lines, below+clean(m))
	}
	return lines
}

func committeeText(members []rpc.Member) string {
	var parts []string
	for _, role := range []string{"executor", "auditor", "verifier", "alternate"} {
		var ids []string
		proofs := "proofs ok"
		for _, m := range members {
			if m.Role != role {
				continue
			}
			ids = append(ids, m.Node.Short())
			if !m.ProofOK {
				proofs = "PROOFS NOT CHECKED"
			}
		}
		switch {
		case len(ids) == 0:
			continue
		case len(ids) > 1:
			role += "s"
		default:
			proofs = strings.Replace(strings.Replace(proofs, "proofs", "proof", 1), "PROOFS", "PROOF", 1)
		}
		parts = append(parts, fmt.Sprintf("%s %s (%s)", role, strings.Join(ids, ", "), proofs))
	}
	return strings.Join(parts, "; ")
}

func blameText(b rpc.Blame) string {
	who := "the program or its input"
	if b.Node != nil {
		who = b.Node.Short()
	}
	return fmt.Sprintf("%s is to blame: %s (%s)", who, b.Why, b.Fault)
}

// payee is who a payment concerns, as short as people need it.
func payee(p rpc.Payment) string {
	switch {
	case p.Node != nil:
		return p.Node.Short()
	case p.Account.IsZero():
		return "burned"
	}
	return p.Account.String()
}

// transfer shows the bytes of one upload or download, when that takes a while.
func (s *stages) transfer(what string, total int64) func(int) {
	const notable = 4 << 20 // below this a bar would only flicker
	if s.quiet || !s.terminal || total < notable {
		return func(int) {}
	}
	bar := progressbar.NewOptions64(total, progressbar.OptionSetWriter(s.w), progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true), progressbar.OptionSetWidth(24),
		progressbar.OptionThrottle(65*time.Millisecond), progressbar.OptionClearOnFinish())
	return func(n int) { bar.Add(n) }
}

// folder shows the files of one upload, when that takes a while: a line every ten seconds, or on a terminal what moves.
func (s *stages) folder(size rpc.FolderSize) func(files, bytes int) {
	const many, large, every = 500, 4 << 20, 10 * time.Second
	if s.quiet || size.Files < many && size.Bytes < large {
		return nil
	}
	s.say("uploading %s, %s", count(uint64(size.Files), "file"), sizeText(size.Bytes))
	files, bytes, next := 0, int64(0), time.Now().Add(every)
	return func(f, b int) {
		files, bytes = files+f, bytes+int64(b)
		text := fmt.Sprintf("uploaded %d of %d files, %s of %s",
			files, size.Files, sizeText(bytes), sizeText(size.Bytes))
		if files == size.Files {
			text = "uploaded all files; the node puts them in its store"
		}
		if s.terminal {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.spin(text)
			return
		}
		if now := time.Now(); !now.Before(next) || files == size.Files && size.Files >= many {
			next = now.Add(every)
			s.say("%s", text)
		}
	}
}
