package lab

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	mtu          = 1500
	frameHead    = 14      // an Ethernet header: to, from, type
	ipHead       = 20      // an IPv4 header without options
	socketBuffer = 4 << 20 // bytes in the kernel, each way, for each link
	maxFlying    = 64 << 20
	// maxBacklog is how long a packet may wait for a link with a Rate, as in a
	// router with a buffer of that length; what would wait longer is dropped.
	maxBacklog = 200 * time.Millisecond
)

// Link is the line between a host and the wide network. It counts once for each
// packet sent and once for each received: a packet from a to b takes a's Delay
// and b's Delay, and a round trip twice both. The zero value is a perfect line.
type Link struct {
	Delay  time.Duration
	Jitter time.Duration // on top of Delay, uniform in [0, Jitter); packets between two hosts keep their order
	Loss   float64       // share of packets lost, 0 to 1, each on its own
	Rate   int64         // bits per second, each way; 0: unlimited
}

func (k Link) validate() error {
	if k.Delay < 0 || k.Jitter < 0 || k.Rate < 0 || !(k.Loss >= 0 && k.Loss <= 1) {
		return fmt.Errorf("link %+v: want nothing negative and Loss at most 1", k)
	}
	return nil
}

// Traffic counts packets on the wide network since New.
type Traffic struct {
	Delivered, Bytes int64 // packets brought to their host, and their size with IP headers
	Lost             int64 // by Link.Loss
	Cut              int64 // by Cut and Partition
	Overflow         int64 // beyond a Rate's backlog, the memory for packets in flight, or a full device
	Astray           int64 // not IPv4, from an address not the sender's, or to one that nobody has
}

// wire is the wide network: it carries IPv4 packets between the taps of its ports.
type wire struct {
	seed    uint64
	wake    chan struct{} // capacity 1: one notice is enough
	stop    chan struct{}
	running sync.WaitGroup

	mu      sync.Mutex // guards what follows, and ports and flows
	ports   map[netip.Addr]*port
	flows   map[[2]*port]*flow
	flying  packets
	bytes   int // in flying
	sent    uint64
	traffic Traffic
}

// port is where a public address is plugged in.
type port struct {
	addr     netip.Addr // set once
	mac      [6]byte    // set once; the device behind the link
	tap      *os.File   // set once
	link     Link
	up, down time.Time // when a link with a Rate is next free, each way
}

// flow is all packets from one port to another.
type flow struct {
	dice *rand.Rand
	last time.Time // when the packet before arrives
	cut  bool
}

type packet struct {
	due    time.Time
	number uint64 // keeps the order of packets due together
	to     *port
	queued bool // it has passed the receiver's Rate too
	frame  []byte
}

type packets []packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	if !p[i].due.Equal(p[j].due) {
		return p[i].due.Before(p[j].due)
	}
	return p[i].number < p[j].number
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	last := len(*p) - 1
	x := (*p)[last]
	(*p)[last] = packet{}
	*p = (*p)[:last]
	return x
}

func newWire(seed uint64) *wire {
	w := &wire{
		seed:  seed,
		wake:  make(chan struct{}, 1),
		stop:  make(chan struct{}),
		ports: make(map[netip.Addr]*port),
		flows: make(map[[2]*port]*flow),
	}
	w.running.Go(w.deliver)
	return w
}

// plug starts to carry packets from and to p.
func (w *wire) plug(p *port) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ports[p.addr] != nil {
		return fmt.Errorf("the address %s is taken", p.addr)
	}
	w.ports[p.addr] = p
	w.running.Go(func() { w.read(p) })
	return nil
}

// close stops all and returns when no goroutine is left.
func (w *wire) close() {
	close(w.stop)
	w.mu.Lock()
	for _, p := range w.ports {
		p.tap.Close()
	}
	w.mu.Unlock()
	w.running.Wait()
}

func (w *wire) read(p *port) {
	buf := make([]byte, 1<<16)
	for {
		n, err := p.tap.Read(buf)
		if errors.Is(err, unix.ENETDOWN) {
			continue // said once when the device goes down; then it waits
		}
		if err != nil {
			return
		}
		w.forward(p, buf[:n], time.Now())
	}
}

// flow is the flow between two ports. Its dice depend on the seed and the addresses
// only: the n-th packet from a to b meets the same fate in every run.
func (w *wire) flow(from, to *port) *flow {
	f := w.flows[[2]*port{from, to}]
	if f == nil {
		a, b := from.addr.As4(), to.addr.As4()
		pair := uint64(binary.BigEndian.Uint32(a[:]))<<32 | uint64(binary.BigEndian.Uint32(b[:]))
		f = &flow{dice: rand.New(rand.NewPCG(w.seed, pair))}
		w.flows[[2]*port{from, to}] = f
	}
	return f
}

// forward decides what becomes of a frame that from has sent at now.
func (w *wire) forward(from *port, frame []byte, now time.Time) {
	w.mu.Lock()
	to := w.route(from, frame)
	if to == nil {
		w.traffic.Astray++
		w.mu.Unlock()
		return
	}
	f := w.flow(from, to)
	up, down := from.link, to.link
	lost := f.dice.Float64() >= (1-up.Loss)*(1-down.Loss)
	jitter := time.Duration(f.dice.Float64()*float64(up.Jitter) + f.dice.Float64()*float64(down.Jitter))
	leaves, fits := pass(&from.up, up.Rate, now, len(frame))
	switch {
	case f.cut:
		w.traffic.Cut++
		w.mu.Unlock()
		return
	case lost:
		w.traffic.Lost++
		w.mu.Unlock()
		return
	case !fits || w.bytes+len(frame) > maxFlying:
		w.traffic.Overflow++
		w.mu.Unlock()
		return
	}
	copy(frame, to.mac[:])
	if up.instant() && down.instant() {
		w.mu.Unlock()
		w.send(to, frame)
		return
	}
	due := leaves.Add(up.Delay + down.Delay + jitter)
	if due.Before(f.last) {
		due = f.last
	}
	f.last = due
	w.push(packet{due: due, to: to, frame: append([]byte(nil), frame...)})
	w.mu.Unlock()
}

// instant reports whether no packet ever waits.
func (k Link) instant() bool { return k.Delay == 0 && k.Jitter == 0 && k.Rate == 0 }

// route is the port that a frame is for, or nil.
func (w *wire) route(from *port, frame []byte) *port {
	if len(frame) < frameHead+ipHead || frame[frameHead]>>4 != 4 {
		return nil
	}
	ip := frame[frameHead:]
	if netip.AddrFrom4([4]byte(ip[12:16])) != from.addr {
		return nil // a provider lets out no address but the customer's (BCP 38)
	}
	return w.ports[netip.AddrFrom4([4]byte(ip[16:20]))]
}

// pass sends size bytes through a link with a rate, and tells when the last is
// through, or that the backlog is too long.
func pass(free *time.Time, rate int64, now time.Time, size int) (time.Time, bool) {
	if rate == 0 {
		return now, true
	}
	start := now
	if free.After(now) {
		start = *free
	}
	if start.Sub(now) > maxBacklog {
		return now, false
	}
	*free = start.Add(time.Duration(float64(size*8) / float64(rate) * float64(time.Second)))
	return *free, true
}

// push puts a packet among those in flight. The caller holds mu.
func (w *wire) push(p packet) {
	w.sent++
	p.number = w.sent
	w.bytes += len(p.frame)
	heap.Push(&w.flying, p)
	if w.flying[0].number == p.number {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// due takes out the packets that arrive at now, and tells when the next one does.
func (w *wire) due(now time.Time, out []packet) (_ []packet, next time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.flying) > 0 {
		if w.flying[0].due.After(now) {
			return out, w.flying[0].due
		}
		p := heap.Pop(&w.flying).(packet)
		w.bytes -= len(p.frame)
		if rate := p.to.link.Rate; rate > 0 && !p.queued {
			through, fits := pass(&p.to.down, rate, p.due, len(p.frame))
			if !fits {
				w.traffic.Overflow++
				continue
			}
			p.due, p.queued = through, true
			w.push(p)
			continue
		}
		out = append(out, p)
	}
	return out, time.Time{}
}

func (w *wire) deliver() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var batch []packet
	for {
		var next time.Time
		batch, next = w.due(time.Now(), batch[:0])
		for _, p := range batch {
			w.send(p.to, p.frame)
		}
		clear(batch)
		if len(batch) > 0 {
			continue // sending took time
		}
		wait := time.Hour
		if !next.IsZero() {
			wait = time.Until(next)
		}
		timer.Reset(wait)
		select {
		case <-w.stop:
			return
		case <-w.wake:
		case <-timer.C:
		}
	}
}

// send puts a frame into the link of p.
func (w *wire) send(p *port, frame []byte) {
	_, err := p.tap.Write(frame)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.traffic.Overflow++
		return
	}
	w.traffic.Delivered++
	w.traffic.Bytes += int64(len(frame) - frameHead)
}

// cut cuts or joins two ports, both ways.
func (w *wire) cut(a, b *port, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flow(a, b).cut = cut
	w.flow(b, a).cut = cut
}

func (w *wire) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.flows {
		f.cut = false
	}
}

func (w *wire) setLink(p *port, link Link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.link = link
}

func (w *wire) count() Traffic {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.traffic
}
