package discovery

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/atomicfile"
	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/overlay"
)

// A node restarts from peers that it has known for long. Marcus, Heilman and Goldberg ("Low-Resource
// Eclipse Attacks on Ethereum's Peer-to-Peer Network", 2018, section 4) eclipsed nodes at a restart, whose
// memory strangers could fill. So only peers that have answered are written down, many of them, few of
// one subnet; age decides who stays; and whoever falls silent is kept for a while, because it
// may be our own line that is down.
const (
	databaseFile = "overlay-peers"
	maxKnown     = 1024
	perSubnet    = 10                  // S/Kademlia's table has the same bound
	lostFor      = 7 * 24 * time.Hour  // a peer that no longer answers is forgotten after so long
	longKnown    = 30 * 24 * time.Hour // more age than this gives no more weight
)

// known is what is remembered of one peer.
type known struct {
	record *overlay.Record
	first  overlay.Time // it answered first
	last   overlay.Time // it was last known to live
	lost   bool         // it stopped answering
}

// database is Run's goroutine's, but for write.
type database struct {
	entries map[crowd.NodeID]*known
	order   []*known // those of entries, as they came
	rng     *rand.Rand
	dirty   bool
}

func newDatabase(rng *rand.Rand) *database {
	return &database{entries: map[crowd.NodeID]*known{}, rng: rng}
}

// keep notes a peer that has answered.
func (d *database) keep(r *overlay.Record, now overlay.Time) {
	if len(r.Endpoints) == 0 {
		return
	}
	d.dirty = true
	if k := d.entries[r.ID]; k != nil {
		k.record, k.last, k.lost = r, now, false
		return
	}
	// In a crowded subnet the newcomer is the one to go: it cannot push out those known for longer.
	net, same := subnetOf(r.Endpoints[0].Addr), 0
	for _, k := range d.order {
		if subnetOf(k.record.Endpoints[0].Addr) == net {
			same++
		}
	}
	if same >= perSubnet && !net.Addr().IsLoopback() && !net.Addr().IsPrivate() {
		return
	}
	d.put(&known{record: r, first: now, last: now})
	if len(d.order) > maxKnown {
		d.evict()
	}
}

func (d *database) put(k *known) {
	d.entries[k.record.ID] = k
	d.order = append(d.order, k)
}

// lose notes that a peer fell silent.
func (d *database) lose(id crowd.NodeID) {
	if k := d.entries[id]; k != nil && !k.lost {
		k.lost, d.dirty = true, true
	}
}

// evict makes room for one: of those lost the one lost longest ago, else anybody from the youngest quarter, the
// newest among them. A flood of strangers replaces itself.
func (d *database) evict() {
	lost := -1
	for i, k := range d.order {
		if k.lost && (lost < 0 || k.last < d.order[lost].last) {
			lost = i
		}
	}
	if lost < 0 {
		lost = len(d.order) - 1 - d.rng.IntN(len(d.order)/4+1)
	}
	d.remove(lost)
}

func (d *database) remove(i int) {
	delete(d.entries, d.order[i].record.ID)
	d.order = slices.Delete(d.order, i, i+1)
	d.dirty = true
}

// expire forgets who has been silent for long.
func (d *database) expire(now overlay.Time) {
	for i := len(d.order) - 1; i >= 0; i-- {
		if k := d.order[i]; k.lost && now.Sub(k.last) > lostFor {
			d.remove(i)
		}
	}
}

// seeds draws at most n peers to begin with, each from a subnet of its own where the address is public, by the
// time that they have been known. A peer that was lost is drawn rarely.
func (d *database) seeds(n int) []*overlay.Record {
	left := slices.Clone(d.order)
	weight := func(k *known) float64 {
		w := min(k.last.Sub(k.first), longKnown).Hours() + 1
		if k.lost {
			w /= 100
		}
		return w
	}
	taken := map[netip.Prefix]bool{}
	var out []*overlay.Record
	for len(out) < n && len(left) > 0 {
		sum := 0.0
		for _, k := range left {
			sum += weight(k)
		}
		at, i := d.rng.Float64()*sum, 0
		for i < len(left)-1 {
			if at -= weight(left[i]); at < 0 {
				break
			}
			i++
		}
		r := left[i].record
		left = slices.Delete(left, i, i+1)
		a := r.Endpoints[0].Addr
		if net := subnetOf(a); !a.IsPrivate() && !a.IsLoopback() {
			if taken[net] {
				continue
			}
			taken[net] = true
		}
		out = append(out, r)
	}
	return out
}

// The file is the canonical encoding of a databaseForm, then its Keccak-256. It is written whole and moved into
// place: some hundred kilobytes, once a minute at most.
type databaseForm struct {
	_       struct{} `cbor:",toarray"`
	Version uint8
	Network overlay.Network
	Peers   []peerForm
}

type peerForm struct {
	_      struct{} `cbor:",toarray"`
	Node   crowd.NodeID
	Record []byte
	First  int64 // Unix milliseconds
	Last   int64
	Lost   bool
}

const (
	databaseVersion = 1
	maxDatabase     = 1 << 20 // bytes: more than maxKnown entries take
)

func (d *database) encode(network overlay.Network) []byte {
	form := databaseForm{Version: databaseVersion, Network: network}
	for _, k := range d.order {
		b, err := overlay.EncodeRecord(k.record)
		if err != nil {
			panic("bug: a record that was decoded: " + err.Error())
		}
		form.Peers = append(form.Peers, peerForm{Node: k.record.ID, Record: b, First: int64(k.first / 1000), Last: int64(k.last / 1000), Lost: k.lost})
	}
	out := crowd.Encode(form)
	sum := crowd.Keccak256(out)
	return append(out, sum[:]...)
}

// decode fills d from what encode made. Times in the future are now.
func (d *database) decode(b []byte, network overlay.Network, now overlay.Time) error {
	end := len(b) - len(crowd.Hash{})
	if end < 0 || len(b) > maxDatabase {
		return fmt.Errorf("%d bytes", len(b))
	}
	if crowd.Keccak256(b[:end]) != crowd.Hash(b[end:]) {
		return errors.New("its checksum does not hold")
	}
	var form databaseForm
	if err := crowd.Decode(b[:end], &form); err != nil {
		return err
	}
	if form.Version != databaseVersion || len(form.Peers) > maxKnown {
		return fmt.Errorf("version %d with %d peers", form.Version, len(form.Peers))
	}
	if form.Network != network {
		return errOtherNetwork
	}
	for _, p := range form.Peers {
		// Signatures were checked before; those of the peers that are used are checked again.
		r, err := overlay.DecodeRecord(network, p.Record, func(crowd.Hash, identity.Signature) (crowd.NodeID, error) { return p.Node, nil })
		if err != nil {
			return err
		}
		first, last := overlay.Time(p.First)*1000, overlay.Time(p.Last)*1000
		if d.entries[p.Node] != nil || first < 0 || last < first || len(r.Endpoints) == 0 {
			return errors.New("an entry that makes no sense")
		}
		d.put(&known{record: r, first: min(first, now), last: min(last, now), lost: p.Lost})
	}
	return nil
}

var errOtherNetwork = errors.New("it is of another network")

// openDatabase reads the folder's database. One that cannot be read is set aside as .damaged: the error says
// so, and an empty database comes with it.
func openDatabase(folder string, network overlay.Network, now overlay.Time, rng *rand.Rand) (*database, error) {
	d := newDatabase(rng)
	if folder == "" {
		return d, nil
	}
	path := filepath.Join(folder, databaseFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err == nil {
		if err = d.decode(b, network, now); err == nil {
			return d, nil
		}
	}
	empty := newDatabase(rng)
	if aside := os.Rename(path, path+".damaged"); aside != nil {
		return empty, fmt.Errorf("read %s: %w; setting it aside: %w", path, err, aside)
	}
	return empty, fmt.Errorf("read %s: %w; it is now %s.damaged", path, err, path)
}

// writeDatabase replaces the folder's database.
func writeDatabase(folder string, b []byte) error {
	return atomicfile.Write(filepath.Join(folder, databaseFile), b, 0o600)
}

// subnetOf is the network that is taken for one owner: /24 or, of IPv6, /48.
func subnetOf(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 48
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
