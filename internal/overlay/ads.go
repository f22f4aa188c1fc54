package overlay

import "github.com/crowdcompute/crowd"

type registrar struct{}

type topic struct{ key crowd.Key }

type tagged struct {
	tag  string
	refs []Ref
}

const ticketLen = 64

func (n *Node) registering(ev Received, m Register)                       {}
func (n *Node) granted(i int, m Ticket)                                   {}
func (n *Node) unanswered(q *pending)                                     {}
func (n *Node) announce(key crowd.Key)                                    {}
func (n *Node) withdraw(key crowd.Key)                                    {}
func (n *Node) settled(t *topic, near []ranked)                           {}
func (n *Node) adsUnder(key crowd.Key, out []*Record, want int) []*Record { return out }
func (n *Node) nextAd() Time                                              { return 0 }
func (n *Node) renewAds()                                                 {}
func (n *Node) closeAds()                                                 {}
func (n *Node) addTagged(rec *Record)                                     {}
func (n *Node) dropTagged(rec *Record)                                    {}
