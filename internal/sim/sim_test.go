package sim

import (
	"testing"
	"time"
)

var rough = Link{Latency: 10 * time.Millisecond, Jitter: 50 * time.Millisecond, Loss: 0.1, Double: 0.1}

// gossip sends numbered messages in the order that order gives.
func gossip(seed uint64, t *Trace, order func(yield func(int))) *World {
	w := New(seed, rough)
	w.TraceTo(t)
	order(func(i int) {
		w.Send(0, i, 0, func() { w.Logf("message %d", i) })
	})
	w.Run(Epoch.Add(time.Second), nil)
	return w
}

func inOrder(yield func(int)) {
	for i := range 64 {
		yield(i)
	}
}

func TestWorld_OneSeedIsOneHistory(t *testing.T) {
	for seed := range uint64(10) {
		if err := Replay(func(t *Trace) { gossip(seed, t, inOrder) }); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
	if gossip(1, nil, inOrder).Hash() == gossip(2, nil, inOrder).Hash() {
		t.Error("got one history for two seeds")
	}
}

func TestWorld_TimeAndPartition(t *testing.T) {
	w := New(1, Link{Latency: 10 * time.Millisecond})
	var got []string
	w.Cut(1, 2)
	w.Send(2, 1, 0, func() { got = append(got, "through the wall") })
	w.Send(1, 3, 0, func() { got = append(got, "beside it") })
	w.After(5*time.Millisecond, func() { got = append(got, "first") })
	w.After(20*time.Millisecond, func() {
		w.Heal(2, 1)
		w.Send(1, 2, 0, func() { got = append(got, "healed") })
	})
	w.Run(Epoch.Add(30*time.Millisecond), nil)
	want := []string{"first", "beside it", "healed"}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Fatalf("got %q, want %q", got, want)
	}
	if !w.Now().Equal(Epoch.Add(30 * time.Millisecond)) {
		t.Fatalf("got time %v after the run", w.Now())
	}
}
