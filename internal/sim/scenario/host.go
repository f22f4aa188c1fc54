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

// carry is when the last of so many bytes is at to, were they sent now: behind all that is under way.
func (w *World) carry(from, to *Node, bytes uint64) time.Duration {
	if from.host.Line == 0 || to.host.Line == 0 {
		return 0
	}
	begin := w.Now()
	for _, t := range []time.Time{from.load.sending, to.load.getting} {
		if t.After(begin) {
			begin = t
		}
	}
	from.load.sending = begin.Add(seconds(bytes, from.host.Line))
	to.load.getting = begin.Add(seconds(bytes, to.host.Line))
	return begin.Add(seconds(bytes, min(from.host.Line, to.host.Line))).Sub(w.Now())
}

func seconds(amount, rate uint64) time.Duration {
	return time.Duration(float64(amount) / float64(rate) * float64(time.Second))
}
