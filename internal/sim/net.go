package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Wires is what all links of a Net have in common. The zero value is a perfect net.
type Wires struct {
	Latency Latency
	Loss    float64 // share of datagrams that never arrive
	Double  float64 // share that arrives twice

	Uplink int64 // bits per second that a node can send; zero: no limit
	Buffer int   // bytes that wait for a node's uplink before more are dropped; zero: 64 KiB
}

// defaultBuffer: half a second of a line of a megabit, as home routers have.
const defaultBuffer = 64 << 10

// Validate says all that is wrong with w.
func (w Wires) Validate() error {
	var errs []error
	share := func(what string, p float64) {
		if !(p >= 0 && p <= 1) {
			errs = append(errs, fmt.Errorf("%s %v: want a share from 0 to 1", what, p))
		}
	}
	share("loss", w.Loss)
	share("double", w.Double)
	if !(w.Latency.Jitter >= 0 && w.Latency.Jitter <= 100) {
		errs = append(errs, fmt.Errorf("jitter %v: want 0 to 100", w.Latency.Jitter))
	}
	if w.Uplink < 0 || w.Buffer < 0 {
		errs = append(errs, errors.New("a negative uplink or buffer"))
	}
	return errors.Join(errs...)
}

// Net is the links between the nodes of a large world, by their numbers. It puts
// nothing into a queue: it says what becomes of a datagram, and the caller, who
// knows what an event is, puts it where it belongs. It keeps up to 18 bytes per
// node, and of pairs only those that are cut.
type Net struct {
	Wires

	rate  []int64 // bits per second of nodes that differ; nil: none does
	idle  []Time  // when a node's uplink has sent all
	group []uint16
	cut   map[[2]uint32]struct{} // never ranged over
}

// NewNet is the net of nodes numbered from 0 to nodes-1.
func NewNet(nodes int, w Wires) (*Net, error) {
	if err := w.Validate(); err != nil {
		return nil, fmt.Errorf("net: %w", err)
	}
	if w.Buffer == 0 {
		w.Buffer = defaultBuffer
	}
	return &Net{Wires: w, idle: make([]Time, nodes), cut: map[[2]uint32]struct{}{}}, nil
}

// Loss says why a datagram did not arrive.
type Loss uint8

// Append only: traces and counters hold these.
const (
	Arrives    Loss = iota
	LostOnWay       // by chance
	Parted          // the two are in different parts of the net
	UplinkFull      // the sender sends more than its line takes
)

func (l Loss) String() string {
	switch l {
	case Arrives:
		return "arrives"
	case LostOnWay:
		return "lost on the way"
	case Parted:
		return "parted"
	case UplinkFull:
		return "uplink full"
	}
	return fmt.Sprintf("Loss(%d)", uint8(l))
}

// Fate is what becomes of a datagram.
type Fate struct {
	Loss   Loss
	Copies int     // how many arrive: 0, 1 or 2
	At     [2]Time // when they do
}

// Send is the fate of a datagram of that many bytes, headers included. r is the
// sender's chance. What is under way when the net is parted is not known here:
// ask Reaches again when it arrives.
func (n *Net) Send(now Time, from, to uint32, bytes int, r *rand.Rand) Fate {
	out, ok := n.uplink(now, from, bytes)
	switch {
	case !ok:
		return Fate{Loss: UplinkFull}
	case !n.Reaches(from, to):
		return Fate{Loss: Parted}
	case n.Loss > 0 && r.Float64() < n.Loss:
		return Fate{Loss: LostOnWay}
	}
	f := Fate{Copies: 1}
	f.At[0] = out.After(n.Latency.Delay(from, to, r))
	if n.Double > 0 && r.Float64() < n.Double {
		f.Copies, f.At[1] = 2, out.After(n.Latency.Delay(from, to, r))
	}
	return f
}

// uplink is when the last bit has left the sender: a queue in front of a line.
func (n *Net) uplink(now Time, from uint32, bytes int) (out Time, ok bool) {
	rate := n.Uplink
	if n.rate != nil {
		rate = n.rate[from]
	}
	if rate <= 0 {
		return now, true
	}
	idle := max(n.idle[from], now)
	waiting := float64(idle-now) / 1e9 * float64(rate) / 8
	if waiting+float64(bytes) > float64(n.Buffer) {
		return 0, false
	}
	n.idle[from] = idle.After(time.Duration(int64(bytes) * 8 * 1e9 / rate))
	return n.idle[from], true
}

// SetUplink gives one node a line of its own, in bits per second; zero: no limit.
func (n *Net) SetUplink(node uint32, rate int64) {
	if n.rate == nil {
		n.rate = make([]int64, len(n.idle))
		for i := range n.rate {
			n.rate[i] = n.Uplink
		}
	}
	n.rate[node] = rate
}

// Reset forgets what waits in a node's uplink: it has restarted. What has been
// given a fate arrives all the same.
func (n *Net) Reset(node uint32) { n.idle[node] = 0 }

// Reaches reports whether nothing parts the two.
func (n *Net) Reaches(a, b uint32) bool {
	if n.group != nil && n.group[a] != n.group[b] {
		return false
	}
	if len(n.cut) == 0 {
		return true
	}
	_, cut := n.cut[pair(a, b)]
	return !cut
}

// Cut parts two nodes, in both directions.
func (n *Net) Cut(a, b uint32) { n.cut[pair(a, b)] = struct{}{} }

// Heal takes Cut back.
func (n *Net) Heal(a, b uint32) { delete(n.cut, pair(a, b)) }

// Split parts the net into groups that do not reach each other, in place of those
// there were.
func (n *Net) Split(group func(node uint32) uint16) {
	if n.group == nil {
		n.group = make([]uint16, len(n.idle))
	}
	for i := range n.group {
		n.group[i] = group(uint32(i))
	}
}

// Join takes Split back; pairs that are cut stay cut.
func (n *Net) Join() { n.group = nil }

func pair(a, b uint32) [2]uint32 { return [2]uint32{min(a, b), max(a, b)} }
