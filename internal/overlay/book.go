package overlay

import (
	"net/netip"

	"github.com/crowdcompute/crowd"
)

// Ref names a record in a Book; 0 names none.
type Ref uint32

// Book holds every version of every record that its nodes refer to, once, with what is computed
// from it. A real node has its own. In a simulation many nodes share one, which costs
// them no knowledge: a node sees only what it holds a Ref of. One goroutine only.
type Book struct {
	index map[crowd.NodeID]Ref // the version interned last; the others hang from it. Never ranged over
	pages []page               // by Ref
	spare Ref                  // a chain of free pages

	// scratch of whichever node is stepping
	effects []Effect
	near    []ranked
	refs    []Ref

	idle    []*busy // emptied, for the next node that has something under way
	configs []*Config
}

// page is a record and what a table asks of it all the time.
type page struct {
	rec     *Record
	key     crowd.Key
	net     [2]uint64 // of the endpoint by family: see netOf
	at      [2]uint8  // index of that endpoint
	first   uint8     // the family that its node prefers
	next    Ref       // another version of the same node, or another free page
	holders uint32
}

// NewBook is an empty book.
func NewBook() *Book { return &Book{index: map[crowd.NodeID]Ref{}, pages: make([]page, 1)} }

// Len counts the records held.
func (b *Book) Len() int {
	n := 0
	for i := range b.pages {
		if b.pages[i].rec != nil {
			n++
		}
	}
	return n
}

// hold interns rec for one more holder. Two records are the same if their node, number and
// signature are: a signature covers everything.
func (b *Book) hold(rec *Record) Ref {
	head := b.index[rec.ID]
	for r := head; r != 0; r = b.pages[r].next {
		if have := b.pages[r].rec; have == rec || have.Seq == rec.Seq && have.Sig == rec.Sig {
			b.pages[r].holders++
			return r
		}
	}
	r := b.spare
	if r != 0 {
		b.spare = b.pages[r].next
	} else {
		r = Ref(len(b.pages))
		b.pages = append(b.pages, page{})
	}
	p := page{rec: rec, next: head, holders: 1}
	if head != 0 {
		p.key = b.pages[head].key
	} else {
		p.key = rec.ID.Key()
	}
	p.first = 2
	for i, e := range rec.Endpoints {
		f, net := netOf(e)
		if net == 0 || p.net[f] != 0 {
			continue
		}
		p.net[f], p.at[f] = net, uint8(i)
		if p.first == 2 {
			p.first = uint8(f)
		}
	}
	b.pages[r] = p
	b.index[rec.ID] = r
	return r
}

// again is r for one more holder.
func (b *Book) again(r Ref) Ref {
	if r != 0 {
		b.pages[r].holders++
	}
	return r
}

// free ends one holding.
func (b *Book) free(r Ref) {
	if r == 0 {
		return
	}
	p := &b.pages[r]
	if p.holders--; p.holders > 0 {
		return
	}
	id := p.rec.ID
	if head := b.index[id]; head != r {
		for b.pages[head].next != r {
			head = b.pages[head].next
		}
		b.pages[head].next = p.next
	} else if p.next != 0 {
		b.index[id] = p.next
	} else {
		delete(b.index, id)
	}
	*p = page{next: b.spare}
	b.spare = r
}

func (b *Book) rec(r Ref) *Record { return b.pages[r].rec }
func (b *Book) seq(r Ref) uint64  { return b.pages[r].rec.Seq }

// keyOf is id's key, remembered if some record of id is held.
func (b *Book) keyOf(id crowd.NodeID) crowd.Key {
	if r := b.index[id]; r != 0 {
		return b.pages[r].key
	}
	return id.Key()
}

// config is c as a pointer that nodes of equal configuration share.
func (b *Book) config(c Config) *Config {
	for _, have := range b.configs {
		if *have == c {
			return have
		}
	}
	b.configs = append(b.configs, &c)
	return &c
}

// Families of addresses.
const (
	v4 = 0
	v6 = 1
)

// private marks a net outside the public internet.
const private = 1 << 63

// unroutable are the ranges that nobody can be reached in from elsewhere (RFC 6890), and those that
// would give the owner of one IPv4 address a /48 of his own (6to4, Teredo, NAT64).
var unroutable = [...]netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"),
}

// netOf is the family of e and the /24 or /48 that it lies in, never 0; 0 if nobody can be there at all.
func netOf(e Endpoint) (family int, net uint64) {
	a := e.Addr
	if e.UDP == 0 || !a.IsValid() || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() {
		return v4, 0
	}
	open := a.IsGlobalUnicast() && !a.IsPrivate()
	for _, p := range unroutable {
		open = open && !p.Contains(a)
	}
	if a.Is4() {
		b := a.As4()
		family, net = v4, 1<<62|uint64(b[0])<<16|uint64(b[1])<<8|uint64(b[2])
	} else {
		b := a.As16()
		family, net = v6, 1<<61|uint64(b[0])<<40|uint64(b[1])<<32|uint64(b[2])<<24|uint64(b[3])<<16|uint64(b[4])<<8|uint64(b[5])
	}
	if !open {
		net |= private
	}
	return family, net
}
