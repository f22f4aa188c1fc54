package chain

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// cancelled posts a job and cancels it before its places are drawn. It uses two nonces, and gives the block of the end.
func cancelled(t *testing.T, f *running, k *identity.Key, nonce uint64, spec crowd.JobSpec) (crowd.JobID, crowd.Height) {
	t.Helper()
	id := spec.ID(k.ID(), nonce)
	var at crowd.Height
	var subs []*submission
	for i, m := range []ledger.Message{&ledger.Post{Spec: spec}, &ledger.Cancel{Job: id}} {
		sub, err := f.submit(deadline(t), crowd.NodeID{}, ledger.Sign(k, f.ChainID(), nonce+uint64(i), m))
		if err != nil {
			t.Fatal(err)
		}
		subs = append(subs, sub)
	}
	for _, sub := range subs {
		in, err := sub.wait(deadline(t))
		if err != nil || in.Refusal != nil {
			t.Fatalf("post and cancel: %v, %v", in.Refusal, err)
		}
		at = in.Height
	}
	return id, at
}

// A light node that comes back is told which open jobs concern it, and of its own which ended since; not of strangers' jobs,
// nor of all that ever ended. A full node that has restarted tells the same.
func TestJobs_AreThoseThatConcernTheNode(t *testing.T) {
	w := newWorld(t, 1, 3, 3)
	w.genesis.Params.Retention = 3600_000
	cfg := solo(t, w, t.TempDir())
	f := start(t, cfg, func(f *Full) { checkInvariants(t, f) })
	two := NewWallet(w.people[1], f)
	spec := w.spec()
	var ended []crowd.JobID
	var heights []crowd.Height
	for i := range 5 {
		id, at := cancelled(t, f, w.people[0], uint64(2*i), spec)
		ended, heights = append(ended, id), append(heights, at)
	}
	await := func(id crowd.JobID, s ledger.JobState) {
		t.Helper()
		blocks := f.Watch(deadline(t))
		for {
			if j, ok := f.Head().State.Job(id); ok && j.State >= s {
				return
			}
			if _, ok := <-blocks; !ok {
				t.Fatalf("job %s never reached %s", id.Short(), s)
			}
		}
	}
	in := must(t, two, &ledger.Post{Spec: spec})
	open := spec.ID(two.ID(), in.Nonce)
	await(open, ledger.Claiming)

	tests := []struct {
		name  string
		self  crowd.NodeID
		since crowd.Height
		want  []crowd.JobID
	}{
		{"owner of the ended ones, from the start", w.people[0].ID(), 0, ended},
		{"the same, which has seen the third end", w.people[0].ID(), heights[3], ended[3:]},
		{"owner of the open one", w.people[1].ID(), 0, []crowd.JobID{open}},
		{"a stranger", w.people[2].ID(), 0, nil},
		{"a provider that may claim", w.providers[0].ID(), 0, []crowd.JobID{open}},
	}
	check := func(when string) {
		t.Helper()
		for _, tt := range tests {
			l := startLight(t, LightConfig{Genesis: w.genesis, Dial: dialer(t, f.Full), Self: tt.self})
			ready(t, l)
			if got, err := l.Jobs(deadline(t), tt.since); err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("%s, %s: got %v, %v, want %v", when, tt.name, got, err, tt.want)
			}
		}
	}
	if in := must(t, two, &ledger.Transfer{To: w.people[2].ID().Address(), Amount: 1}); in.Refusal != nil { // a header over the last change
		t.Fatal(in.Refusal)
	}
	check("running")
	before := f.jobs.openJobs()
	f.close()
	f = start(t, cfg, func(f *Full) { checkInvariants(t, f) })
	if got := f.jobs.openJobs(); !slices.Equal(got, before) {
		t.Errorf("after a restart: got open jobs %v, want %v", got, before)
	}
	if got := f.jobs.endedSince(w.people[0].ID(), heights[3]); !slices.Equal(got, ended[3:]) {
		t.Errorf("after a restart: got %v, want those that ended since %v", got, ended[3:])
	}
}

// What leaves the state leaves the index.
func TestJobIndex_ForgetsWithTheState(t *testing.T) {
	w := newWorld(t, 1, 2, 1)
	w.genesis.Params.Retention = 200
	f := start(t, solo(t, w, t.TempDir()), func(f *Full) { checkInvariants(t, f) })
	owner := w.people[0]
	id, _ := cancelled(t, f, owner, 0, w.spec())
	if got := f.jobs.endedSince(owner.ID(), 0); !slices.Equal(got, []crowd.JobID{id}) {
		t.Fatalf("got %v, want the cancelled job", got)
	}
	blocks := f.Watch(deadline(t))
	for _, ok := f.Head().State.Job(id); ok; _, ok = f.Head().State.Job(id) {
		if _, ok := <-blocks; !ok {
			t.Fatal("the job never left the state")
		}
	}
	f.jobs.mu.Lock()
	defer f.jobs.mu.Unlock()
	if len(f.jobs.open)+len(f.jobs.ended) > 0 {
		t.Errorf("the index still holds %d open jobs, and ended ones of %d owners", len(f.jobs.open), len(f.jobs.ended))
	}
}

func TestPulse_GrowsWithWhatItMeasures(t *testing.T) {
	var p pulse
	if got := p.patience(); got != beatTime {
		t.Errorf("at first: got %v, want %v", got, beatTime)
	}
	p.took(beatTime / 2)
	if got := p.patience(); got != beatFactor*beatTime/2 {
		t.Errorf("after a slow answer: got %v, want %v", got, beatFactor*beatTime/2)
	}
	p.took(maxBeatTime)
	if got := p.patience(); got != maxBeatTime {
		t.Errorf("after a very slow answer: got %v, want the most, %v", got, maxBeatTime)
	}
	for range 60 {
		p.took(0)
	}
	if got := p.patience(); got != beatTime {
		t.Errorf("after a minute of quick answers: got %v, want %v", got, beatTime)
	}
}

// A full node lives as long as it answers, or sends anything else, in time.
func TestLight_Beat(t *testing.T) {
	for _, tt := range []struct {
		name  string
		after time.Duration               // what happens then
		do    func(s *session, id uint64) // to the session, which has asked under that ID
		took  time.Duration               // of the beat
		alive bool
	}{
		{"silent", 0, func(*session, uint64) {}, beatTime, false},
		{"slow", beatTime * 3 / 4, func(s *session, id uint64) { s.answer(frame{ID: id, Kind: kEvidence}) }, beatTime * 3 / 4, true},
		{"another answer", 0, func(s *session, id uint64) { s.answer(frame{ID: id, Kind: kValues}) }, 0, false},
		{"only pushes", time.Second, func(s *session, _ uint64) { s.answer(frame{Kind: kValues}) }, beatTime, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &session{out: make(chan []byte, 16), gone: make(chan struct{}), calls: map[uint64]chan frame{}}
				go func() {
					f, err := readFrame(bytes.NewReader(<-s.out), maxRequest)
					if err != nil || f.Kind != kHeader {
						t.Errorf("got a question of kind %d, %v", f.Kind, err)
					}
					time.Sleep(tt.after) // virtual
					tt.do(s, f.ID)
				}()
				at, p := time.Now(), pulse{}
				err := (&Light{}).beat(t.Context(), s, &p)
				if took := time.Since(at); (err == nil) != tt.alive || took != tt.took || p.slow != took {
					t.Errorf("got %v after %v, remembered as %v; want alive %v after %v", err, took, p.slow, tt.alive, tt.took)
				}
			})
		})
	}
}
