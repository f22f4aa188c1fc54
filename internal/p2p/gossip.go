package p2p

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/crowdcompute/crowd"
)

// MaxGossip bounds the data of one message, in bytes.
const MaxGossip = 64 << 10

// heartbeat is how long a new neighbour may wait to be let into the mesh: half of gossipsub's default.
const heartbeat = 500 * time.Millisecond

func newGossip(ctx context.Context, h host.Host, topics []string) (*pubsub.PubSub, error) {
	params := pubsub.DefaultGossipSubParams()
	params.HeartbeatInterval = heartbeat
	return pubsub.NewGossipSub(ctx, h,
		pubsub.WithGossipSubParams(params),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		pubsub.WithMaxMessageSize(MaxGossip+4<<10), // author, signature, number, topic
		pubsub.WithFloodPublish(true),
		pubsub.WithPeerExchange(false),
		pubsub.WithSubscriptionFilter(pubsub.WrapLimitSubscriptionFilter(pubsub.NewAllowlistSubscriptionFilter(topics...), 128)),
	)
}

type topic struct {
	*pubsub.Topic
	subscribed bool
}

// join must be called with h.mu held.
func (h *Host) join(name string) (*topic, error) {
	if h.closed {
		return nil, errors.New("host is closed")
	}
	if t := h.topics[name]; t != nil {
		return t, nil
	}
	t, err := h.gossip.Join(name)
	if err != nil {
		return nil, err // also for a topic that Config.Topics does not name
	}
	h.topics[name] = &topic{Topic: t}
	return h.topics[name], nil
}

// Publish signs data and sends it to all who subscribe to the topic, as far as gossip carries: each gets it
// once, or perhaps not at all. That nobody listens is no error.
func (h *Host) Publish(ctx context.Context, topic string, data []byte) error {
	if len(data) > MaxGossip {
		return fmt.Errorf("publish to %s: %d bytes, at most %d", topic, len(data), MaxGossip)
	}
	h.mu.Lock()
	t, err := h.join(topic)
	h.mu.Unlock()
	if err == nil {
		err = t.Publish(ctx, data)
	}
	if err != nil {
		return fmt.Errorf("publish to %s: %w", topic, err)
	}
	return nil
}

// Subscription is a queue of a topic's messages.
type Subscription struct {
	h     *Host
	sub   *pubsub.Subscription
	topic string
	once  sync.Once // of Cancel
}

// Message is what a node has signed and published.
type Message struct {
	From crowd.NodeID // its author, not the peer that passed it on
	Data []byte
}

// Subscribe queues the messages of a topic, our own included, that valid accepts; all others are not passed on
// either. valid is called from several goroutines, also for messages that the queue
// then drops because it holds buffer messages already, and should take well under a
// millisecond. A topic has at most one subscription at a time.
func (h *Host) Subscribe(topic string, buffer int, valid func(from crowd.NodeID, data []byte) bool) (*Subscription, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, err := h.join(topic)
	if err == nil && t.subscribed {
		err = errors.New("already subscribed")
	}
	if err == nil {
		err = h.gossip.RegisterTopicValidator(topic, func(_ context.Context, _ peer.ID, m *pubsub.Message) (ok bool) {
			defer func() {
				if r := recover(); r != nil {
					h.cfg.Log.Error("gossip validator panicked", "topic", topic, "panic", r)
					ok = false
				}
			}()
			from, err := NodeIDOf(m.GetFrom())
			return err == nil && len(m.Data) <= MaxGossip && valid(from, m.Data)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", topic, err)
	}
	sub, err := t.Topic.Subscribe(pubsub.WithBufferSize(buffer))
	if err != nil {
		h.gossip.UnregisterTopicValidator(topic)
		return nil, fmt.Errorf("subscribe to %s: %w", topic, err)
	}
	t.subscribed = true
	return &Subscription{h: h, sub: sub, topic: topic}, nil
}

// Next waits for a message. It fails when ctx ends, after Cancel, and when the host closes.
func (s *Subscription) Next(ctx context.Context) (Message, error) {
	m, err := s.sub.Next(ctx)
	if err != nil {
		return Message{}, fmt.Errorf("read from %s: %w", s.topic, err)
	}
	from, err := NodeIDOf(m.GetFrom())
	if err != nil {
		panic("bug: a message passed validation: " + err.Error())
	}
	return Message{From: from, Data: m.Data}, nil
}

// Cancel ends the subscription. Calling it again does nothing.
func (s *Subscription) Cancel() {
	s.once.Do(func() {
		s.h.mu.Lock()
		defer s.h.mu.Unlock()
		s.sub.Cancel()
		s.h.gossip.UnregisterTopicValidator(s.topic) // fails only after Close, when nothing is validated
		s.h.topics[s.topic].subscribed = false
	})
}
