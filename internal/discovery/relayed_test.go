package discovery

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crowdcompute/crowd"
)

// TestRelayed_IsFound: a node behind a NAT is found by its ID, with the relay in its record, and no more once it has gone.
func TestRelayed_IsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		// Others from the same corner of the internet have ads already.
		fleet := e.fleet(t, 8, func(_ int, c *Config) { c.Tags = []string{"provider", "wasm"} })
		time.Sleep(20 * time.Minute)
		defer stopAll(fleet)
		var relay crowd.Key // none at first: reservations take their time
		hidden := e.start(t, 40, func(c *Config) {
			c.Self = func([]netip.AddrPort) Self { return Self{Relay: relay} }
		}, fleet[0].seed())
		hidden.awaitReady(t, 40)
		if _, err := fleet[5].Find(within(t, time.Minute), hidden.id); !errors.Is(err, ErrNotFound) {
			t.Errorf("without a way to it: got %v, want %v", err, ErrNotFound)
		}
		relay = fleet[3].id.Key()
		began := time.Now()
		for {
			time.Sleep(time.Second)
			r, err := fleet[5].Find(within(t, time.Minute), hidden.id)
			if err == nil {
				if r.Relay != relay || len(r.Endpoints) != 0 {
					t.Errorf("got %+v, want its relay and no endpoint", r)
				}
				break
			}
			if time.Since(began) > 20*time.Second {
				t.Fatalf("not found: %v", err)
			}
		}
		t.Logf("found %v after it had a relay", time.Since(began))
		if r, err := fleet[5].FindKey(within(t, time.Minute), relay); err != nil || r.ID != fleet[3].id {
			t.Errorf("its relay: got %v", err)
		}
		hidden.stop()
		time.Sleep(time.Hour)
		if _, err := fleet[5].Find(within(t, time.Minute), hidden.id); !errors.Is(err, ErrNotFound) {
			t.Errorf("long gone: got %v, want %v", err, ErrNotFound)
		}
	})
}
