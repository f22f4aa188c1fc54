package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crowdcompute/crowd"
)

// protoWhere asks a seed where a node is. The answer is a hint: the transport
// accepts only who holds the node's key.
const protoWhere = "/crowd/where/1"

const (
	maxWhere     = 256     // bytes of a question
	maxAddresses = 4 << 10 // bytes of an answer
)

// answerWhere tells the addresses of a connected node.
func (n *Node) answerWhere(_ context.Context, _ crowd.NodeID, req []byte) ([]byte, error) {
	var id crowd.NodeID
	if err := crowd.Decode(req, &id); err != nil {
		return nil, err
	}
	addrs := n.host.Known(id)
	for len(addrs) > 16 || len(crowd.Encode(addrs)) > maxAddresses {
		addrs = addrs[:len(addrs)-1]
	}
	return crowd.Encode(addrs), nil
}

// reach makes sure that id is connected, asking the other peers where it is.
func (n *Node) reach(ctx context.Context, id crowd.NodeID) error {
	errs := []error{n.host.ConnectID(ctx, id, nil)} // connected, or known already
	if errs[0] == nil {
		return nil
	}
	for _, p := range n.host.Peers() {
		each, cancel := context.WithTimeout(ctx, 5*time.Second)
		addrs, err := n.where(each, p.ID, id)
		if err == nil && len(addrs) > 0 {
			err = n.host.ConnectID(each, id, addrs)
			if err == nil {
				cancel()
				return nil
			}
		}
		cancel()
		errs = append(errs, err)
	}
	return fmt.Errorf("reach %s: %w", id.Short(), errors.Join(errs...))
}

// meet is reach, and an answer: the connection to a dead node outlives it by half a minute.
func (n *Node) meet(ctx context.Context, id crowd.NodeID) error {
	if err := n.reach(ctx, id); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := n.where(ctx, id, n.id); err != nil {
		return fmt.Errorf("meet %s: %w", id.Short(), err)
	}
	return nil
}

func (n *Node) where(ctx context.Context, seed, id crowd.NodeID) (addrs []string, err error) {
	raw, err := n.host.Request(ctx, seed, protoWhere, crowd.Encode(id), maxAddresses)
	if err != nil {
		return nil, err
	}
	return addrs, crowd.Decode(raw, &addrs)
}
