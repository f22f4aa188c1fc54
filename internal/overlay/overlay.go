// Package overlay decides who knows whom: S/Kademlia (Baumgart and Mies 2007) as a
// pure machine, with signed records, tags and service ads. It opens no socket, reads no
// clock, checks no signature or puzzle: its driver hands in only what it has verified.
// It stores no values; what lies above it uses the same keys.
package overlay

import (
	"time"

	"github.com/crowdcompute/crowd"
)

// Time is microseconds since the Unix epoch, on the node's own clock.
type Time int64

// At is t as a Time.
func At(t time.Time) Time { return Time(t.UnixMicro()) }

// Add is d after t.
func (t Time) Add(d time.Duration) Time { return t + Time(d.Microseconds()) }

// Sub is how long t is after u.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t-u) * time.Microsecond }

// Std is t as a time.Time in UTC.
func (t Time) Std() time.Time { return time.UnixMicro(int64(t)).UTC() }

// Topic is where the ads of a tag are kept.
func Topic(tag string) crowd.Key { return crowd.Key(crowd.Digest("overlay/tag", tag)) }

// Config of a node. The zero value is the paper's network; all nodes of one network
// should agree on the sizes, and need not.
type Config struct {
	BucketSize   int // k: entries of a bucket; S/Kademlia section 4.3; default 32
	Siblings     int // s: the nodes that are responsible for a key, S/Kademlia section 4.2; default 16. A node keeps the nearest 5·s
	Paths        int // d: disjoint paths of a lookup, S/Kademlia section 4.4; default 4
	Parallel     int // α: requests under way on one path; default 2
	Width        int // w: a path ends only when the nearest so many of its list have been asked; default 8
	Fair         int // requests of a path that go to whoever the fewest doubtful words stand behind, not to the nearest; default 16
	PerSubnet    int // entries of one /24 (IPv6: /48) in a bucket; default 2
	PerSubnetAll int // entries of one /24 (IPv6: /48) in the whole table; default 10
	Answer       int // records in an answer at most; default 16

	PingEvery    time.Duration // a peer silent for so long is asked whether it lives; grows with its known age; default 8 min
	RefreshEvery time.Duration // of the own key, a quarter of it at first and twice in the end; default 20 min
	ProofFor     time.Duration // how long a proven endpoint counts; default 12 h
	AdFor        time.Duration // life of an ad; default 15 min, as in DISC-NG
	Ads          int           // ads that a node keeps for others; default 1000
	Proofs       int           // proven endpoints remembered of nodes outside the table, of which some 320 have a node in theirs at 100,000; default 512

	Secret  [32]byte // of tickets: unknown to everybody else
	Private bool     // take addresses that are not of the public internet: a LAN, a test
}
