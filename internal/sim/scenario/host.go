package scenario

import (
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
)

// Host is the machine below a node and the line to it. The zero Host runs all at once,
// each in a time that follows from the task alone, and its line carries a thing in 10 ms.
type Host struct {
	Speed crowd.Gas // of each run, in a second
	Runs  int       // at a time, and one sample of a verifier's beside them; the others wait for their turn
	Line  uint64    // bytes in a second, each way; what is sent goes one after the other
}

// load is what a Host has to do. It dies with the node's life.
type load struct {
	waiting, running []*work
	sending, getting time.Time // when the line is free again
}

// work is one run on a Host.
type work struct {
	sample bool        // a verifier's
	wanted func() bool // still: a stopped run makes room at once
	gas    crowd.Gas
	began  time.Time
	end    func()
}

// compute does end when gas has been run, if it is wanted that long.
func (n *Node) compute(gas crowd.Gas, sample bool, otherwise time.Duration, wanted func() bool, end func()) {
	if n.host.Runs == 0 {
		n.later(otherwise, func() {
			if wanted() {
				end()
			}
		})
		return
	}
	n.load.waiting = append(n.load.waiting, &work{sample: sample, wanted: wanted, gas: gas, end: end})
	n.schedule()
}

// schedule gives what room there is to who has waited longest.
func (n *Node) schedule() {
	unwanted := func(k *work) bool { return !k.wanted() }
	n.load.waiting = slices.DeleteFunc(n.load.waiting, unwanted)
	n.load.running = slices.DeleteFunc(n.load.running, func(k *work) bool {
		if unwanted(k) {
			n.Ran += n.soFar(k)
		}
		return unwanted(k)
	})
	for {
		i := slices.IndexFunc(n.load.waiting, func(k *work) bool {
			same := 0
			for _, r := range n.load.running {
				if r.sample == k.sample {
					same++
				}
			}
			return k.sample && same == 0 || !k.sample && same < n.host.Runs
		})
		if i < 0 {
			return
		}
		k := n.load.waiting[i]
		k.began = n.w.Now()
		n.load.waiting, n.load.running = slices.Delete(n.load.waiting, i, i+1), append(n.load.running, k)
		n.later(seconds(uint64(k.gas), uint64(n.host.Speed)), func() {
			i := slices.Index(n.load.running, k)
			if i < 0 {
				return
			}
			n.load.running = slices.Delete(n.load.running, i, i+1)
			n.Ran += k.gas
			if k.wanted() {
				k.end()
			}
			n.schedule()
		})
	}
}

// soFar is what a run that breaks off has used.
func (n *Node) soFar(k *work) crowd.Gas {
	return min(k.gas, crowd.Gas(n.w.Now().Sub(k.began).Seconds()*float64(n.host.Speed)))
}

// carry is how long so many bytes are on their way to to, were they sent now: on each of both lines behind all that is
// under way there. A line does not stand still for what waits at the other end.
func (w *World) carry(from, to *Node, bytes uint64) time.Duration {
	if from.host.Line == 0 || to.host.Line == 0 {
		return 0
	}
	behind := func(free *time.Time, rate uint64) time.Duration {
		if free.Before(w.Now()) {
			*free = w.Now()
		}
		*free = free.Add(seconds(bytes, rate))
		return free.Sub(w.Now())
	}
	return max(behind(&from.load.sending, from.host.Line), behind(&to.load.getting, to.host.Line))
}

func seconds(amount, rate uint64) time.Duration {
	return time.Duration(float64(amount) / float64(rate) * float64(time.Second))
}
