// Package soak keeps a local network under a mix of work for a long time, as a user runs it: the crowd program in a
// process of its own, seen through its RPC and its commands, and killed once. It has tests only. SOAK=30m make soak.
package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
)

const (
	clients    = 4   // post single jobs at the same time
	mapItems   = 300 // of each crowd map
	mapEvery   = 40 * time.Second
	mostLost   = 3                      // streams in five minutes, as crowd doctor has it
	killAt     = 0.15                   // of the whole time
	readyTime  = 20 * time.Second       // after a start, on a machine that tests besides
	sampleTime = 500 * time.Millisecond // between two looks at the process

	// A trend is told from the medians of the first and the last of so many parts of the time after the kill; in a short run,
	// of the middle one and the last.
	parts = 5
)

// sample is what is seen of the process at a time.
type sample struct {
	at         time.Time
	memory     uint64 // bytes
	files      int
	goroutines int
}

// trial is one job that somebody waited for.
type trial struct {
	began time.Time
	took  time.Duration
}

// soak is the network and all that is seen of it.
type soak struct {
	t       *testing.T
	dir     string
	bin     string
	net     string // its folder
	program []byte

	mu      sync.Mutex
	process *exec.Cmd     // guarded by mu
	said    *bytes.Buffer // guarded by mu: of the process
	killed  time.Time     // guarded by mu
	samples []sample      // guarded by mu
	trials  []trial       // guarded by mu: of plain jobs that settled
	count   map[string]int
	posted  []crowd.JobID // guarded by mu
}

func TestSoak(t *testing.T) {
	long := 2 * time.Minute
	if s := os.Getenv("SOAK"); s != "" {
		var err error
		if long, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	if testing.Short() {
		t.Skip("two minutes")
	}
	t.Parallel()
	s := &soak{t: t, dir: t.TempDir(), count: map[string]int{}}
	s.bin, s.net = filepath.Join(s.dir, "crowd"), filepath.Join(s.dir, "net")
	s.must("go", "build", "-buildvcs=false", "-o", s.bin, "../../cmd/crowd")
	wasm := filepath.Join(s.dir, "trivial.wasm")
	s.must("clang-14", "--target=wasm32-wasi", "--sysroot=/usr", "-O2", "-o", wasm, "../../programs/trivial/trivial.c")
	var err error
	if s.program, err = os.ReadFile(wasm); err != nil {
		t.Fatal(err)
	}
	s.start()
	t.Cleanup(func() {
		s.end(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("crowd up said: %s", s.said)
		}
	})
	before := s.dirSize()

	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	began := time.Now()
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() { s.client(ctx, rand.New(rand.NewPCG(1, uint64(i)))) })
	}
	all.Go(func() { s.maps(ctx) })
	all.Go(func() { s.watch(ctx) })
	restarted := make(chan struct{})
	all.Go(func() {
		defer close(restarted)
		select {
		case <-time.After(time.Duration(killAt * float64(long))):
		case <-ctx.Done():
			return
		}
		s.end(syscall.SIGKILL)
		s.start()
	})
	all.Wait()
	s.settle()
	s.report(began, long, s.dirSize()-before)
}

func (s *soak) must(name string, args ...string) {
	s.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// start runs crowd up and waits until it serves.
func (s *soak) start() {
	s.t.Helper()
	began := time.Now()
	c := exec.Command(s.bin, "up", "--dir", s.net, "--json")
	said := &bytes.Buffer{}
	c.Stdout, c.Stderr = said, said
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.process, s.said = c, said
	s.mu.Unlock()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		c, err := s.dial(ctx)
		if err == nil {
			_, err = c.Status(ctx)
			c.Close()
		}
		cancel()
		if err == nil {
			s.t.Logf("crowd up serves after %v", time.Since(began).Round(10*time.Millisecond))
			return
		}
		if time.Since(began) > readyTime {
			s.t.Errorf("crowd up does not serve after %v: %v", readyTime, err)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// end stops the network and waits until it is gone.
func (s *soak) end(sig syscall.Signal) {
	s.mu.Lock()
	c := s.process
	s.process, s.killed = nil, time.Now()
	s.mu.Unlock()
	if c == nil {
		return
	}
	_ = c.Process.Signal(sig)
	_ = c.Wait()
}

func (s *soak) dial(ctx context.Context) (*rpc.Client, error) {
	end, err := rpc.Discover(s.net)
	if err != nil {
		return nil, err
	}
	return rpc.Dial(ctx, end)
}

// client posts one job after the other and waits for each, until ctx ends. It goes on after the network was killed.
func (s *soak) client(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		if err := s.session(ctx, r); err != nil && ctx.Err() == nil {
			time.Sleep(200 * time.Millisecond)
		}
	}
}

func (s *soak) session(ctx context.Context, r *rand.Rand) error {
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	program, err := c.UploadFile(ctx, bytes.NewReader(s.program), nil)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		limits := rpc.Limits{Gas: 100_000_000, Memory: 16 << 20, Output: 1 << 20, WallMillis: 30_000}
		kind := "plain"
		switch r.IntN(12) {
		case 0:
			kind = "cancelled"
		case 1:
			kind, limits.Gas = "out of gas", 1000
		}
		began := time.Now()
		id, err := c.Post(ctx, rpc.PostRequest{Program: program, Limits: limits, Args: []string{fmt.Sprint(r.Uint64())}})
		if err != nil {
			return s.complain(ctx, began, "post", err)
		}
		s.mu.Lock()
		s.posted = append(s.posted, id)
		s.mu.Unlock()
		if kind == "cancelled" {
			if err := c.Cancel(ctx, id); err != nil && !tooLate(err) {
				return s.complain(ctx, began, "cancel", err)
			}
		}
		for ev, err := range c.Watch(ctx, id) {
			if err != nil {
				return s.complain(ctx, began, "watch", err)
			}
			if !ev.Stage.Final() {
				continue
			}
			s.mu.Lock()
			s.count[kind+": "+string(ev.Stage)]++
			if kind == "plain" && ev.Stage == rpc.Settled {
				s.trials = append(s.trials, trial{began, time.Since(began)})
			}
			s.mu.Unlock()
			if ev.Stage != rpc.Settled && kind != "cancelled" {
				s.t.Errorf("job %s (%s) is %s: %s", id.Short(), kind, ev.Stage, ev.Why)
			}
		}
	}
	return nil
}

func tooLate(err error) bool {
	var e *rpc.Error
	return errors.As(err, &e) && (e.Kind == rpc.TooLate || e.Kind == rpc.Conflict)
}

// complain is an error for the test, unless the network was killed meanwhile or the time is over.
func (s *soak) complain(ctx context.Context, since time.Time, what string, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil && s.process != nil && s.killed.Before(since) {
		s.t.Errorf("%s: %v", what, err)
	}
	return err
}

// maps runs crowd map now and then.
func (s *soak) maps(ctx context.Context) {
	items := filepath.Join(s.dir, "items.txt")
	var text, want strings.Builder
	for i := range mapItems {
		fmt.Fprintf(&text, "item %d\n", i)
		want.WriteString("trivial: done\n")
	}
	if err := os.WriteFile(items, []byte(text.String()), 0o600); err != nil {
		s.t.Error(err)
		return
	}
	program := filepath.Join(s.dir, "trivial.wasm")
	for n := 0; ctx.Err() == nil; n++ {
		began := time.Now()
		out := filepath.Join(s.dir, fmt.Sprint("map-", n))
		args := []string{"map", program, items, "--by", "lines=1", "--out", out, "--node", s.net, "--quiet", "--json"}
		for try := 0; ; try++ {
			said, err := exec.Command(s.bin, args...).CombinedOutput() // to its end: what is begun is to end well
			if err == nil {
				got, err := os.ReadFile(out)
				if string(got) != want.String() {
					s.t.Errorf("crowd map gave %d bytes, %v, want %d", len(got), err, want.Len())
				}
				s.mu.Lock()
				s.count["map"]++
				s.mu.Unlock()
				break
			}
			s.mu.Lock()
			killed := s.process == nil || s.killed.After(began)
			s.mu.Unlock()
			if !killed || try == 20 {
				s.t.Errorf("crowd %s: %v\n%s", strings.Join(args, " "), err, said)
				break
			}
			if _, err := os.Stat(out + ".map"); err == nil { // the network was killed under it
				args = []string{"map", "--resume", out + ".map", "--node", s.net, "--quiet", "--json"}
			}
			time.Sleep(time.Second)
		}
		select {
		case <-time.After(mapEvery - min(time.Since(began), mapEvery)):
		case <-ctx.Done():
		}
	}
}

// watch looks at the process.
func (s *soak) watch(ctx context.Context) {
	for ctx.Err() == nil {
		time.Sleep(sampleTime)
		c, err := s.dial(ctx)
		if err != nil {
			continue
		}
		if st, err := c.Status(ctx); err == nil {
			l := st.Load
			s.mu.Lock()
			s.samples = append(s.samples, sample{time.Now(), l.Memory, l.Files, l.Goroutines})
			s.count["streams lost"] = max(s.count["streams lost"], l.Lost)
			s.mu.Unlock()
		}
		c.Close()
	}
}

// settle waits until every job that was posted has ended, those of the time of the kill too.
func (s *soak) settle() {
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	c, err := s.dial(ctx)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer c.Close()
	for _, id := range s.posted {
		for {
			j, err := c.Job(ctx, id)
			if err == nil && j.Stage.Final() {
				break
			}
			if ctx.Err() != nil {
				s.t.Errorf("job %s did not end: %s, %v", id.Short(), j.Stage, err)
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	a, err := c.Accounts(ctx)
	for _, a := range a {
		if a.Escrow != 0 {
			s.t.Errorf("credits are locked though all jobs have ended: %s", a.Escrow)
		}
	}
	if err != nil {
		s.t.Error(err)
	}
}

func (s *soak) dirSize() (n int64) {
	_ = filepath.WalkDir(s.net, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// report prints what was seen and fails on a trend.
func (s *soak) report(began time.Time, long time.Duration, disk int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := began.Add(time.Duration((killAt + 0.05) * float64(long)))
	span := time.Since(from)
	part := func(t time.Time) int {
		return min(max(-1, int(float64(parts)*float64(t.Sub(from))/float64(span))), parts-1)
	}
	latency, memory := make([][]float64, parts), make([][]float64, parts)
	files, goroutines := make([][]float64, parts), make([][]float64, parts)
	for _, x := range s.trials {
		if p := part(x.began); !x.began.Before(from) {
			latency[p] = append(latency[p], x.took.Seconds()*1000)
		}
	}
	for _, x := range s.samples {
		if p := part(x.at); !x.at.Before(from) {
			memory[p] = append(memory[p], float64(x.memory)/(1<<20))
			files[p] = append(files[p], float64(x.files))
			goroutines[p] = append(goroutines[p], float64(x.goroutines))
		}
	}
	jobs := 0
	for k, n := range s.count {
		if strings.Contains(k, ": ") {
			jobs += n
		}
	}
	said, _ := json.Marshal(s.count)
	s.t.Logf("%v: %d jobs, %.1f a second; %s; disk %d bytes a job", long, jobs, float64(jobs)/long.Seconds(), said, disk/int64(max(jobs, 1)))
	if n := s.count["streams lost"]; n > mostLost {
		s.t.Errorf("the node lost its stream from the full node %d times in five minutes", n)
	}
	slack, base := 0.5, parts/2 // a short run is for half of its time on its way to where it stays
	if long >= 20*time.Minute {
		slack, base = 0.1, 0
	}
	for _, x := range []struct {
		what  string
		parts [][]float64
		grace float64 // that is no trend whatever it is of the first
	}{{"latency, ms", latency, 200}, {"memory, MiB", memory, 64}, {"descriptors", files, 32}, {"goroutines", goroutines, 200}} {
		first, last := median(x.parts[base]), median(x.parts[parts-1])
		s.t.Logf("%-12s median of each fifth: %s", x.what, medians(x.parts))
		if len(x.parts[base]) == 0 || len(x.parts[parts-1]) == 0 {
			s.t.Errorf("%s: nothing was seen", x.what)
		} else if last > first*(1+slack) && last > first+x.grace*slack {
			s.t.Errorf("%s: a trend, from %.0f to %.0f", x.what, first, last)
		}
	}
}

func median(x []float64) float64 {
	if len(x) == 0 {
		return 0
	}
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}

func medians(parts [][]float64) string {
	var out []string
	for _, p := range parts {
		out = append(out, fmt.Sprintf("%.0f", median(p)))
	}
	return strings.Join(out, " ")
}
