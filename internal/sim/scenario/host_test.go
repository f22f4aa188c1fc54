package scenario

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/sim"
)

func hosts(runs int) *World {
	return New(Config{
		Seed: 1, Link: sim.Link{Latency: time.Millisecond},
		Host:  func(int) Host { return Host{Speed: 1e9, Runs: runs, Line: 1e6} },
		Bytes: func(crowd.CID) uint64 { return 2e6 },
	})
}

// seconds at which the events came.
type moments struct {
	w  *World
	at []float64
}

func (m *moments) note() {
	m.at = append(m.at, m.w.Now().Sub(sim.Epoch).Round(50*time.Millisecond).Seconds())
}
func (m *moments) over(ok bool) {
	m.note()
	m.at = append(m.at, map[bool]float64{true: 1, false: 0}[ok])
}
func (m *moments) want(s ...float64) error {
	if !slices.Equal(m.at, s) {
		return fmt.Errorf("got %v, want %v", m.at, s)
	}
	return nil
}

func TestHost_RunsWaitForTheirTurn(t *testing.T) {
	for _, tt := range []struct {
		name string
		runs int
		stop bool // the first, after half a second
		off  bool // the node, then
		want []float64
		ran  crowd.Gas
	}{
		{"one at a time", 1, false, false, []float64{1, 3, 4}, 4e9},
		{"two at a time", 2, false, false, []float64{1, 2, 2}, 4e9},
		{"a stopped run makes room", 1, true, false, []float64{2.5, 3.5}, 3.5e9},
		{"what is off runs nothing", 1, false, true, nil, 5e8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := hosts(tt.runs)
			n, m, first := w.Provider(0), &moments{w: w}, true
			n.compute(1e9, false, 0, func() bool { return first }, m.note)
			n.compute(2e9, false, 0, func() bool { return true }, m.note)
			n.compute(1e9, false, 0, func() bool { return true }, m.note)
			w.After(500*time.Millisecond, func() {
				switch {
				case tt.stop:
					first = false
					n.schedule()
				case tt.off:
					n.Off()
				}
			})
			w.Run(sim.Epoch.Add(time.Minute), nil)
			if err := m.want(tt.want...); err != nil || n.Ran != tt.ran {
				t.Errorf("%v; %d gas ran, want %d", err, n.Ran, tt.ran)
			}
		})
	}
}

// A verifier's sample is short, and a whole batch waits for it.
func TestHost_SamplesDoNotWaitForBatches(t *testing.T) {
	w := hosts(1)
	n, m := w.Provider(0), &moments{w: w}
	always := func() bool { return true }
	n.compute(9e9, false, 0, always, m.note)
	n.compute(9e9, false, 0, always, m.note)
	n.compute(1e9, true, 0, always, m.note)
	n.compute(1e9, true, 0, always, m.note)
	w.Run(sim.Epoch.Add(time.Minute), nil)
	if err := m.want(1, 2, 9, 18); err != nil {
		t.Error(err)
	}
}

func TestHost_LinesCarryOneThingAfterTheOther(t *testing.T) {
	w := hosts(1)
	a, b, c, m := w.Provider(0), w.Provider(1), w.Provider(2), &moments{w: w}
	for i, to := range []*Node{b, b, c} {
		a.take(thing{cid: crowd.CID(fmt.Sprint(i)), bytes: 2e6}, to, m.over) // a's line is the narrow one
	}
	w.Run(sim.Epoch.Add(7*time.Second), nil)
	if err := m.want(2, 1, 4, 1, 6, 1); err != nil || b.Sent != 4e6 || a.Got != 6e6 {
		t.Errorf("%v; %d bytes sent", err, b.Sent)
	}
}

// Whoever goes in the middle of a transfer takes it along, and is asked in vain then.
func TestHost_WhatBreaksOffNeverCame(t *testing.T) {
	for who, want := range [][]float64{nil, {3, 0}} { // the dead hear nothing
		w := hosts(1)
		a, b, m := w.Provider(0), w.Provider(1), &moments{w: w}
		a.take(thing{cid: "thing", bytes: 2e6}, b, m.over)
		w.After(time.Second, w.Provider(who).Off)
		w.After(1500*time.Millisecond, w.Provider(who).On)
		w.Run(sim.Epoch.Add(7*time.Second), nil)
		if err := m.want(want...); err != nil || a.Got != 0 {
			t.Errorf("node %d was off for a moment: %v", who, err)
		}
	}
}
