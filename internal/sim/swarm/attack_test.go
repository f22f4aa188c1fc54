package swarm

import (
	"testing"
	"time"
)

func TestEclipseCell(t *testing.T) {
	for _, n := range []int{16, 64, 256} {
		e, err := EclipseKey(Config{Nodes: 1000, Seed: 1}, n, 50, 2*time.Minute)
		t.Logf("%+v %v cost0 %v cost16 %v", e, err, Cost(n, e.Share, 0), Cost(n, e.Share, 16))
	}
}

func TestRestartCell(t *testing.T) {
	for _, bits := range []uint8{0, 12, 16} {
		r, err := RestartEclipse(Config{Nodes: 1000, Seed: 1, Static: bits}, 2, 10, 24*time.Hour)
		t.Logf("%+v %v", r, err)
	}
}

func TestAmplifyCell(t *testing.T) {
	a, err := Amplify(Config{Nodes: 300, Seed: 1}, 100)
	for _, x := range a {
		t.Logf("%+v %v", x, err)
	}
}

func TestLiarCell(t *testing.T) {
	l, err := Lie(Config{Nodes: 1000, Adversaries: 0.3, Seed: 1, Quiet: true}, 200, 8)
	t.Logf("%+v %v", l, err)
	r, err := Replay(Config{Nodes: 1000, Adversaries: 0.3, Seed: 1}, time.Minute, 200, 8)
	t.Logf("1 min %d of %d %v", r.Found, r.Lookups, err)
	r, err = Replay(Config{Nodes: 1000, Adversaries: 0.3, Seed: 1}, 30*time.Minute, 200, 8)
	t.Logf("30 min %d of %d %v", r.Found, r.Lookups, err)
	r, err = Replay(Config{Nodes: 1000, Adversaries: 0, Seed: 1}, time.Minute, 200, 8)
	t.Logf("0 1 min %d of %d %v", r.Found, r.Lookups, err)
}
