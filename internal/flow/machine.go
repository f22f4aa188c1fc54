package flow

import (
	"fmt"
	"time"

	"github.com/crowdcompute/crowd"
)

// Machine drives a State. It belongs to one goroutine.
type Machine struct {
	cfg   Config // set once
	state *State
}

// Resume is a machine over a state that New drew up, or that an earlier machine left.
func Resume(cfg Config, s *State) (*Machine, error) {
	return nil, fmt.Errorf("to be written")
}

// State is what the driver writes down after every Step. It changes only within Step.
func (m *Machine) State() *State { return m.state }

// Step takes an event at the local time now. The driver writes State down, and only then begins the effects, in order.
func (m *Machine) Step(now time.Time, ev Event) []Effect { return nil }

// Deadline is when the machine next wants Step(now, Woke{}); zero: never.
func (m *Machine) Deadline() time.Time { return time.Time{} }

var _ = crowd.Credit
